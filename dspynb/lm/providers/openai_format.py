"""The chat completion format of OpenAI, which both engines speak: bodies, replies, and replies in pieces."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from dspynb.data import Usage, token_count
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
    Refused,
    ServerError,
    shorten,
)
from dspynb.lm.protocol import LMReply, LMRequest, is_complete, with_usage
from dspynb.lm.providers.prices import cost
from dspynb.redact import redact, redact_known

__all__ = ["Pieces", "damaged", "excerpt", "kind_of", "read_reply", "read_usage", "request_body", "retry_after"]


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
    """The reply in a body, priced. ``facts`` are what an error should tell.

    Raises Refused where the model says so, and MalformedReply for a body of any other shape than OpenAI's. Whether the
    reply is whole is looked at by ``check_reply``.
    """
    listed = body.get("choices") if isinstance(body, Mapping) else None
    if not isinstance(listed, list | tuple) or not listed:
        problem = f"the reply has no choices: {excerpt(body, 200)!r}"
        raise MalformedReply(problem, **facts, advice=MalformedReply.remedy)
    usage = read_usage(body.get("usage"), model)
    choices = [_choice(choice) for choice in listed]
    if None in choices or body.get("error"):
        raise with_usage(MalformedReply(f"the reply is damaged: {excerpt(body, 200)!r}", **facts), usage)
    first, *_ = whole = [choice for choice in choices if choice is not None]
    if first.refusal:
        problem = f"the model refused to answer: {excerpt(first.refusal, 400)!r}"
        error = Refused(problem, **facts, advice=Refused.remedy)
        error.text = redact_known(first.refusal)
        raise with_usage(error, usage)
    reply = LMReply(
        first.text,
        first.calls,
        usage,
        body,
        finish=first.finish,
        reasoning=first.reasoning or None,
        logprobs=first.logprobs,
        completions=tuple(choice.text for choice in whole if choice is first or choice.is_whole),
    )
    if not first.text and not first.calls and is_complete(reply):
        raise with_usage(MalformedReply("the reply is empty", **facts), usage)
    return reply


class _Choice(NamedTuple):
    text: str
    calls: tuple[Mapping[str, Any], ...]
    reasoning: str
    refusal: str
    finish: str | None
    logprobs: Any

    @property
    def is_whole(self) -> bool:
        return not self.refusal and is_complete(LMReply("", finish=self.finish))


def _choice(choice: Any) -> _Choice | None:
    """One choice of a body; None where it has another shape than OpenAI's."""
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping) or choice.get("error"):  # a provider behind the server failed on the way
        return None
    finish, refusal = choice.get("finish_reason"), message.get("refusal")
    content, calls = read_content(message.get("content")), _tool_calls(message.get("tool_calls"))
    if content is None or calls is None or not isinstance(finish, str | None) or not isinstance(refusal, str | None):
        return None
    reasoning = read_reasoning(message) or content.reasoning
    return _Choice(content.text, calls, reasoning, refusal or content.refusal, finish, choice.get("logprobs"))


class Content(NamedTuple):
    """What the content of a message says."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""


_TEXTS = ("text", "output_text", "input_text")
_THOUGHTS = ("thinking", "reasoning", "reasoning_text", "summary_text")


def read_content(content: Any) -> Content | None:
    """A message's content, which is text, nothing, or a list of parts; None for anything else."""
    if content is None or isinstance(content, str):
        return Content(content or "")
    if not isinstance(content, list | tuple):
        return None
    texts, thoughts, refusals = list[str](), list[str](), list[str]()
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type", "text") if isinstance(part, Mapping) else None
        if kind == "redacted_thinking":
            continue
        if kind in _TEXTS:
            into, value = texts, part.get("text")
        elif kind == "refusal":
            into, value = refusals, part.get("refusal")
        elif kind in _THOUGHTS:
            into, value = thoughts, _thought(part)
        else:
            return None
        if not isinstance(value, str):
            return None
        into.append(value)
    return Content("".join(texts), "".join(thoughts), "".join(refusals))


def _thought(part: Mapping[str, Any]) -> str | None:
    value = next((part[name] for name in ("thinking", "text", "reasoning", "summary") if part.get(name)), "")
    if not isinstance(value, list | tuple):
        return value if isinstance(value, str) else None
    texts: list[Any] = [inner.get("text") if isinstance(inner, Mapping) else inner for inner in value]  # Mistral's
    return "".join(texts) if all(isinstance(text, str) for text in texts) else None


def read_reasoning(message: Mapping[str, Any]) -> str:
    """The thinking that a message tells beside its content; nothing where it is in no known form."""
    inner = read_content(message.get("reasoning_content") or message.get("reasoning"))
    return "" if inner is None else inner.text + inner.reasoning


def _tool_calls(calls: Any) -> tuple[Mapping[str, Any], ...] | None:
    if calls is None:
        return ()
    if not isinstance(calls, list | tuple) or not all(map(_is_call, calls)):
        return None
    return tuple(calls)


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return False
    return isinstance(function.get("arguments"), str | Mapping | None) and isinstance(call.get("id"), str | None)


