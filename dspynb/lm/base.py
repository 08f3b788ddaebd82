"""What every language model is: anything with ``async complete(request) -> reply``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from dspynb.data import Usage
from dspynb.errors import ConfigurationError, ScopeError
from dspynb.media import has_media
from dspynb.records import quickly_made
from dspynb.redact import redact_values
from dspynb.scope import current_scope

__all__ = [
    "Heard",
    "LMProtocol",
    "LMReply",
    "LMRequest",
    "Message",
    "refuse_in_a_replay",
    "refuse_media",
    "request_key",
    "without_secrets",
]

Message = Mapping[str, Any]
Heard = Callable[[str], None]
"""What is told each new piece of a reply's text while it arrives."""


@quickly_made
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


@quickly_made
@dataclass(frozen=True, slots=True)
class LMReply:
    """A model's reply. ``cached`` tells that it was not paid for now; ``raw`` is the provider's own answer, if any;
    ``tool_calls`` what it calls, in OpenAI's form; ``reasoning`` the text of its thinking, where it is given;
    ``completions`` all texts of a request with ``n`` > 1; ``logprobs`` the log probabilities of its tokens, as the
    provider gives them, where they were asked for.

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
    if "replaying" in current_scope().settings:
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
