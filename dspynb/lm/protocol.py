"""The protocol of language models: any object with ``async complete(request) -> reply``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from dspynb.data import Usage, is_sound, usage_of
from dspynb.dataclass_init import fast_init
from dspynb.errors import (
    ConfigurationError,
    ContentFiltered,
    MalformedReply,
    ModelError,
    Refused,
    ReplyTruncated,
    ScopeError,
)
from dspynb.lm.finish_reasons import FILTERED, INCOMPLETE, REFUSED, TRUNCATED, normalized_finish
from dspynb.media.describe import has_media
from dspynb.redact import redact_known, redact_values
from dspynb.scope.call_context import Place
from dspynb.scope.core import current_scope
from dspynb.thinking import BLANK, SERVER_TAGS, may_have_tags, split_opened

__all__ = [
    "LONG_TEXT",
    "SERVER",
    "LMProtocol",
    "LMReply",
    "LMRequest",
    "Message",
    "PieceCallback",
    "check_reply",
    "describe_cut",
    "is_complete",
    "is_truncated",
    "reasoning_of",
    "refuse_in_a_replay",
    "refuse_media",
    "request_key",
    "returns_reasoning",
    "sent_settings",
    "with_facts",
    "with_thinking",
    "with_usage",
    "without_secrets",
]

LONG_TEXT = 2**20
"""Characters of a reply, or bytes of a body, above which it is read in a thread and not on the event loop."""
SERVER = "_dspynb_server"
"""The attribute of a model with the host and port of its server. A model of a user is unlikely to have it."""
Message = Mapping[str, Any]
PieceCallback = Callable[[str], None]
"""A function that is called with each new piece of a reply's text while the reply arrives."""


