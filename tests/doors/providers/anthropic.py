"""Anthropic's Messages API, through litellm: a model that takes a temperature, and one that thinks and takes none.

The SDK has the types of the API version 2026-10-21, which has no sampling settings. litellm sends the version
2023-06-01, in which the older models still take them, and structured output under its name of the beta, which Anthropic
still takes (github.com/vercel/ai/issues/12298). The error for a temperature is that of github.com/BerriAI/litellm/
issues/26444. Each response has the header request-id (Anthropic's overview of its API), and the usage has the tokens of
the thinking (github.com/anthropics/anthropic-sdk-python/issues/1017).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from aiohttp import web
from anthropic import types
from anthropic.types.message_create_params import MessageCreateParamsBase

from tests.doors.answers import Answer, Prompt
from tests.doors.fake_server import FakeServer
from tests.doors.registry import Door, Reports, register
from tests.doors.validation import check_reply, request_check

_SAMPLING = ("temperature", "top_p", "top_k")
_PIECE = re.compile(r"\S*\s*")
_THINKING_TOKENS = 14
_BETA = "structured-outputs-2025-11-13"
_EVENTS = {
    "message_start": types.RawMessageStartEvent,
    "message_delta": types.RawMessageDeltaEvent,
    "message_stop": types.RawMessageStopEvent,
    "content_block_start": types.RawContentBlockStartEvent,
    "content_block_delta": types.RawContentBlockDeltaEvent,
    "content_block_stop": types.RawContentBlockStopEvent,
}


def anthropic_error(message: str, status: int = 400, kind: str = "invalid_request_error") -> web.Response:
    """An error response in Anthropic's form."""
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    return web.json_response(body, status=status)


