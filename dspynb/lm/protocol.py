"""What every language model is: anything with ``async complete(request) -> reply``."""

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
from dspynb.media.describe import has_media
from dspynb.redact import redact_known, redact_values
from dspynb.scope.call_context import Place
from dspynb.scope.core import current_scope

__all__ = [
    "Heard",
    "LMProtocol",
    "LMReply",
    "LMRequest",
    "Message",
    "billed",
    "check_reply",
    "is_whole",
    "refuse_in_a_replay",
    "refuse_media",
    "request_key",
    "sent_settings",
    "without_secrets",
]

Message = Mapping[str, Any]
Heard = Callable[[str], None]
"""What is told each new piece of a reply's text while it arrives."""


@fast_init
@dataclass(frozen=True, slots=True)
class LMRequest:
    """One request to a model.

    ``messages``: tuple of ``{"role": ..., "content": ...}``. ``settings``: temperature, max_tokens and the like.
    ``response_format``: a JSON schema the reply must satisfy, where the model can be constrained. ``rollout``: a number
    that makes a new sample of an otherwise equal request; part of the cache key, never sent to a provider.
    ``tools``: tools that the model may call, in OpenAI's form.

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


@fast_init
@dataclass(frozen=True, slots=True)
class LMReply:
    """A model's reply. ``cached`` tells that it was not paid for now; ``raw`` is the provider's own answer, if any;
    ``tool_calls`` what it calls, in OpenAI's form; ``reasoning`` the text of its thinking, where it is given;
    ``completions`` the texts of a request with ``n`` > 1, without those that were cut or filtered; ``logprobs`` the log
    probabilities of its tokens, as the provider gives them, where they were asked for.

    ``finish``: why the model stopped, in the provider's word. A reply whose finish says that it is not whole
    (``length``, ``content_filter``, ``refusal`` and the like) is no answer: a predictor raises ReplyTruncated,
    ContentFiltered or Refused instead.

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

    def with_usage(self, usage: Usage) -> LMReply:
        """The same reply at another cost. Not by ``replace``, which takes three times as long."""
        return LMReply(
            self.text,
            self.tool_calls,
            usage,
            self.raw,
            self.cached,
            self.finish,
            self.reasoning,
            self.completions,
            self.logprobs,
        )


def without_secrets(reply: LMReply) -> LMReply:
    """The reply without secrets that this process knows: what repeats a prompt could bring a key into tables, files
    and caches."""
    said = reply.text, reply.tool_calls, reply.reasoning, reply.completions
    text, tool_calls, reasoning, completions = clean = redact_values(said)
    if clean == said:
        return reply
    return replace(reply, text=text, tool_calls=tool_calls, reasoning=reasoning, completions=completions)


# In the words of OpenAI, Anthropic, Gemini, Bedrock, Cohere, DeepSeek, Mistral, watsonx, Zhipu, vLLM and SGLang.
_CUT = frozenset(
    {"length", "max_length", "max_tokens", "max_output_tokens", "max_new_tokens", "max_tokens_reached", "token_limit"}
    | {"model_length", "model_context_window_exceeded", "context_length_exceeded"}
)
_FILTERED = frozenset(
    {"content_filter", "content_filtered", "safety", "recitation", "blocklist", "prohibited_content", "spii"}
    | {"guardrail_intervened", "sensitive", "language", "model_armor", "error_toxic"}
    | {"image_safety", "image_recitation", "image_prohibited_content"}
)
_REFUSED = frozenset({"refusal"})
_BROKEN = frozenset(
    {"error", "abort", "aborted", "cancel", "cancelled", "canceled", "user_cancel", "timeout", "time_limit"}
    | {"incomplete", "insufficient_system_resource", "network_error", "error_limit", "malformed_response"}
    | {"malformed_function_call", "malformed_tool_use", "malformed_model_output", "unexpected_tool_call"}
)
_NOT_WHOLE = _CUT | _FILTERED | _REFUSED | _BROKEN
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "max_new_tokens")


def is_whole(reply: LMReply) -> bool:
    """Whether the model wrote the reply to its end, as far as its ``finish`` says."""
    return reply.finish is None or reply.finish == "stop" or _plain(reply.finish) not in _NOT_WHOLE


def _plain(finish: object) -> str:
    """A finish without its spelling: ``FinishReason.MAX_TOKENS`` and ``max-tokens`` are ``max_tokens``."""
    said = getattr(finish, "value", finish)  # of an enumeration its text, or the name of a number
    said = said if isinstance(said, str) else getattr(finish, "name", said)
    word = str(said).strip().lower().replace("-", "_").replace(" ", "_").rpartition(".")[2]
    return word.removeprefix("finish_reason_")


