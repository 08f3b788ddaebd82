"""vLLM: a server that was started with its parsers of thinking and of tool calls, and one without options.

Without ``--enable-auto-tool-choice`` it refuses tools (github.com/langchain4j/langchain4j/issues/3475), and without
``--reasoning-parser`` the thinking is in the text. Unknown settings are ignored by vLLM, so there are no refusals of
settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from aiohttp import web

from tests.doors.answers import Answer
from tests.doors.openai_server import OpenAIFormatServer
from tests.doors.registry import Door, Reports, register


def vllm_error(status: int, message: str, kind: str) -> web.Response:
    """An error response in vLLM's form."""
    error = {"message": message, "type": kind, "param": None, "code": status}
    return web.json_response({"error": error}, status=status)


class VLLMServer(OpenAIFormatServer):
    """Qwen3-8B with ``--reasoning-parser qwen3 --enable-auto-tool-choice --tool-call-parser hermes``."""

    model = "Qwen/Qwen3-8B"
    thinking_key = "reasoning"
    added = (
        "choices.message.reasoning",  # the thinking; before release 0.11 it was reasoning_content only
        "choices.message.reasoning_content",
        "choices.stop_reason",  # the stop sequence that ended the reply
        "choices.token_ids",  # on request
        "prompt_logprobs",  # on request
        "prompt_token_ids",  # on request
        "kv_transfer_params",  # of servers that share their caches
    )

    def invalid(self, problem: str) -> web.Response:
        return vllm_error(400, problem, "BadRequestError")

    def not_found(self, model: str) -> web.Response:
        return vllm_error(404, f"The model `{model}` does not exist.", "NotFoundError")

    def whole(self, kind: str, choices: Any, usage: Any) -> dict[str, Any]:
        body = super().whole(kind, choices, usage)
        if kind == "chat.completion":
            body |= {"service_tier": None, "system_fingerprint": None, "kv_transfer_params": None}
            body |= {"prompt_logprobs": None, "prompt_token_ids": None}
        return body

    def choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {**super().choice(choice), "stop_reason": None, "token_ids": None}

    def message(self, reply: Answer) -> dict[str, Any]:
        optional = {"annotations": None, "audio": None, "function_call": None, "tool_calls": []}
        thinking = {"reasoning": None, "reasoning_content": None}
        message = {**optional, **thinking, **super().message(reply)}
        message["reasoning_content"] = message["reasoning"]
        return message

    def usage_details(self, thinking: int) -> dict[str, Any]:
        return {"prompt_tokens_details": None}  # thinking is a part of the reply that is not counted apart


class BareVLLMServer(VLLMServer):
    """Qwen3-8B without options."""

    thinking_key = None

    def refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        if body.get("tools") and body.get("tool_choice", "auto") == "auto":
            message = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
            return vllm_error(400, message, "BadRequestError")
        return super().refusal(body)

    def reply(self, body: Mapping[str, Any], reply: Answer) -> Mapping[str, Any]:
        return super().reply(body, self._with_thinking(body, reply))

    def chunks(self, body: Mapping[str, Any], reply: Answer) -> Any:
        return super().chunks(body, self._with_thinking(body, reply))

    def _with_thinking(self, body: Mapping[str, Any], reply: Answer) -> Answer:
        """The reply with its thinking in the text, unless a grammar holds the text to JSON."""
        if body.get("response_format"):
            return reply
        return replace(reply, text=f"<think>\n{reply.thinking}\n</think>\n\n{reply.text}")

    def deltas(self, reply: Answer) -> Iterator[dict[str, Any]]:
        for delta in super().deltas(reply):
            yield {name: value for name, value in delta.items() if name != "refusal"}


_MISSING = {
    "request_id": "the header x-request-id is sent with --enable-request-id-headers only",
    "reasoning_tokens": "the usage has them with the answer's",
}
register(
    Door(
        name="vLLM with parsers, Qwen3-8B",
        model="hosted_vllm/Qwen/Qwen3-8B",
        server=VLLMServer,
        reports=Reports(reasoning="always", missing=_MISSING),
    )
)
register(
    Door(
        name="vLLM without options, Qwen3-8B",
        model="Qwen/Qwen3-8B",
        server=BareVLLMServer,
        reports=Reports(reasoning="without a schema", tools="refused", missing=_MISSING),
        adapted=("tools",),
    )
)