class AnthropicServer(FakeServer):
    """A model of Anthropic. ``thinks``: whether it thinks without being asked to."""

    paths = ("/v1/messages",)
    end_of_stream = b""
    model: ClassVar[str]
    thinks: ClassVar[bool] = False
    request_id_header = "request-id"

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def check_request(self, raw: bytes) -> None:
        body = json.loads(raw)
        for name in ("stream", *_SAMPLING):  # `stream` is a part of two other types
            body.pop(name, None)
        request_check(MessageCreateParamsBase)(json.dumps(_with_output_config(body)).encode())

    def invalid(self, problem: str) -> web.Response:
        return anthropic_error(problem)

    def request_body(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        if request.headers.get("anthropic-version") != "2023-06-01" or "x-api-key" not in request.headers:
            self.problems.append("the header with the version of the API, or with the key, is missing")
        if "output_format" in body and _BETA not in request.headers.get("anthropic-beta", ""):
            self.problems.append(f"output_format without the beta {_BETA}")
        return _with_output_config(body)

    def refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        if body["model"] != self.model:
            return anthropic_error(f"model: {body['model']}", 404, "not_found_error")
        return None

    def prompt(self, body: Mapping[str, Any]) -> Prompt:
        messages = [("system", _text(body.get("system") or ""))]
        messages += [(message["role"], _text(message["content"])) for message in body["messages"]]
        tools = [tool["name"] for tool in body.get("tools") or ()]
        output_format = (body.get("output_config") or {}).get("format") or {}
        return Prompt(messages, tools, output_format.get("schema"))

    def reply(self, body: Mapping[str, Any], reply: Answer) -> Mapping[str, Any]:
        stop = "tool_use" if reply.tool_calls else "end_turn"
        if reply.is_cut:
            stop = "max_tokens"
        content = list(self.blocks(body, reply))
        message = {**self.message(body), "content": content, "stop_reason": stop}
        return {**message, "usage": {**message["usage"], **_output_tokens(content)}}

    def message(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A message without content."""
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 120, "output_tokens": 1, "cache_read_input_tokens": 0},
        }

    def blocks(self, body: Mapping[str, Any], reply: Answer) -> Iterator[dict[str, Any]]:
        """The blocks of a message: the thinking, the text, the tool calls."""
        if self.thinks or (body.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
            yield {"type": "thinking", "thinking": reply.thinking, "signature": "c2lnbmF0dXJl"}
        if reply.text:
            yield {"type": "text", "text": reply.text, "citations": None}
        for number, call in enumerate(reply.tool_calls):
            yield {"type": "tool_use", "id": f"toolu_{number}", "name": call.name, "input": dict(call.arguments)}

    def chunks(self, body: Mapping[str, Any], reply: Answer) -> Sequence[Mapping[str, Any]]:
        whole = self.reply(body, reply)
        events: list[dict[str, Any]] = [{"type": "message_start", "message": self.message(body)}]
        for index, block in enumerate(whole["content"]):
            events += [{**event, "index": index} for event in _block_events(block)]
        delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        events.append({"type": "message_delta", "delta": delta, "usage": _output_tokens(whole["content"])})
        return [*events, {"type": "message_stop"}]

    def event(self, chunk: Mapping[str, Any]) -> bytes:
        return f"event: {chunk['type']}\n".encode() + super().event(chunk)

    def check_reply(self, body: Mapping[str, Any]) -> None:
        check_reply(types.Message, body)

    def check_chunk(self, chunk: Mapping[str, Any]) -> None:
        check_reply(_EVENTS[chunk["type"]], chunk)


def _output_tokens(content: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The part of the usage that is known at the end of a message."""
    kinds = {block["type"] for block in content}
    thinking = _THINKING_TOKENS if kinds & {"thinking", "redacted_thinking"} else 0
    return {"output_tokens": 30 + thinking, "output_tokens_details": {"thinking_tokens": thinking}}


def _with_output_config(body: dict[str, Any]) -> dict[str, Any]:
    """The body with the format of the output under its present name."""
    if "output_format" not in body:
        return body
    body = dict(body)
    output_format = body.pop("output_format")
    return {**body, "output_config": {**body.get("output_config", {}), "format": output_format}}


def _block_events(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The events of one block of a message."""
    empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}
    yield {"type": "content_block_start", "content_block": {**block, **empty.get(block["type"], {})}}
    deltas: list[dict[str, Any]] = []
    if block["type"] == "tool_use":
        deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
    if block["type"] == "text":
        deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
    if block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _pieces(block["thinking"])]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    for delta in deltas:
        yield {"type": "content_block_delta", "delta": delta}
    yield {"type": "content_block_stop"}


def _pieces(text: str) -> list[str]:
    return [piece for piece in _PIECE.findall(text) if piece]


def _text(content: Any) -> str:
    """The text of a system prompt or of a message, with the results of tools."""
    if isinstance(content, str):
        return content
    texts = []
    for block in content:
        if block["type"] == "tool_result":
            texts.append(_text(block.get("content") or ""))
        else:
            texts.append(block.get("text") or "")
    return "\n\n".join(texts)


class HaikuServer(AnthropicServer):
    """claude-haiku-4-5: takes one sampling setting, from 0 to 1, and thinks on request."""

    model = "claude-haiku-4-5"

    def refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        if body.get("temperature") is not None and body.get("top_p") is not None:
            return anthropic_error(
                "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
            )
        if (body.get("temperature") or 0) > 1:
            return anthropic_error("temperature: range: 0..1")
        if (body.get("thinking") or {}).get("type") == "enabled":
            if body.get("temperature", 1) != 1:
                return anthropic_error(
                    "`temperature` may only be set to 1 when thinking is enabled. Please consult our documentation at "
                    "https://docs.claude.com/en/docs/build-with-claude/extended-thinking#important-considerations-when"
                    "-using-extended-thinking"
                )
            if body["thinking"]["budget_tokens"] >= body["max_tokens"]:
                return anthropic_error("`max_tokens` must be greater than `thinking.budget_tokens`.")
        return super().refusal(body)


class SonnetServer(AnthropicServer):
    """claude-sonnet-5-5: thinks, and takes no sampling settings."""

    model = "claude-sonnet-5-5"
    thinks = True

    def refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        for name in _SAMPLING:
            if body.get(name) is not None:
                return anthropic_error(f"`{name}` is deprecated for this model.")
        return super().refusal(body)


register(
    Door(
        name="Anthropic, claude-haiku-4-5",
        model="anthropic/claude-haiku-4-5",
        server=HaikuServer,
        reports=Reports(request_id="request-id", reasoning="with effort", reasoning_tokens="with effort"),
        adapted=("temperature",),
        many_adapted=("seed", "temperature", "top_p"),  # with an effort it thinks, and takes no temperature
    )
)
register(
    Door(
        name="Anthropic, claude-sonnet-5-5",
        model="anthropic/claude-sonnet-5-5",
        server=SonnetServer,
        reports=Reports(request_id="request-id", reasoning="always", reasoning_tokens="always"),
        adapted=("temperature",),
        many_adapted=("seed", "temperature", "top_p"),
    )
)