def check_reply(reply: LMReply, settings: Mapping[str, Any], model: str) -> LMReply:
    """The reply, if it may count as an answer: every reply of every model passes here before it is cached or read.

    ``settings``: what was sent, to name the limit. Raises ReplyTruncated, ContentFiltered, Refused or MalformedReply,
    each with the usage of the call. A usage that is no usage becomes unknown.
    """
    if not is_sound(reply.usage):
        reply = reply.with_usage(usage_of(reply.usage if isinstance(reply.usage, Usage) else None))
    if is_whole(reply):
        return reply
    finish = _plain(reply.finish)
    text = redact_known(reply.text)
    if finish in _CUT:
        error: ModelError = ReplyTruncated(_how_it_was_cut(reply, text, settings), model=model)
    elif finish in _FILTERED:
        begins = f"; it begins: {_beginning(text)!r}" if text else ""
        problem = f"the content filter stopped the reply{begins}"
        error = ContentFiltered(problem, model=model, advice=ContentFiltered.remedy)
    elif finish in _REFUSED:
        said = f": {_beginning(text)!r}" if text else ""
        error = Refused(f"the model refused to answer{said}", model=model, advice=Refused.remedy)
    else:
        error = MalformedReply(f"the reply broke off (finish_reason {finish!r})", model=model)
    if isinstance(error, ReplyTruncated | Refused):
        error.text = text
    raise billed(error, reply.usage, cached=reply.cached)


def billed(error: ModelError, usage: Usage, *, cached: bool = False) -> ModelError:
    """The error, with what the call cost that it is of; nothing where the reply came from a cache."""
    error.usage, error.cached = usage.as_cached() if cached else usage, cached
    return error


def sent_settings(lm: object, request: LMRequest) -> dict[str, Any]:
    """The settings that a model adds to a request's own, as far as its attributes say, and those."""
    most, own = getattr(lm, "max_tokens", None), getattr(lm, "settings", None)
    settings: dict[str, Any] = {} if most is None else {"max_tokens": most}
    if isinstance(own, Mapping):
        settings.update(own)
    settings.update(request.settings)
    return settings


def _how_it_was_cut(reply: LMReply, text: str, settings: Mapping[str, Any]) -> str:
    name, most = _limit(settings)
    usage = reply.usage
    if not text.strip() and not reply.tool_calls and (reply.reasoning or usage.reasoning_tokens):
        used = usage.reasoning_tokens or usage.completion_tokens or most
        tokens = f"all {used} tokens" if used else "all its tokens"
        return f"the reply was cut: it used {tokens} for reasoning; raise {name or 'max_tokens'} or lower the effort"
    said = f"the reply was cut at {name}={most} (raise it)"
    if not name:
        said = "the reply was cut at the model's own limit (no max_tokens was sent: set it, or ask for less)"
    if reply.tool_calls:
        said += ", in or after a call of a tool"
    return f"{said}; it begins: {_beginning(text)!r}" if text.strip() else said


def _limit(settings: Mapping[str, Any]) -> tuple[str, Any]:
    """The limit of tokens that was sent, by name; an empty name for none."""
    extra = settings.get("extra_body")
    for given in (settings, extra if isinstance(extra, Mapping) else {}):
        for name in _LIMITS:
            if given.get(name) is not None:
                return name, given[name]
    return "", None


def _beginning(text: str, most: int = 200) -> str:
    line = " ".join(text[: 20 * most].split())
    return line if len(line) <= most else f"{line[:most].rstrip()} …"


@runtime_checkable
class LMProtocol(Protocol):
    """Anything that completes requests. Optional attributes: ``name`` (text), ``adapter`` (the adapter it prefers),
    ``constrains`` (bool: honours ``response_format``), ``native_tools`` (bool: honours ``tools``),
    ``takes_media`` (bool, True where it is not said: takes images and files). A model that can
    tell its reply while it writes it also has ``async stream(request, heard) -> reply``, which calls ``heard(text)``
    with each new piece; one that keeps replies has ``async kept(request) -> reply | None``."""

    async def complete(self, request: LMRequest) -> LMReply: ...


def refuse_in_a_replay(model: str) -> None:
    """Raises ScopeError where a program that is replayed asks a model itself and not through a predictor."""
    if current_scope().context.interceptor(Place.REPLAY) is not None:
        raise ScopeError(
            f"a replay asks no model, and this call of {model} was not recorded: it is made directly, not by a "
            "predictor. Call the model through dn.Predict"
        )


def refuse_media(lm: object, messages: Iterable[Message]) -> None:
    """Raise ConfigurationError if there is an image or file and the model says that it takes none."""
    if not getattr(lm, "takes_media", True) and has_media(messages):
        name = getattr(lm, "name", type(lm).__name__)
        raise ConfigurationError(f"{name} takes text only, and an input is an image or file: use a model that takes it")


def request_key(request: LMRequest, settings: Mapping[str, Any] | None = None) -> str:
    """A stable hash of everything that can change a reply, rollout included: 32 hex digits. ``settings``: in place of
    the request's own."""
    body = {
        "messages": [m if type(m) is dict else dict(m) for m in request.messages],
        "settings": dict(request.settings if settings is None else settings),
        "response_format": request.response_format,
        "tools": [dict(t) for t in request.tools],
        "rollout": request.rollout,
    }
    return hashlib.sha256(_KEYS.encode(body).encode()).hexdigest()[:32]


_KEYS = json.JSONEncoder(sort_keys=True, ensure_ascii=True, default=str, separators=(",", ":"))
