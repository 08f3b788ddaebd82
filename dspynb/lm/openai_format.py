"""The chat completion format of OpenAI, which both engines speak: bodies, replies, and replies in pieces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspynb.data import Usage
from dspynb.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ContentFiltered,
    ContextTooLong,
    MalformedReply,
    ModelError,
    ModelTimeout,
    RateLimited,
    ServerError,
    shorten,
)
from dspynb.lm.base import LMReply, LMRequest
from dspynb.lm.prices import cost
from dspynb.redact import redact

__all__ = ["Pieces", "kind_of", "read_reply", "request_body", "retry_after"]


def request_body(remote: str, request: LMRequest, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON body of a chat completion; the rollout is not in it. A response format in the settings replaces the
    request's. Raises ConfigurationError for tools in the settings and in the request."""
    body: dict[str, Any] = {"model": remote, "messages": [dict(m) for m in request.messages], **settings}
    if request.tools:
        if body.get("tools") or (body.get("extra_body") or {}).get("tools"):
            raise ConfigurationError("the settings have tools, and so has the request: give them in one place")
        body["tools"] = [dict(t) for t in request.tools]
    if request.response_format is not None and body.get("response_format") is None:
        schema = {"name": "reply", "schema": dict(request.response_format)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def read_reply(body: Any, model: str, facts: Mapping[str, Any]) -> LMReply:
    """The reply in a body, priced. ``facts`` are what an error should tell. Raises MalformedReply, ContentFiltered."""
    try:
        choice = body["choices"][0]
        message = choice["message"]
        text, calls = message.get("content") or "", tuple(message.get("tool_calls") or ())
        completions = tuple((c.get("message") or {}).get("content") or "" for c in body["choices"])
    except (KeyError, IndexError, TypeError, AttributeError):
        raise MalformedReply(f"the reply has no choices: {shorten(redact(str(body)), 200)!r}", **facts) from None
    if choice.get("finish_reason") == "content_filter" and not text:
        raise ContentFiltered("the content filter stopped the reply", **facts)
    if not text and not calls:
        raise MalformedReply("the reply is empty", **facts)
    return LMReply(
        text,
        calls,
        _usage(body.get("usage") or {}, model),
        body,
        finish=choice.get("finish_reason"),
        reasoning=message.get("reasoning_content") or message.get("reasoning"),
        logprobs=choice.get("logprobs"),
        completions=completions,
    )


def _usage(used: Mapping[str, Any], model: str) -> Usage:
    details, written = used.get("prompt_tokens_details") or {}, used.get("completion_tokens_details") or {}
    prompt, completion = used.get("prompt_tokens") or 0, used.get("completion_tokens") or 0
    cached = details.get("cached_tokens") or 0
    usd = cost(model, prompt, completion, cached)
    return Usage(1, prompt, completion, cached, written.get("reasoning_tokens") or 0, usd)


def kind_of(status: int, code: str, message: str) -> type[ModelError]:
    """The error that a refusal is: from its HTTP status, the provider's code and its message in lower case."""
    if status in (401, 403):
        return AuthenticationError
    if status == 413 or code == "context_length_exceeded" or "context length" in message or "context size" in message:
        return ContextTooLong
    if "content_filter" in code or "content_policy" in code:
        return ContentFiltered
    if status == 429:
        # A quota that is used up does not come back by waiting.
        return AuthenticationError if code == "insufficient_quota" else RateLimited
    if status in (408, 504):
        return ModelTimeout
    return ServerError if status >= 500 else BadRequestError


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the provider asked to wait, or None."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    return None


class Pieces:
    """A reply that arrives in pieces: each ``add`` gives the text that was new, ``body`` all of it as one reply."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._finish: str | None = None
        self._usage: Any = None

    def add(self, piece: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
        """Take one piece. Raises ServerError when the provider reports a failure instead."""
        if problem := piece.get("error"):
            said = problem.get("message", problem) if isinstance(problem, Mapping) else problem
            raise ServerError(shorten(redact(str(said)), 400), **facts)
        self._usage = piece.get("usage") or self._usage
        choice = next((c for c in piece.get("choices") or () if not c.get("index")), None)
        if choice is None:
            return ""
        self._finish = choice.get("finish_reason") or self._finish
        delta = choice.get("delta") or {}
        self._reasoning.append(delta.get("reasoning_content") or delta.get("reasoning") or "")
        for call in delta.get("tool_calls") or ():
            self._add_call(call)
        text = delta.get("content") or ""
        self._texts.append(text)
        return text

    def _add_call(self, part: Mapping[str, Any]) -> None:
        call = self._calls.setdefault(part.get("index") or 0, {"type": "function", "function": {"arguments": ""}})
        call.update({name: part[name] for name in ("id", "type") if part.get(name)})
        function = part.get("function") or {}
        if function.get("name"):
            call["function"]["name"] = function["name"]
        call["function"]["arguments"] += function.get("arguments") or ""

    def body(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The whole reply. Raises MalformedReply when it was cut."""
        if self._finish is None:
            raise MalformedReply("the reply ended before it was complete", **facts)
        message = {
            "content": "".join(self._texts),
            "tool_calls": [self._calls[i] for i in sorted(self._calls)],
            "reasoning_content": "".join(self._reasoning) or None,
        }
        return {"choices": [{"message": message, "finish_reason": self._finish}], "usage": self._usage}
