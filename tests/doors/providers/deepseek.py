"""DeepSeek's reasoner, in OpenAI's format with thinking in ``reasoning_content``.

It has JSON objects, but no JSON schemas (github.com/llm-exe/llm-exe/issues/662), and takes JSON objects only if the
prompt speaks of JSON (github.com/browserbase/stagehand/issues/1204). It ignores sampling settings. The
header x-ds-trace-id has the id of a request; there is no x-request-id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from tests.doors.openai_server import OpenAIFormatServer, openai_error
from tests.doors.registry import Door, Reports, register


class DeepSeekServer(OpenAIFormatServer):
    """deepseek-reasoner."""

    model = "deepseek-reasoner"
    request_id_header = "x-ds-trace-id"
    thinking_key = "reasoning_content"
    added = (
        "choices.message.reasoning_content",  # the thinking
        "usage.prompt_cache_hit_tokens",  # the cached tokens, before DeepSeek had prompt_tokens_details
        "usage.prompt_cache_miss_tokens",
    )

    def refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        kind = (body.get("response_format") or {}).get("type")
        if kind == "json_schema":
            return openai_error(400, "This response_format type is unavailable now", code="invalid_request_error")
        if kind == "json_object" and "json" not in json.dumps(body["messages"]).lower():
            message = "Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'."
            return openai_error(400, message, code="invalid_request_error")
        if (body.get("temperature") or 0) > 2:
            message = "Invalid temperature value, the valid range of temperature is [0, 2]"
            return openai_error(400, message, code="invalid_request_error")
        return super().refusal(body)

    def not_found(self, model: str) -> web.Response:
        return openai_error(400, "Model Not Exist", code="invalid_request_error")

    def whole(self, kind: str, choices: Any, usage: Any) -> dict[str, Any]:
        body = super().whole(kind, choices, usage)
        return {**body, "system_fingerprint": "fp_eaab8d114b_prod0820_fp8_kvcache"}

    def message(self, reply: Any) -> dict[str, Any]:
        message = super().message(reply)
        del message["refusal"]
        return {**message, "content": reply.text}

    def usage_details(self, thinking: int) -> dict[str, Any]:
        return {
            "prompt_tokens_details": {"cached_tokens": 64},
            "completion_tokens_details": {"reasoning_tokens": thinking},
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 56,
        }


register(
    Door(
        name="DeepSeek, deepseek-reasoner",
        model="deepseek/deepseek-reasoner",
        server=DeepSeekServer,
        reports=Reports(
            request_id="x-ds-trace-id",
            reasoning="always",
            reasoning_tokens="always",
            tools="text",
            missing={"tool_calls": "litellm's model map says that the model takes no tools"},
        ),
        adapted=("response_format",),
    )
)
