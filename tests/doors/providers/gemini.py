"""Gemini's own API, through litellm: bodies of generateContent and streamGenerateContent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from aiohttp import web
from google.genai import types
from google.genai._common import BaseModel
from pydantic import ConfigDict

from tests.doors.answers import Answer, Prompt
from tests.doors.fake_server import FakeServer
from tests.doors.registry import Door, Reports, register
from tests.doors.validation import check_reply, request_check

_PIECE = re.compile(r"\S*\s*")
_PROMPT_TOKENS = 120
_THINKING_TOKENS = 14


class GenerateContentRequest(BaseModel):
    """The body of a request. The SDK has the types of its fields, and writes it from a config."""

    model_config = ConfigDict(defer_build=False)

    contents: list[types.Content]
    system_instruction: types.Content | None = None
    tools: list[types.Tool] | None = None
    tool_config: types.ToolConfig | None = None
    safety_settings: list[types.SafetySetting] | None = None
    generation_config: types.GenerationConfig | None = None
    cached_content: str | None = None


def gemini_error(message: str, status: int = 400, name: str = "INVALID_ARGUMENT") -> web.Response:
    """An error response in Google's form."""
    return web.json_response({"error": {"code": status, "message": message, "status": name}}, status=status)


class GeminiServer(FakeServer):
    """A model of Gemini. It thinks, and shows its thoughts on request."""

    paths = ("/v1beta/models/{model}:{method}", "/v1alpha/models/{model}:{method}")
    end_of_stream = b""
    model: ClassVar[str]

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1beta"

    def check_request(self, raw: bytes) -> None:
        request_check(GenerateContentRequest)(raw)

    def invalid(self, problem: str) -> web.Response:
        return gemini_error(f"Invalid JSON payload received. {problem}")

    def request_body(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        method = request.match_info["method"]
        if method not in ("generateContent", "streamGenerateContent") or "x-goog-api-key" not in request.headers:
            self.problems.append(f"the method {method} is unknown, or the header with the key is missing")
        if method == "streamGenerateContent" and request.query.get("alt") != "sse":
            self.problems.append("a stream of server-sent events is requested with alt=sse")
        parsed = GenerateContentRequest.model_validate(body)
        return {**parsed.model_dump(exclude_none=True), "model": request.match_info["model"]}

    def is_streamed(self, request: web.Request, body: Mapping[str, Any]) -> bool:
        return request.match_info["method"] == "streamGenerateContent"

    def config(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings of a request."""
        return body.get("generation_config") or {}

    def token_limit(self, body: Mapping[str, Any]) -> int | None:
        return self.config(body).get("max_output_tokens")

    def refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        if body["model"] != self.model:
            message = (
                f"models/{body['model']} is not found for API version v1beta, or is not supported for generateContent. "
                "Call ListModels to see the list of available models and their supported methods."
            )
            return gemini_error(message, 404, "NOT_FOUND")
        temperature = self.config(body).get("temperature") or 0
        if temperature > 2:
            message = f"* GenerateContentRequest.generation_config.temperature: {temperature} must be in [0.0, 2.0]\n"
            return gemini_error(message)
        return None

    def prompt(self, body: Mapping[str, Any]) -> Prompt:
        messages = [("system", _text(body.get("system_instruction") or {}))]
        for content in body["contents"]:
            role = {"model": "assistant"}.get(content.get("role"), "user")
            messages.append((role, _text(content)))
        tools = []
        for tool in body.get("tools") or ():
            tools += [declaration["name"] for declaration in tool.get("function_declarations") or ()]
        config = self.config(body)
        schema = config.get("response_json_schema") or config.get("response_schema")
        return Prompt(messages, tools, schema)

    def reply(self, body: Mapping[str, Any], reply: Answer) -> Mapping[str, Any]:
        return self.whole(body, reply, list(self.parts(body, reply)), _finish(reply))

    def whole(
        self, body: Mapping[str, Any], reply: Answer, parts: Sequence[Mapping[str, Any]], finish: str | None
    ) -> dict[str, Any]:
        """The body of a reply, or of a piece of it."""
        candidate = {"content": {"parts": parts, "role": "model"}, "index": 0}
        if finish is not None:
            candidate["finishReason"] = finish
        return {
            "candidates": [candidate] * (self.config(body).get("candidate_count") or 1),
            "usageMetadata": {
                "promptTokenCount": _PROMPT_TOKENS,
                "candidatesTokenCount": len(reply.text.split()) + 8,
                "thoughtsTokenCount": _THINKING_TOKENS,
                "totalTokenCount": _PROMPT_TOKENS + len(reply.text.split()) + 8 + _THINKING_TOKENS,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": _PROMPT_TOKENS}],
            },
            "modelVersion": self.model,
            "responseId": "response_1",
        }

    def parts(self, body: Mapping[str, Any], reply: Answer) -> Iterator[dict[str, Any]]:
        """The parts of a reply: a summary of the thoughts, the text, the calls of functions."""
        if (self.config(body).get("thinking_config") or {}).get("include_thoughts"):
            yield {"text": reply.thinking, "thought": True}
        if reply.text:
            yield {"text": reply.text}
        for call in reply.tool_calls:
            function_call = {"name": call.name, "args": dict(call.arguments)}
            yield {"functionCall": function_call, "thoughtSignature": "c2lnbmF0dXJl"}

    def chunks(self, body: Mapping[str, Any], reply: Answer) -> Sequence[Mapping[str, Any]]:
        pieces = []
        for part in self.parts(body, reply):
            if "text" not in part:
                pieces.append(part)
                continue
            pieces += [{**part, "text": text} for text in _PIECE.findall(part["text"]) if text]
        finishes = [*[None] * (len(pieces) - 1), _finish(reply)]
        return [self.whole(body, reply, [piece], finish) for piece, finish in zip(pieces, finishes, strict=True)]

    def check_reply(self, body: Mapping[str, Any]) -> None:
        check_reply(types.GenerateContentResponse, body)

    check_chunk = check_reply


def _finish(reply: Answer) -> str:
    return "MAX_TOKENS" if reply.is_cut else "STOP"


def _text(content: Mapping[str, Any]) -> str:
    """The text of a content, with the results of functions."""
    texts = []
    for part in content.get("parts") or ():
        if part.get("function_response") is not None:
            texts.append(json.dumps(part["function_response"].get("response")))
        else:
            texts.append(part.get("text") or "")
    return "\n\n".join(texts)


class FlashServer(GeminiServer):
    """gemini-2.5-flash."""

    model = "gemini-2.5-flash"


register(
    Door(
        name="Gemini, gemini-2.5-flash",
        model="gemini/gemini-2.5-flash",
        server=FlashServer,
        reports=Reports(
            reasoning="with effort",
            reasoning_tokens="always",
            missing={"request_id": "there is no header with one; the body has the field responseId"},
        ),
    )
)
