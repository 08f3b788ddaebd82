"""The base class of fake servers that speak OpenAI's Responses format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from aiohttp import web
from openai.types.responses import Response, ResponseStreamEvent, response_create_params
from pydantic import TypeAdapter

from tests.doors.answers import Answer, Prompt
from tests.doors.fake_server import FakeServer
from tests.doors.openai_server import openai_error, without_stream
from tests.doors.validation import check_event, check_reply, request_check

__all__ = ["ResponsesServer"]

_PIECE = re.compile(r"\S*\s*")
"""A reply is streamed word by word."""
_SAME_NAMES = ("temperature", "top_p", "top_logprobs", "parallel_tool_calls", "metadata", "service_tier", "user")
_PROMPT_TOKENS = 120
_THINKING_TOKENS = 14
_EVENT = TypeAdapter(ResponseStreamEvent)


class ResponsesServer(FakeServer):
    """A server of one reasoning model in the Responses format."""

    paths: ClassVar[Sequence[str]] = ("/v1/responses",)
    end_of_stream: ClassVar[bytes] = b""
    request_id_header = "x-request-id"
    model: ClassVar[str]
    """The name that the server knows. Any other name is not found."""

    def check_request(self, raw: bytes) -> None:
        # The type without a condition on `stream` gives one clear error, where a union would give two.
        request_check(response_create_params.ResponseCreateParamsBase)(without_stream(raw))

    def invalid(self, problem: str) -> web.Response:
        return openai_error(400, f"Invalid request: {problem}")

    def refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        if body["model"] != self.model:
            message = f"The requested model '{body['model']}' does not exist."
            return openai_error(400, message, param="model", code="model_not_found")
        if (body.get("max_output_tokens") or 16) < 16:
            message = (
                "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got "
                f"{body['max_output_tokens']} instead."
            )
            return openai_error(400, message, param="max_output_tokens", code="integer_below_min_value")
        return self._refused_items(body)

    def _refused_items(self, body: Mapping[str, Any]) -> web.Response | None:
        """OpenAI's rules for the items of a conversation: each call has its output, and reasoning precedes its call."""
        items = body["input"]
        outputs = {item["call_id"] for item in items if item.get("type") == "function_call_output"}
        for item in items:
            if item.get("type") == "function_call" and item["call_id"] not in outputs:
                return openai_error(400, f"No tool output found for function call {item['call_id']}.", param="input")
        for item, following in zip(items, [*items[1:], {}], strict=True):
            if item.get("type") != "reasoning":
                continue
            if not item.get("encrypted_content"):
                message = (
                    f"Item with id '{item['id']}' not found. Items are not persisted when `store` is set to false."
                )
                return openai_error(404, message, param="input")
            if following.get("type") not in ("reasoning", "function_call", "message") and "role" not in following:
                message = f"Item '{item['id']}' of type 'reasoning' was provided without its required following item."
                return openai_error(400, message, param="input")
        return None

    def prompt(self, body: Mapping[str, Any]) -> Prompt:
        messages = []
        for item in body["input"]:
            if item.get("type") == "function_call_output":
                messages.append(("tool", item["output"]))
            elif "role" in item:
                messages.append((item["role"], _text(item["content"])))
        text_format = (body.get("text") or {}).get("format") or {}
        tools = [tool["name"] for tool in body.get("tools") or ()]
        return Prompt(messages, tools, text_format.get("schema"))

    def token_limit(self, body: Mapping[str, Any]) -> int | None:
        return body.get("max_output_tokens")

    def settings(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        settings = {name: body[name] for name in _SAME_NAMES if name in body}
        if "max_output_tokens" in body:
            settings["max_tokens"] = body["max_output_tokens"]
        if "reasoning" in body:
            settings["reasoning_effort"] = body["reasoning"]["effort"]
        return settings

    def reply(self, body: Mapping[str, Any], reply: Answer) -> Mapping[str, Any]:
        return self.response(body, reply, _status(reply), list(self.items(body, reply)))

    def response(self, body: Mapping[str, Any], reply: Answer, status: str, output: Sequence[Any]) -> dict[str, Any]:
        """A response with this status and output."""
        is_done = status != "in_progress"
        details = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1_764_500_000.0,
            "status": status,
            "error": None,
            "incomplete_details": details,
            "instructions": body.get("instructions"),
            "max_output_tokens": body.get("max_output_tokens"),
            "metadata": body.get("metadata") or {},
            "model": self.model,
            "output": output,
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": (body.get("reasoning") or {}).get("effort", "medium"), "summary": None},
            "service_tier": "default",
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": self.usage(reply) if is_done else None,
            "user": None,
        }

    def items(self, body: Mapping[str, Any], reply: Answer) -> Iterator[dict[str, Any]]:
        """The items of the output: reasoning, text, tool calls."""
        number = len(body["input"])
        reasoning = {
            "type": "reasoning",
            "id": f"rs_{number}",
            "summary": [{"type": "summary_text", "text": reply.thinking}] if self.has_summary(body) else [],
        }
        if "reasoning.encrypted_content" in (body.get("include") or ()):
            reasoning["encrypted_content"] = f"gAAAA-{number}"
        yield reasoning
        if reply.text:
            part = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
            message = {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": "completed"}
            yield {**message, "content": [part]}
        for index, call in enumerate(reply.tool_calls):
            yield {
                "type": "function_call",
                "id": f"fc_{number}_{index}",
                "call_id": f"call_{number}_{index}",
                "name": call.name,
                "arguments": json.dumps(call.arguments),
                "status": "completed",
            }

    def has_summary(self, body: Mapping[str, Any]) -> bool:
        """Whether a response has a summary of its reasoning."""
        return True

    def usage(self, reply: Answer) -> dict[str, Any]:
        """The tokens of a request."""
        output = len(reply.text.split()) + 8 + _THINKING_TOKENS
        return {
            "input_tokens": _PROMPT_TOKENS,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": _THINKING_TOKENS},
            "total_tokens": _PROMPT_TOKENS + output,
        }

    def chunks(self, body: Mapping[str, Any], reply: Answer) -> Sequence[Mapping[str, Any]]:
        items = list(self.items(body, reply))
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": self.response(body, reply, "in_progress", [])},
            {"type": "response.in_progress", "response": self.response(body, reply, "in_progress", [])},
        ]
        for index, item in enumerate(items):
            place = {"item_id": item["id"], "output_index": index}
            events.append(_item_event("added", index, _empty(item)))
            events += ({**event, **place} for event in _EVENTS_OF[item["type"]](item))
            events.append(_item_event("done", index, item))
        whole = self.response(body, reply, _status(reply), items)
        events.append({"type": f"response.{_status(reply)}", "response": whole})
        return [{**event, "sequence_number": number} for number, event in enumerate(events)]

    def event(self, chunk: Mapping[str, Any]) -> bytes:
        return f"event: {chunk['type']}\n".encode() + super().event(chunk)

    def check_reply(self, body: Mapping[str, Any]) -> None:
        check_reply(Response, body)

    def check_chunk(self, chunk: Mapping[str, Any]) -> None:
        check_event(_EVENT, chunk)


