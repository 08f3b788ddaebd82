"""OpenAI's chat completion format, which both engines use: request bodies, replies, and streamed replies."""

from __future__ import annotations

import reprlib
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from dspynb.errors import ConfigurationError, MalformedReply, ModelError, Refused, shorten
from dspynb.lm.protocol import LMReply, LMRequest, Message, is_complete, with_facts, with_usage
from dspynb.lm.providers.billing import FROM_LISTS, Billing, read_bill, read_usage
from dspynb.lm.providers.error_kinds import provider_error
from dspynb.lm.providers.error_report import read_report
from dspynb.lm.providers.response_ids import short_text
from dspynb.lm.providers.responses_request import REASONING_ITEMS
from dspynb.redact import redact, redact_known

__all__ = [
    "damaged_chunk",
    "excerpt",
    "is_error_report",
    "read_content",
    "read_reasoning",
    "read_reply",
    "read_usage",
    "reported_error",
    "request_body",
    "retry_after",
]


def request_body(remote: str, request: LMRequest, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON body of a request, without its rollout.

    ``remote``: the model's name at the provider. A response format in the settings replaces that of the request, unless
    it is None. Raises ConfigurationError if both the settings and the request have tools.
    """
    messages = [_chat_message(m) if "tool_calls" in m else dict(m) for m in request.messages]
    body: dict[str, Any] = {"model": remote, "messages": messages, **settings}
    if request.tools:
        if body.get("tools") or (body.get("extra_body") or {}).get("tools"):
            raise ConfigurationError("both the settings and the request have tools: give them in one place")
        body["tools"] = [dict(t) for t in request.tools]
    if request.response_format is not None and body.get("response_format") is None:
        schema = {"name": "reply", "schema": dict(request.response_format)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _chat_message(message: Message) -> dict[str, Any]:
    """A message without the encrypted reasoning that a reply in the Responses format has in its tool calls."""
    calls = message["tool_calls"]
    if not isinstance(calls, list | tuple) or not any(REASONING_ITEMS in call for call in calls):
        return dict(message)
    return {**message, "tool_calls": [{key: call[key] for key in call if key != REASONING_ITEMS} for call in calls]}


def read_reply(body: Any, model: str, error_fields: Mapping[str, Any], billing: Billing = FROM_LISTS) -> LMReply:
    """Read the reply in a response body, with its price.

    ``error_fields``: arguments of errors, such as ``model`` and ``status``. ``billing``: what decides the price beside
    the usage. Raises Refused for a refusal, and MalformedReply for a body that is not in OpenAI's format. An incomplete
    reply is returned: ``check_reply`` raises for it.
    """
    raw_choices = _field(body, "choices")
    if not isinstance(raw_choices, list | tuple) or not raw_choices:
        raise _error_without_choices(body, model, error_fields, billing)
    usage, price_source = read_bill(body.get("usage"), model, billing, body.get("service_tier"))
    choices = []
    for raw_choice in raw_choices:
        choice = _choice(raw_choice)
        if choice is None:
            break
        choices.append(choice)
    if len(choices) < len(raw_choices) or body.get("error"):
        raise with_usage(MalformedReply(f"the reply is damaged: {excerpt(body, 200)!r}", **error_fields), usage)
    first = _first_answer(choices)
    answers = [choice for choice in choices if choice is first or choice.is_answer]
    reasoning = tuple([choice.reasoning or None for choice in answers])
    reply = LMReply(
        first.text,
        first.calls,
        usage,
        body,
        finish=first.finish,
        reasoning=first.reasoning or None,
        logprobs=first.logprobs,
        completions=tuple([choice.text for choice in answers]),
        request_id=error_fields.get("request_id"),
        response_id=short_text(body.get("id")),
        response_model=short_text(body.get("model")),
        price_source=price_source,
        completion_reasoning=reasoning if len(answers) > 1 and any(reasoning) else (),
    )
    if first.refusal:
        problem = f"the model refused to answer: {excerpt(first.refusal, 400)!r}"
        error = Refused(problem, **error_fields, advice=Refused.remedy)
        error.text = redact_known(first.refusal)
        raise with_facts(error, reply)
    if not first.text and not first.calls and is_complete(reply):
        raise with_facts(MalformedReply("the reply is empty", **error_fields), reply)
    return reply


def _error_without_choices(body: Any, model: str, error_fields: Mapping[str, Any], billing: Billing) -> ModelError:
    """The error for a body without choices, with the usage that it reports, since it is billed."""
    if is_error_report(body):  # OpenRouter reports errors of its providers with the status 200
        error = reported_error(body, error_fields)
    else:
        problem = f"the reply has no choices: {excerpt(body, 200)!r}"
        error = MalformedReply(problem, **error_fields, advice=MalformedReply.remedy)
    usage = _field(body, "usage")
    if isinstance(usage, Mapping):
        return with_usage(error, read_usage(usage, model, billing))
    return error


def _field(value: object, name: str) -> Any:
    """A field of a value from a server; None if the value is no JSON object or lacks the field."""
    return value.get(name) if isinstance(value, Mapping) else None


class _Choice(NamedTuple):
    text: str
    calls: tuple[Mapping[str, Any], ...]
    reasoning: str
    refusal: str
    finish: str | None
    logprobs: Any

    @property
    def is_answer(self) -> bool:
        """Whether the model wrote the choice to its end, and it has content."""
        if self.refusal or not (self.text or self.calls):
            return False
        return is_complete(LMReply("", finish=self.finish))


def _first_answer(choices: list[_Choice]) -> _Choice:
    """The first choice that is an answer. Without one it is the first choice, whose error is raised."""
    if len(choices) == 1:
        return choices[0]
    for choice in choices:
        if choice.is_answer:
            return choice
    return choices[0]


def _choice(choice: Any) -> _Choice | None:
    """One choice of a body; None if it is not in OpenAI's format."""
    message = _field(choice, "message")
    if not isinstance(message, Mapping) or choice.get("error"):  # a gateway reports an error of its provider there
        return None
    finish = choice.get("finish_reason")
    refusal = message.get("refusal")
    if not isinstance(finish, str | None) or not isinstance(refusal, str | None):
        return None
    content = read_content(message.get("content"))
    calls = _tool_calls(message.get("tool_calls"))
    if content is None or calls is None:
        return None
    if content.has_unknown and not (content.text or content.refusal or calls):
        return None
    reasoning = read_reasoning(message) or content.reasoning
    return _Choice(content.text, calls, reasoning, refusal or content.refusal, finish, choice.get("logprobs"))


class Content(NamedTuple):
    """The texts in the content of a message. ``has_unknown``: whether parts of unknown types were left out."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    has_unknown: bool = False


_TEXT_TYPES = ("text", "output_text", "input_text")
_REASONING_TYPES = ("thinking", "reasoning", "reasoning_text", "summary_text")


def read_content(content: object) -> Content | None:
    """Read the content of a message: a text, None, or a list of parts. Returns None for anything else.

    Parts of unknown types, such as the references of Mistral, are left out.
    """
    if content is None or isinstance(content, str):
        return Content(content or "")
    if not isinstance(content, list | tuple):
        return None
    texts: list[str] = []
    reasoning: list[str] = []
    refusals: list[str] = []
    has_unknown = False
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, Mapping):
            return None
        kind = part.get("type", "text")
        if kind == "redacted_thinking":
            continue
        if kind in _TEXT_TYPES:
            target = texts
            value = part.get("text")
        elif kind == "refusal":
            target = refusals
            value = part.get("refusal")
        elif kind in _REASONING_TYPES:
            target = reasoning
            value = _reasoning_text(part)
        else:
            has_unknown = True
            continue
        if not isinstance(value, str):
            return None
        target.append(value)
    return Content("".join(texts), "".join(reasoning), "".join(refusals), has_unknown)


def _reasoning_text(part: Mapping[str, Any]) -> str | None:
    """The text of a reasoning part; None if it is in no known form."""
    value: Any = ""
    for name in ("thinking", "text", "reasoning", "summary"):
        if part.get(name):
            value = part[name]
            break
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple):
        return None
    texts = []
    for item in value:  # Mistral sends a list of parts
        text = item.get("text") if isinstance(item, Mapping) else item
        if not isinstance(text, str):
            return None
        texts.append(text)
    return "".join(texts)


_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks")
"""The fields of a message that hold the reasoning. Several of them hold the same text, so the first one counts.

DeepSeek, vLLM, SGLang and litellm; OpenRouter, Groq and newer vLLM; Ollama; OpenRouter's parts; and litellm's parts of
Anthropic.
"""


def read_reasoning(message: Mapping[str, Any]) -> str:
    """The reasoning in a message's own field beside the content; empty if it is in no known form."""
    for name in _REASONING_FIELDS:
        value = message.get(name)
        if value:
            text = _reasoning_parts(value)
            if text:
                return text
    return ""


def _reasoning_parts(value: Any) -> str:
    """The text of a reasoning field: a text, a part, or a list of them. Parts without a text, such as encrypted ones,
    are left out."""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list | tuple) else [value]
    texts = []
    for part in parts:
        text = _reasoning_text(part) if isinstance(part, Mapping) else part
        if isinstance(text, str):
            texts.append(text)
    return "".join(texts)


