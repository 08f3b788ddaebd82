"""The base class of fake servers that speak OpenAI's chat format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from aiohttp import web
from openai.types.chat import ChatCompletion, ChatCompletionChunk, completion_create_params

from tests.doors.answers import Answer, Prompt
from tests.doors.fake_server import FakeServer
from tests.doors.validation import check_reply, request_check

__all__ = ["OpenAIFormatServer", "openai_error", "without_stream"]

_PIECE = re.compile(r"\S*\s*")
"""A reply is streamed word by word."""
_NO_SETTINGS = ("model", "messages", "tools", "response_format", "stream", "stream_options")
_PROMPT_TOKENS = 120
_THINKING_TOKENS = 14


def openai_error(status: int, message: str, **fields: Any) -> web.Response:
    """An error response in OpenAI's form."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None, **fields}
    return web.json_response({"error": error}, status=status)


class OpenAIFormatServer(FakeServer):
    """A server of one model in OpenAI's format. A subclass sets what differs from OpenAI."""

    model: ClassVar[str]
    """The name that the server knows. Any other name is not found."""
    added: ClassVar[Sequence[str]] = ()
    """Keys of replies that OpenAI's types do not have, as paths, such as ``choices.message.reasoning_content``."""
    thinking_key: ClassVar[str | None] = None
    """The key of a message for its thinking. None for a model that does not think, or does not show it."""

    def check_request(self, raw: bytes) -> None:
        # The type without a condition on `stream` gives one clear error, where a union would give two.
        request_check(completion_create_params.CompletionCreateParamsBase)(without_stream(raw))

    def invalid(self, problem: str) -> web.Response:
        return openai_error(400, f"Invalid request: {problem}")

    def refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        if body["model"] != self.model:
            return self.not_found(body["model"])
        return None

    def not_found(self, model: str) -> web.Response:
        """The response to a request for another model."""
        message = f"The model `{model}` does not exist or you do not have access to it."
        return openai_error(404, message, code="model_not_found")

    def prompt(self, body: Mapping[str, Any]) -> Prompt:
        messages = [(message["role"], _text(message.get("content"))) for message in body["messages"]]
        tools = [tool["function"]["name"] for tool in body.get("tools") or ()]
        response_format = body.get("response_format") or {}
        return Prompt(messages, tools, response_format.get("json_schema", {}).get("schema"))

    def settings(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        return {name: value for name, value in body.items() if name not in _NO_SETTINGS}

    def reply(self, body: Mapping[str, Any], reply: Answer) -> Mapping[str, Any]:
        message = self.message(reply)
        choice = self.choice({"message": message, "finish_reason": self.finish(reply)})
        choices = [{**choice, "index": index} for index in range(body.get("n") or 1)]
        return self.whole("chat.completion", choices, self.usage(body, reply))

    def message(self, reply: Answer) -> dict[str, Any]:
        """The message of a reply."""
        message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None}
        if self.thinking_key is not None:
            message[self.thinking_key] = reply.thinking
        if reply.tool_calls:
            message["tool_calls"] = list(self.tool_calls(reply))
        return message

    def tool_calls(self, reply: Answer) -> Iterator[dict[str, Any]]:
        """The tool calls of a message."""
        for number, call in enumerate(reply.tool_calls):
            function = {"name": call.name, "arguments": json.dumps(call.arguments)}
            yield {"id": f"call_{number}", "type": "function", "function": function}

    def choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        """A choice of a reply or of a chunk, with the fields that all of them have."""
        return {**choice, "logprobs": None}

    def finish(self, reply: Answer) -> str:
        """The reason why a reply ended."""
        if reply.is_cut:
            return "length"
        return "tool_calls" if reply.tool_calls else "stop"

    def whole(self, kind: str, choices: Sequence[Any], usage: Mapping[str, Any] | None) -> dict[str, Any]:
        """The body of a reply or of a chunk."""
        body = {"id": "chatcmpl-1", "object": kind, "created": 1_764_500_000, "model": self.model}
        return {**body, "choices": choices, "usage": usage}

    def usage(self, body: Mapping[str, Any], reply: Answer) -> dict[str, Any]:
        """The tokens of a request."""
        thinking = _THINKING_TOKENS if self.thinks else 0
        completion = len(reply.text.split()) + 8 + thinking
        return {
            "prompt_tokens": _PROMPT_TOKENS,
            "completion_tokens": completion,
            "total_tokens": _PROMPT_TOKENS + completion,
            **self.usage_details(thinking),
        }

    @property
    def thinks(self) -> bool:
        """Whether a part of a reply's tokens is thinking."""
        return self.thinking_key is not None

    def usage_details(self, thinking: int) -> dict[str, Any]:
        """What the usage says beside the three sums. ``thinking``: the tokens of the thinking."""
        return {
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": thinking,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def chunks(self, body: Mapping[str, Any], reply: Answer) -> Sequence[Mapping[str, Any]]:
        choices = [{"delta": delta, "finish_reason": None} for delta in self.deltas(reply)]
        choices.append({"delta": self.last_delta(), "finish_reason": self.finish(reply)})
        chunks = [self.chunk([self.choice({"index": 0, **choice})]) for choice in choices]
        if (body.get("stream_options") or {}).get("include_usage"):
            chunks.append(self.whole("chat.completion.chunk", [], self.usage(body, reply)))
        return chunks

    def chunk(self, choices: Sequence[Any]) -> dict[str, Any]:
        """A chunk of a stream, before that of the usage."""
        return self.whole("chat.completion.chunk", choices, None)

    def deltas(self, reply: Answer) -> Iterator[dict[str, Any]]:
        """The pieces of a message, in order."""
        yield {"role": "assistant", "content": "", "refusal": None}
        if self.thinking_key is not None:
            for piece in filter(None, _PIECE.findall(reply.thinking)):
                yield {self.thinking_key: piece}
        for piece in filter(None, _PIECE.findall(reply.text)):
            yield {"content": piece}
        for index, call in enumerate(self.tool_calls(reply)):
            yield {"tool_calls": [{"index": index, **call}]}

    def last_delta(self) -> dict[str, Any]:
        """The delta beside the finish reason."""
        return {}

    def check_reply(self, body: Mapping[str, Any]) -> None:
        check_reply(ChatCompletion, body, self.added)

    def check_chunk(self, chunk: Mapping[str, Any]) -> None:
        added = [path.replace("choices.message.", "choices.delta.") for path in self.added]
        check_reply(ChatCompletionChunk, chunk, added)


def without_stream(raw: bytes) -> bytes:
    """The body without ``stream``. Raises ValueError if it is no boolean."""
    body = json.loads(raw)
    if not isinstance(body, dict) or not isinstance(body.pop("stream", False), bool):
        raise ValueError("the body is no JSON object, or `stream` is no boolean")
    return json.dumps(body).encode()


def _text(content: Any) -> str:
    """The text of a message, which may consist of parts."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""