def _status(reply: Answer) -> str:
    """The status of a response at its end."""
    return "incomplete" if reply.is_cut else "completed"


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _item_event(kind: str, index: int, item: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": f"response.output_item.{kind}", "output_index": index, "item": item}


def _empty(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item as it is when it is added to the output."""
    empty = {"reasoning": {"summary": []}, "message": {"content": []}, "function_call": {"arguments": ""}}
    fields = {**item, **empty[item["type"]]}
    if "status" in fields:
        fields["status"] = "in_progress"
    return fields


def _of_reasoning(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for number, part in enumerate(item["summary"]):
        place = {"summary_index": number}
        whole = {"type": "summary_text", "text": part["text"]}
        yield {"type": "response.reasoning_summary_part.added", "part": {**whole, "text": ""}, **place}
        for piece in filter(None, _PIECE.findall(part["text"])):
            yield {"type": "response.reasoning_summary_text.delta", "delta": piece, **place}
        yield {"type": "response.reasoning_summary_text.done", "text": part["text"], **place}
        yield {"type": "response.reasoning_summary_part.done", "part": whole, **place}


def _of_message(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for number, part in enumerate(item["content"]):
        place = {"content_index": number}
        yield {"type": "response.content_part.added", "part": {**part, "text": ""}, **place}
        for piece in filter(None, _PIECE.findall(part["text"])):
            yield {"type": "response.output_text.delta", "delta": piece, "logprobs": [], **place}
        yield {"type": "response.output_text.done", "text": part["text"], "logprobs": [], **place}
        yield {"type": "response.content_part.done", "part": part, **place}


def _of_call(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for piece in (item["arguments"][:4], item["arguments"][4:]):
        yield {"type": "response.function_call_arguments.delta", "delta": piece}
    yield {
        "type": "response.function_call_arguments.done",
        "arguments": item["arguments"],
        "name": item["name"],
    }


_EVENTS_OF = {"reasoning": _of_reasoning, "message": _of_message, "function_call": _of_call}