def read_usage(used: Any, model: str) -> Usage:
    """The usage that a body reports, priced; what it does not report as a number is unknown."""
    if not isinstance(used, Mapping):
        return Usage(1, None, None, None, None, None)
    prompt, completion = token_count(used.get("prompt_tokens")), token_count(used.get("completion_tokens"))
    cached = _detail(used, "prompt_tokens_details", "cached_tokens")
    thought = _detail(used, "completion_tokens_details", "reasoning_tokens")
    usd = None
    if prompt is not None and completion is not None and cached is not None:
        usd = cost(model, prompt, completion, min(cached, prompt))
    return Usage(1, prompt, completion, cached, thought, usd)


def _detail(used: Mapping[str, Any], of: str, name: str) -> int | None:
    """A number among the details of a usage: 0 where there are none, None where it is no number."""
    details = used.get(of)
    if details is None:
        return 0
    if not isinstance(details, Mapping):
        return None
    return 0 if details.get(name) is None else token_count(details[name])


_short = reprlib.Repr()
_short.maxdict = _short.maxlist = 20
_short.maxstring = 4_000  # more than any key is long
_LOOKED_AT = 2**14
"""Characters of what a server sent that are cleaned and looked at for what an error shows of it."""


def excerpt(value: Any, limit: int) -> str:
    """What a server sent, as an error shows it: on one line, cut to about ``limit`` characters, without secrets.

    It is cleaned before it is cut, since half a key would no longer be known as one; of a text that is too long to be
    cleaned whole, the last word is left out for the same reason.
    """
    text = value if isinstance(value, str) else _short.repr(value)
    if len(text) <= _LOOKED_AT:
        return shorten(redact(text), limit)
    words = " ".join(redact(text[:_LOOKED_AT]).split())
    return f"{words[: min(limit, max(len(words) - limit, 0))].rstrip()} … [{len(text)} characters in all]"


def damaged(piece: Any, facts: Mapping[str, Any]) -> MalformedReply:
    """The error of a piece of a stream that is no piece of a reply."""
    return MalformedReply(f"a piece of the stream is damaged: {excerpt(piece, 200)!r}", **facts)


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


def _is_choice(choice: Any) -> bool:
    return isinstance(choice, Mapping) and isinstance(choice.get("index"), int | float | None)


class Pieces:
    """A reply that arrives in pieces: each ``add`` gives the text that was new, ``body`` all of it as one reply."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._arguments: dict[int, list[str]] = {}
        self._finish: str | None = None
        self._usage: Any = None

    def add(self, piece: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
        """Take one piece. Raises ServerError when the provider reports a failure instead, MalformedReply for a piece
        of another shape than OpenAI's."""
        problem = piece.get("error") or (piece if piece.get("object") == "error" else None)
        if problem:
            said = problem.get("message", problem) if isinstance(problem, Mapping) else problem
            raise ServerError(excerpt(said, 400), **facts)
        self._usage = piece.get("usage") or self._usage
        choices = piece.get("choices")
        if not isinstance(choices, list | tuple | None) or not all(map(_is_choice, choices or ())):
            raise damaged(piece, facts)
        texts = [self._take(choice) for choice in choices or () if not choice.get("index")]  # of several the first
        if None in texts:
            raise damaged(piece, facts)
        return "".join(text for text in texts if text)

    def _take(self, choice: Mapping[str, Any]) -> str | None:
        """The new text of a choice; None where it has another shape than OpenAI's."""
        finish, delta = choice.get("finish_reason"), choice.get("delta")
        if delta is None:
            delta = {}
            if choice.get("message") or choice.get("text"):  # of another format: the text would be lost
                return None
        if not isinstance(finish, str | None) or not isinstance(delta, Mapping):
            return None
        if self._finish is None or is_complete(LMReply("", finish=self._finish)):  # what says that it was cut stays
            self._finish = finish or self._finish
        content, refusal, calls = read_content(delta.get("content")), delta.get("refusal"), delta.get("tool_calls")
        if content is None or not isinstance(refusal, str | None) or not isinstance(calls, list | tuple | None):
            return None
        self._reasoning.append(read_reasoning(delta) or content.reasoning)
        self._refusal.append(refusal or content.refusal)
        if not all(map(self._add_call, calls or ())):
            return None
        self._texts.append(content.text)
        return content.text

    def _add_call(self, part: Any) -> bool:
        """Take a piece of a call; False where it has another shape than OpenAI's."""
        index, function = (part.get("index") or 0, part.get("function")) if isinstance(part, Mapping) else (None, None)
        function = {} if function is None else function
        if not isinstance(index, int) or not isinstance(function, Mapping):
            return False
        said = (part.get("id"), part.get("type"), function.get("name"), function.get("arguments"))
        if not all(isinstance(text, str | None) for text in said):
            return False
        call = self._calls.setdefault(index, {"type": "function", "function": {}})
        call.update({name: part[name] for name in ("id", "type") if part.get(name)})
        if function.get("name"):
            call["function"]["name"] = function["name"]
        self._arguments.setdefault(index, []).append(function.get("arguments") or "")
        return True

    def body(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The whole reply. Raises MalformedReply when it was cut."""
        if self._finish is None:
            raise MalformedReply("the reply ended before it was complete", **facts)
        for index, call in self._calls.items():
            call["function"]["arguments"] = "".join(self._arguments[index])
        message = {
            "content": "".join(self._texts),
            "tool_calls": [self._calls[i] for i in sorted(self._calls)],
            "reasoning_content": "".join(self._reasoning) or None,
            "refusal": "".join(self._refusal) or None,
        }
        return {"choices": [{"message": message, "finish_reason": self._finish}], "usage": self._usage}