def _tool_calls(calls: object) -> tuple[Mapping[str, Any], ...] | None:
    if calls is None:
        return ()
    if not isinstance(calls, list | tuple) or not all(map(_is_call, calls)):
        return None
    return tuple(calls)


def _is_call(call: Any) -> bool:
    function = _field(call, "function")
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return False
    if not isinstance(function.get("arguments"), str | Mapping | None):
        return False
    return isinstance(call.get("id"), str | None)


_short = reprlib.Repr()
_short.maxdict = _short.maxlist = 20
_short.maxstring = 4_000  # longer than any key
_MOST_REDACTED = 2**14
"""Maximum number of characters that are redacted for an excerpt."""


def excerpt(value: object, limit: int) -> str:
    """A value from a server for an error message: on one line, cut to about ``limit`` characters, without secrets.

    Secrets are redacted before the text is cut, since a part of a key would not be recognized. For the same reason, an
    excerpt of a text that is too long to be redacted completely leaves out the end of the redacted part.
    """
    text = value if isinstance(value, str) else _short.repr(value)
    if len(text) <= _MOST_REDACTED:
        return shorten(redact(text), limit)
    words = " ".join(redact(text[:_MOST_REDACTED]).split())
    length = min(limit, max(len(words) - limit, 0))
    return f"{words[:length].rstrip()} … [{len(text)} characters in all]"


