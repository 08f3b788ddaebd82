"""Ollama: its /v1 in OpenAI's format, and its own format through litellm.

A model without tools or thinking refuses them (github.com/ollama/ollama/issues/6027,
github.com/Gitlawb/openclaude/issues/1371). All other settings are taken or ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ollama
from aiohttp import web
from ollama._types import ChatRequest

from tests.doors.answers import Answer, Prompt
from tests.doors.fake_server import FakeServer
from tests.doors.openai_server import OpenAIFormatServer, openai_error
from tests.doors.registry import Door, Reports, register
from tests.doors.validation import check_reply, request_check


class OllamaServer(OpenAIFormatServer):
    """gemma3:4b at /v1: no tools and no thinking."""

    model = "gemma3:4b"

    def refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        if body["model"] == self.model and body.get("tools"):
            return openai_error(400, f"registry.ollama.ai/library/{self.model} does not support tools")
        if body["model"] == self.model and body.get("reasoning_effort") not in (None, "none"):
            return openai_error(400, f'"{self.model}" does not support thinking')
        return super().refusal(body)

    def not_found(self, model: str) -> web.Response:
        return openai_error(404, f"model '{model}' not found", type="not_found_error")

    def whole(self, kind: str, choices: Any, usage: Any) -> dict[str, Any]:
        body = {**super().whole(kind, choices, usage), "system_fingerprint": "fp_ollama"}
        if usage is None:
            del body["usage"]
        return body

    def choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        return choice

    def message(self, reply: Answer) -> dict[str, Any]:
        return {"role": "assistant", "content": reply.text}

    def usage_details(self, thinking: int) -> dict[str, Any]:
        return {}

    def deltas(self, reply: Answer) -> Iterator[dict[str, Any]]:
        for delta in super().deltas(reply):
            if delta.get("content"):
                yield {"role": "assistant", "content": delta["content"]}

    def last_delta(self) -> dict[str, Any]:
        return {"role": "assistant", "content": ""}


class NativeOllamaServer(FakeServer):
    """qwen3:8b at /api/chat, with tools and thinking."""

    paths = ("/api/chat",)
    model = "qwen3:8b"
    stream_type = "application/x-ndjson"
    end_of_stream = b""

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/api/show", self._show)
        super().add_routes(app)

    async def _show(self, request: web.Request) -> web.Response:
        """What litellm reads the abilities of a model from."""
        details = {"format": "gguf", "family": "qwen3", "parameter_size": "8.2B", "quantization_level": "Q4_K_M"}
        body = {
            "template": "{{ .Prompt }}{{ .Tools }}",
            "details": details,
            "model_info": {"general.architecture": "qwen3", "qwen3.context_length": 40_960},
            "capabilities": ["completion", "tools", "thinking"],
        }
        check_reply(ollama.ShowResponse, body)
        return web.json_response(body)

    def check_request(self, raw: bytes) -> None:
        body = json.loads(raw)
        for tool in body.get("tools") or ():
            # The SDK keeps a part of the JSON schema only. The server passes the schema to the model as it is.
            tool["function"]["parameters"].clear()
        request_check(ChatRequest)(json.dumps(body).encode())
        request_check(list[ollama.Message])(json.dumps(body["messages"]).encode())  # ChatRequest allows any mapping
        request_check(ollama.Options)(json.dumps(body.get("options") or {}).encode())

    def invalid(self, problem: str) -> web.Response:
        return web.json_response({"error": problem}, status=400)

    def refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        if body["model"] != self.model:
            return web.json_response({"error": f"model '{body['model']}' not found"}, status=404)
        return None

    def prompt(self, body: Mapping[str, Any]) -> Prompt:
        messages = [(message["role"], message.get("content") or "") for message in body["messages"]]
        tools = [tool["function"]["name"] for tool in body.get("tools") or ()]
        schema = body.get("format")
        return Prompt(messages, tools, schema if isinstance(schema, dict) else None)

    def token_limit(self, body: Mapping[str, Any]) -> int | None:
        return (body.get("options") or {}).get("num_predict")

    def is_streamed(self, request: web.Request, body: Mapping[str, Any]) -> bool:
        return body.get("stream", True)  # Ollama streams unless it is told otherwise

    def event(self, chunk: Mapping[str, Any]) -> bytes:
        return json.dumps(chunk).encode() + b"\n"

    def reply(self, body: Mapping[str, Any], reply: Answer) -> Mapping[str, Any]:
        message = {"role": "assistant", "content": reply.text, **self._thinking(body, reply.thinking)}
        if reply.tool_calls:
            calls = [{"function": {"name": call.name, "arguments": call.arguments}} for call in reply.tool_calls]
            message["tool_calls"] = calls
        return self._end(message, reply)

    def chunks(self, body: Mapping[str, Any], reply: Answer) -> Sequence[Mapping[str, Any]]:
        messages = []
        if self._thinking(body, reply.thinking):
            messages += [{"role": "assistant", "content": "", "thinking": word} for word in words(reply.thinking)]
        messages += [{"role": "assistant", "content": word} for word in words(reply.text)]
        chunks = [{**self._beginning(), "message": message, "done": False} for message in messages]
        return [*chunks, self._end({**self.reply(body, reply)["message"], "content": "", "thinking": ""}, reply)]

    def _thinking(self, body: Mapping[str, Any], thinking: str) -> dict[str, Any]:
        return {} if body.get("think") is False else {"thinking": thinking}

    def _beginning(self) -> dict[str, Any]:
        return {"model": self.model, "created_at": "2026-11-30T14:00:00.123456789Z"}

    def _end(self, message: Mapping[str, Any], reply: Answer) -> dict[str, Any]:
        return {
            **self._beginning(),
            "message": message,
            "done": True,
            "done_reason": "length" if reply.is_cut else "stop",
            "total_duration": 4_883_583_458,
            "load_duration": 1_334_875,
            "prompt_eval_count": 120,
            "prompt_eval_duration": 342_546_000,
            "eval_count": 40,
            "eval_duration": 4_535_599_000,
        }

    def check_reply(self, body: Mapping[str, Any]) -> None:
        check_reply(ollama.ChatResponse, body)

    check_chunk = check_reply


def words(text: str) -> list[str]:
    """A text in pieces."""
    return re.findall(r"\S+\s*|\s+", text)


register(
    Door(
        name="Ollama at /v1, gemma3:4b",
        model="openai/gemma3:4b",
        server=OllamaServer,
        reports=Reports(
            tools="refused",
            missing={"request_id": "no header has one", "reasoning": "the model does not think"},
        ),
        adapted=("tools",),
        many_adapted=("reasoning_effort",),
    )
)
register(
    Door(
        name="Ollama through litellm, qwen3:8b",
        model="ollama_chat/qwen3:8b",
        server=NativeOllamaServer,
        reports=Reports(
            response_id=False,
            reasoning="always",
            reasoning_tokens="in streams",
            tools="text",
            missing={
                "request_id": "no header has one",
                "response_id": "the SDK's ChatResponse has none",
                "reasoning_tokens": "eval_count has them with the answer's; litellm estimates them for streams",
                "tool_calls": "litellm's model map does not say that the model takes tools",
            },
        ),
        settings={"engine": "litellm"},
    )
)
