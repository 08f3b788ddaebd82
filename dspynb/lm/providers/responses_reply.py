"""OpenAI's Responses format: replies, and their usage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspynb.errors import MalformedReply, ModelError, Refused
from dspynb.lm.protocol import LMReply, is_complete, with_facts, with_usage
from dspynb.lm.providers.billing import FROM_LISTS, Bill, Billing, read_bill
from dspynb.lm.providers.openai_format import excerpt, is_error_report, reported_error
from dspynb.lm.providers.response_ids import short_text
from dspynb.lm.providers.responses_request import REASONING_ITEMS
from dspynb.redact import redact_known

__all__ = ["read_response"]

_FINISH_OF_REASON = {"max_output_tokens": "length", "content_filter": "content_filter"}
_UNFINISHED = ("in_progress", "queued", "cancelled", "incomplete")


def read_response(body: Any, model: str, error_fields: Mapping[str, Any], billing: Billing = FROM_LISTS) -> LMReply:
    """Read the reply in a response body, with its price.

    ``error_fields``: arguments of errors, such as ``model`` and ``status``. ``billing``: what decides the price beside
    the usage. Raises Refused for a refusal, the error that the provider reports for a response that failed, and
    MalformedReply for a body that is not in the Responses format. An incomplete reply is returned: ``check_reply``
    raises for it.
    """
    output = body.get("output") if isinstance(body, Mapping) else None
    if isinstance(body, Mapping) and (body.get("error") or body.get("status") == "failed"):
        raise _failed_response(body, model, error_fields, billing)
    if not isinstance(output, list | tuple):
        if is_error_report(body):
            raise reported_error(body, error_fields)
        problem = f"the reply has no output: {excerpt(body, 200)!r}"
        raise MalformedReply(problem, **error_fields, advice=MalformedReply.remedy)
    usage, price_source = _bill(body, model, billing)
    items = _Items()
    if not all(map(items.add, output)):
        raise with_usage(MalformedReply(f"the reply is damaged: {excerpt(body, 200)!r}", **error_fields), usage)
    reply = LMReply(
        "".join(items.texts or items.comments),
        tuple(items.calls),
        usage,
        body,
        finish=_finish(body, has_calls=bool(items.calls)),
        reasoning="\n\n".join(items.reasoning) or None,
        logprobs={"content": items.logprobs} if items.logprobs else None,
        request_id=error_fields.get("request_id"),
        response_id=short_text(body.get("id")),
        response_model=short_text(body.get("model")),
        price_source=price_source,
    )
    refusal = "".join(items.refusals)
    if refusal:
        problem = f"the model refused to answer: {excerpt(refusal, 400)!r}"
        error = Refused(problem, **error_fields, advice=Refused.remedy)
        error.text = redact_known(refusal)
        raise with_facts(error, reply)
    if not reply.text and not items.calls and is_complete(reply):
        raise with_facts(MalformedReply("the reply is empty", **error_fields), reply)
    return reply


def _failed_response(
    body: Mapping[str, Any], model: str, error_fields: Mapping[str, Any], billing: Billing
) -> ModelError:
    """The error of a response whose status is ``failed``, with the usage that the provider reports."""
    details = body.get("error")
    if not isinstance(details, Mapping | str) or not details:
        details = {"message": "the response failed, and the provider gives no reason"}
    fields = {name: value for name, value in error_fields.items() if name != "status"}
    error = reported_error({"error": details}, fields)
    if isinstance(body.get("usage"), Mapping):
        return with_usage(error, _bill(body, model, billing)[0])
    return error


def _bill(body: Mapping[str, Any], model: str, billing: Billing) -> Bill:
    usage = body.get("usage")
    if not isinstance(usage, Mapping):
        return read_bill(None, model, billing)
    in_chat_format = {name: value for name, value in usage.items() if name not in _FIELDS_OF_RESPONSES}
    in_chat_format |= {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
        "prompt_tokens_details": usage.get("input_tokens_details"),
        "completion_tokens_details": usage.get("output_tokens_details"),
    }
    return read_bill(in_chat_format, model, billing, body.get("service_tier"))


_FIELDS_OF_RESPONSES = frozenset({"input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details"})


def _finish(body: Mapping[str, Any], *, has_calls: bool) -> str:
    """The finish reason in the words of chat completions."""
    status = body.get("status")
    if status == "incomplete":
        details = body.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, Mapping) else None
        return _FINISH_OF_REASON.get(str(reason), "incomplete")
    if status in _UNFINISHED:
        return "incomplete"
    return "tool_calls" if has_calls else "stop"


class _Items:
    """What the items of an output contain. Items of other types, such as calls of the provider's own tools, are left
    out; the reply's ``raw`` has them."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.comments: list[str] = []  # texts that the model marks as no part of its answer
        self.refusals: list[str] = []
        self.reasoning: list[str] = []
        self.logprobs: list[Any] = []
        self.calls: list[Mapping[str, Any]] = []
        self._encrypted: list[Mapping[str, Any]] = []  # reasoning that belongs to the next tool call

    def add(self, item: Any) -> bool:
        """Add an item. Returns False if it is not in the Responses format."""
        if not isinstance(item, Mapping):
            return False
        kind = item.get("type")
        if kind == "message":
            return self._add_message(item)
        if kind == "reasoning":
            return self._add_reasoning(item)
        if kind == "function_call":
            return self._add_call(item)
        return True

    def _add_message(self, item: Mapping[str, Any]) -> bool:
        parts = item.get("content")
        if isinstance(parts, str):
            parts = [{"type": "output_text", "text": parts}]
        if not isinstance(parts, list | tuple):
            return False
        texts = self.comments if item.get("phase") == "commentary" else self.texts
        for part in parts:
            if not isinstance(part, Mapping):
                return False
            kind = part.get("type")
            if kind not in _TEXT_OF_PART:
                continue
            text = part.get(_TEXT_OF_PART[kind])
            if not isinstance(text, str):
                return False
            target = self.refusals if kind == "refusal" else texts
            target.append(text)
            logprobs = part.get("logprobs")
            if isinstance(logprobs, list | tuple):
                self.logprobs.extend(logprobs)
        return True

    def _add_reasoning(self, item: Mapping[str, Any]) -> bool:
        for name in ("content", "summary"):  # the whole reasoning, or a summary of it
            parts = item.get(name) or ()
            if not isinstance(parts, list | tuple) or not all(isinstance(part, Mapping) for part in parts):
                return False
            texts = [part["text"] for part in parts if part.get("text") and isinstance(part["text"], str)]
            if texts:
                self.reasoning += texts
                break
        if isinstance(item.get("encrypted_content"), str) and isinstance(item.get("id"), str):
            fields = ("id", "summary", "encrypted_content")
            self._encrypted.append({"type": "reasoning", "summary": [], **{name: item.get(name) for name in fields}})
        return True

    def _add_call(self, item: Mapping[str, Any]) -> bool:
        name = item.get("name")
        arguments = item.get("arguments")
        identity = item.get("call_id") or item.get("id")
        if not isinstance(name, str) or not isinstance(arguments, str | None) or not isinstance(identity, str | None):
            return False
        call: dict[str, Any] = {
            "id": identity,
            "type": "function",
            "function": {"name": name, "arguments": arguments or ""},
        }
        if self._encrypted:
            call[REASONING_ITEMS] = self._encrypted
            self._encrypted = []
        self.calls.append(call)
        return True


_TEXT_OF_PART = {"output_text": "text", "text": "text", "refusal": "refusal"}
"""The types of the parts of a message, with the field of the text."""