def is_error_report(body: object) -> bool:
    """Whether a body, or a chunk of a stream, is an error report of a provider in one of their forms."""
    if not isinstance(body, Mapping):
        return False
    if body.get("error") or "error" in (body.get("object"), body.get("type")):
        return True
    return "choices" not in body and any(body.get(name) for name in ("message", "detail", "Message"))


def reported_error(body: object, error_fields: Mapping[str, Any]) -> ModelError:
    """The error that a provider reports within a stream, or in a body that is no error response."""
    report = read_report(None, body)
    return provider_error(report, excerpt(report.message or body, 400), **error_fields)


def damaged_chunk(chunk: object, error_fields: Mapping[str, Any]) -> MalformedReply:
    """The error for a chunk of a stream that is not in OpenAI's format."""
    return MalformedReply(f"a piece of the stream is damaged: {excerpt(chunk, 200)!r}", **error_fields)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from the headers ``retry-after-ms`` and ``retry-after``: a number, or the time of the next try
    as in HTTP. None without them, or if they are damaged; infinite for a number that is too large."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name) or ""
        try:
            seconds = float(value) * unit
        except ValueError:
            continue
        if seconds >= 0:  # not for NaN
            return seconds
    return _seconds_until(headers.get("retry-after") or "", headers.get("date") or "")


def _seconds_until(date: str, server_time: str) -> float | None:
    """The seconds from now, by the server's clock if it is known, until an HTTP date. None if it is no date."""
    try:
        until = parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
    try:
        now = parsedate_to_datetime(server_time).timestamp()
    except (ValueError, OverflowError):
        now = time.time()
    return max(0.0, until - now)