@fast_init
@dataclass(frozen=True, slots=True)
class LMRequest:
    """One request to a model.

    ``messages``: tuple of ``{"role": ..., "content": ...}``. ``settings``: temperature, max_tokens and the like.
    ``response_format``: the JSON schema of the reply, for models that can be constrained. ``rollout``: the number of
    the sample; equal requests with different numbers get different samples. It is part of the cache key and never sent
    to a provider. ``tools``: descriptions of the tools that the model may call, in OpenAI's format.
    ``format_in_prompt``: whether the messages describe the response format in words, as those of an adapter do. If they
    do not, ``LM`` adds such a description where the model takes no schema. ``grammar``: the grammar of the reply in
    GBNF, for models with ``takes_grammar``, which use it instead of ``response_format``. It follows from the adapter
    and the signature, so that it is no part of the keys of recordings.

    >>> lm = dn.ScriptedLM(["answer: 4"])
    >>> prediction = dn.Predict("question -> answer", lm=lm, temperature=0).run_sync(question="2+2?")
    >>> request = lm.requests[0]
    >>> request.settings, request.messages[-1]["role"], request.rollout
    ({'temperature': 0}, 'user', 0)
    """

    messages: tuple[Message, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    response_format: Mapping[str, Any] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    rollout: int = 0
    format_in_prompt: bool = False
    grammar: str | None = None


@fast_init
@dataclass(frozen=True, slots=True)
class LMReply:
    """A model's reply.

    ``text``: the text of the reply, which is also ``str(reply)``. ``tool_calls``: the tool calls, in OpenAI's format.
    ``usage``: what the call cost. ``raw``: the provider's response, or None. ``cached``: whether the reply comes from a
    cache and cost nothing. ``reasoning``: the text of the model's reasoning, or None; thinking at the beginning of
    ``text``, between ``<think>`` and ``</think>``, is moved there. ``completions``: the texts of a request with ``n`` >
    1, without truncated and filtered ones. ``completion_reasoning``: the reasoning of each of them, None where it has
    none; empty if it is unknown. ``logprobs``: the log probabilities of the tokens in the provider's format,
    if the request asks for them. ``sent``: the settings as they were sent, if the model does not take them as they were
    requested; else None. ``request_id``: the provider's id of the request, and ``response_id``: its id of the response;
    None if it reports none. ``waited``: the seconds in which the request waited for a slot, a rate limit, or a retry.
    ``first_token``: the seconds from sending to the first piece of a streamed reply; else None. ``response_model``: the
    name of the model that the response reports; None if it reports none. ``price_source``: where the price of the usage
    comes from; None if it is unknown.

    ``finish``: the provider's finish reason, which says why the model stopped. A predictor raises ReplyTruncated,
    ContentFiltered or Refused for a reply that is incomplete (``length``, ``content_filter``, ``refusal``, …).

    >>> class Echo:  # a model is anything with ``async complete(request) -> reply``
    ...     async def complete(self, request):
    ...         return dn.LMReply("answer: 4", usage=dn.Usage(calls=1, prompt_tokens=90, completion_tokens=3))
    >>> dn.Predict("question -> answer", lm=Echo()).run_sync(question="2+2?").usage.tokens
    93
    """

    text: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    usage: Usage = field(default_factory=lambda: Usage(calls=1))
    raw: Any = field(default=None, repr=False)
    cached: bool = False
    finish: str | None = None
    reasoning: str | None = None
    completions: tuple[str, ...] = ()
    logprobs: Any = None
    sent: Mapping[str, Any] | None = field(default=None, repr=False)
    request_id: str | None = field(default=None, repr=False)
    response_id: str | None = field(default=None, repr=False)
    waited: float = field(default=0.0, repr=False)
    first_token: float | None = field(default=None, repr=False)
    response_model: str | None = field(default=None, repr=False)
    price_source: str | None = field(default=None, repr=False)
    completion_reasoning: tuple[str | None, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return self.text

    def with_usage(self, usage: Usage) -> LMReply:
        """A copy of the reply with another usage."""
        return self._timed(usage, self.waited, self.first_token)

    def timed(self, worked: float, retries: int, *, waited: float, first_token: float | None) -> LMReply:
        """A copy of the reply with its times in seconds: ``worked``, in which the provider worked on the request and
        its ``retries``, ``waited`` and ``first_token``."""
        return self._timed(self.usage.timed(worked, retries), waited, first_token)

    def _timed(self, usage: Usage, waited: float, first_token: float | None) -> LMReply:
        return LMReply(  # dataclasses.replace takes three times as long
            self.text,
            self.tool_calls,
            usage,
            self.raw,
            self.cached,
            self.finish,
            self.reasoning,
            self.completions,
            self.logprobs,
            self.sent,
            self.request_id,
            self.response_id,
            waited,
            first_token,
            self.response_model,
            self.price_source,
            self.completion_reasoning,
        )


def with_thinking(reply: LMReply, thinking: str, text: str) -> LMReply:
    """The reply with ``text`` as its text, and ``thinking``, which was a part of it, added to its reasoning."""
    return replace(reply, text=text.lstrip(BLANK), reasoning=_joined_reasoning(reply.reasoning, thinking))


def _without_opened_thinking(reply: LMReply) -> LMReply:
    """The reply without thinking at the beginning of its text, which becomes its reasoning, and without that of its
    other completions."""
    split = split_opened(reply.text, SERVER_TAGS)
    if split.text is not reply.text:
        reply = with_thinking(reply, split.thinking, split.text)
    if len(reply.completions) > 1:
        others = tuple(
            _without_own_thinking(text, reasoning_of(reply, number)) for number, text in enumerate(reply.completions)
        )
        texts = tuple(text for text, _ in others)
        if texts != reply.completions:
            reply = replace(reply, completions=texts, completion_reasoning=tuple(reasoning for _, reasoning in others))
    return reply


def _without_own_thinking(text: str, reasoning: str | None) -> tuple[str, str | None]:
    """The text of a completion without its thinking, and its reasoning with it."""
    split = split_opened(text, SERVER_TAGS)
    if split.text is text:
        return text, reasoning
    return split.text.lstrip(BLANK), _joined_reasoning(reasoning, split.thinking)


def _joined_reasoning(reasoning: str | None, thinking: str) -> str | None:
    """The reasoning of a reply, followed by the thinking in its text."""
    parts = [part for part in (reasoning, thinking.strip(BLANK)) if part]
    return "\n\n".join(parts) or None


def reasoning_of(reply: LMReply, number: int) -> str | None:
    """The reasoning of one completion of a reply, which is counted from 0; None if it is unknown."""
    if number < len(reply.completion_reasoning):
        return reply.completion_reasoning[number]
    return None


def without_secrets(reply: LMReply) -> LMReply:
    """The reply with the known secrets redacted. A reply can repeat a prompt, and so bring a key into tables, files
    and caches."""
    names = f"{reply.response_id} {reply.response_model}"  # a secret is found faster in one text than in two
    contents = reply.text, reply.tool_calls, reply.reasoning, reply.completions, names, reply.completion_reasoning
    redacted = redact_values(contents)
    if redacted == contents:
        return reply
    text, tool_calls, reasoning, completions, _, completion_reasoning = redacted
    return replace(
        reply,
        text=text,
        tool_calls=tool_calls,
        reasoning=reasoning,
        completions=completions,
        response_id=redact_values(reply.response_id),
        response_model=redact_values(reply.response_model),
        completion_reasoning=completion_reasoning,
    )


_TOKEN_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "max_new_tokens")


def is_complete(reply: LMReply) -> bool:
    """Whether the model wrote the reply to its end, judged by its finish reason."""
    return reply.finish is None or reply.finish == "stop" or normalized_finish(reply.finish) not in INCOMPLETE


def is_truncated(reply: LMReply) -> bool:
    """Whether a limit of tokens cut the reply, judged by its finish reason."""
    return reply.finish is not None and reply.finish != "stop" and normalized_finish(reply.finish) in TRUNCATED


def check_reply(reply: LMReply, settings: Mapping[str, Any], model: str, *, accept_truncated: bool = False) -> LMReply:
    """Return the reply if it is complete. Every reply of every model is checked before it is cached or parsed.

    ``settings``: the settings that were sent; an error names the token limit among them. ``accept_truncated``: whether
    a truncated reply is returned as well; one without a text, or with a tool call, is an error in any case. A usage
    that is not valid is replaced by an unknown one, and a ``<think>`` block at the beginning of the text becomes the
    reasoning. Tags of other names stay in the text, since the prompt may have asked for them.

    Raises ReplyTruncated, ContentFiltered, Refused or MalformedReply, with the usage of the call.
    """
    if not is_sound(reply.usage):
        reply = reply.with_usage(usage_of(reply.usage if isinstance(reply.usage, Usage) else None))
    if len(reply.completions) > 1 or may_have_tags(reply.text):
        reply = _without_opened_thinking(reply)
    if is_complete(reply):
        return reply
    if accept_truncated and is_truncated(reply) and reply.text.strip() and not reply.tool_calls:
        return reply
    raise with_facts(_incomplete_reply_error(reply, settings, model), reply)


def _incomplete_reply_error(reply: LMReply, settings: Mapping[str, Any], model: str) -> ModelError:
    finish = normalized_finish(reply.finish)
    text = redact_known(reply.text)
    if finish in TRUNCATED:
        truncated = ReplyTruncated(_truncation_problem(reply, text, settings), model=model)
        truncated.text = text
        return truncated
    if finish in FILTERED:
        problem = "the content filter stopped the reply"
        if text:
            problem += f"; it begins: {_beginning(text)!r}"
        return ContentFiltered(problem, model=model, advice=ContentFiltered.remedy)
    if finish in REFUSED:
        problem = "the model refused to answer"
        if text:
            problem += f": {_beginning(text)!r}"
        refused = Refused(problem, model=model, advice=Refused.remedy)
        refused.text = text
        return refused
    return MalformedReply(f"the reply broke off (finish_reason {finish!r})", model=model)


def with_usage(error: ModelError, usage: Usage, *, cached: bool = False) -> ModelError:
    """Set the usage of the failed call on an error and return the error. A cached reply costs nothing."""
    error.usage = usage.as_cached() if cached else usage
    error.cached = cached
    return error


def with_facts(error: ModelError, reply: LMReply) -> ModelError:
    """Set on an error what the reply that it refuses says about the call: its usage, why the model stopped, its
    reasoning, and its ids. Returns the error."""
    error.finish = reply.finish
    error.request_id = reply.request_id or error.request_id
    error.response_id = redact_values(reply.response_id)
    error.response_model = redact_values(reply.response_model)
    if reply.reasoning is not None:
        error.reasoning = redact_known(reply.reasoning)
    return with_usage(error, reply.usage, cached=reply.cached)


def sent_settings(lm: object, request: LMRequest) -> dict[str, Any]:
    """The settings that a model declares as attributes, merged with those of a request. The request's win."""
    settings: dict[str, Any] = {}
    max_tokens = getattr(lm, "max_tokens", None)
    if max_tokens is not None:
        settings["max_tokens"] = max_tokens
    lm_settings = getattr(lm, "settings", None)
    if lm_settings is not None and isinstance(lm_settings, Mapping):
        settings.update(lm_settings)
    settings.update(request.settings)
    return settings


def returns_reasoning(lm: object, settings: Mapping[str, Any]) -> bool:
    """Whether a model says that its reply to a request with these settings has the text of its reasoning: by an
    attribute ``returns_reasoning``, which is a bool, or a function of the settings."""
    says = getattr(lm, "returns_reasoning", False)
    return bool(says(settings) if callable(says) else says)


def _truncation_problem(reply: LMReply, text: str, settings: Mapping[str, Any]) -> str:
    name, _ = _token_limit(settings)
    usage = reply.usage
    if not text.strip() and not reply.tool_calls and (reply.reasoning or usage.reasoning_tokens):
        used = usage.reasoning_tokens or usage.completion_tokens or _token_limit(settings)[1]
        tokens = "all its tokens"
        if used:
            tokens = f"all {used} tokens"
        return f"the reply was cut: it used {tokens} for reasoning; raise {name or 'max_tokens'} or lower the effort"
    problem = describe_cut(settings)
    if reply.tool_calls:
        problem += ", in or after a tool call"
    if text.strip():
        problem += f"; it begins: {_beginning(text)!r}"
    return problem


def describe_cut(settings: Mapping[str, Any]) -> str:
    """Say at which limit a reply was cut, and what to do. ``settings``: the settings that were sent."""
    name, limit = _token_limit(settings)
    if not name:
        return "the reply was cut at the model's own limit (no max_tokens was sent: set it, or ask for less)"
    return f"the reply was cut at {name}={limit} (raise it)"


def _token_limit(settings: Mapping[str, Any]) -> tuple[str, Any]:
    """The name and value of the token limit among the settings; ``("", None)`` if there is none."""
    sources = [settings]
    extra_body = settings.get("extra_body")
    if isinstance(extra_body, Mapping):
        sources.append(extra_body)
    for source in sources:
        for name in _TOKEN_LIMITS:
            if source.get(name) is not None:
                return name, source[name]
    return "", None


def _beginning(text: str, limit: int = 200) -> str:
    line = " ".join(text[: 20 * limit].split())
    if len(line) <= limit:
        return line
    return f"{line[:limit].rstrip()} …"


@runtime_checkable
class LMProtocol(Protocol):
    """Any object that completes requests.

    Optional attributes: ``name`` (text), ``adapter`` (the adapter that the model prefers), ``constrains`` (whether it
    honours ``response_format``), ``takes_grammar`` (whether it holds a reply to ``grammar``, a grammar in GBNF),
    ``native_tools`` (whether it honours ``tools``), ``takes_media`` (whether it takes images and files; default True).

    Optional methods: ``async stream(request, on_piece) -> reply`` calls ``on_piece(text)`` with each new piece of the
    text while the reply arrives. ``async cached_reply(request) -> reply | None`` looks a request up in the model's own
    cache.
    """

    async def complete(self, request: LMRequest) -> LMReply: ...


def refuse_in_a_replay(model: str) -> None:
    """Raise ScopeError if a replay is active: ``complete`` and ``stream`` are not recorded, so they have no answer."""
    if current_scope().context.interceptor(Place.REPLAY) is not None:
        raise ScopeError(
            f"a replay calls no model, and this call of {model} was not recorded, since `complete` and `stream` bypass "
            "the records. Call the model through dn.Predict, or directly with `await lm(…)`"
        )


def refuse_media(lm: object, messages: Iterable[Message]) -> None:
    """Raise ConfigurationError if a message has an image or file and ``lm.takes_media`` is False."""
    if not getattr(lm, "takes_media", True) and has_media(messages):
        name = getattr(lm, "name", type(lm).__name__)
        raise ConfigurationError(f"{name} takes text only, and an input is an image or file: use a model that takes it")


def request_key(request: LMRequest, settings: Mapping[str, Any] | None = None) -> str:
    """A stable hash of everything that can change a reply, the rollout included.

    ``settings``: replaces the settings of the request. Returns 32 hexadecimal digits.
    """
    if settings is None:
        settings = request.settings
    body = {
        "messages": [m if type(m) is dict else dict(m) for m in request.messages],
        "settings": dict(settings),
        "response_format": request.response_format,
        "tools": [dict(t) for t in request.tools],
        "rollout": request.rollout,
    }
    return hashlib.sha256(_KEY_ENCODER.encode(body).encode()).hexdigest()[:32]


_KEY_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=True, default=str, separators=(",", ":"))
