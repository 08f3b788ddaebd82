"""Mistral's API, through litellm: OpenAI's path, with names and values of its own. It refuses all others.

The errors are those of public reports: github.com/mistralai/platform-docs-public/issues/7 and
github.com/partITech/php-mistral/issues/76. The header mistral-correlation-id has the id of a request; Mistral's own
mistral-vibe reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from aiohttp import web
from mistralai.client.models import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionStreamRequest,
    CompletionChunk,
)

from tests.doors.answers import Answer
from tests.doors.openai_server import OpenAIFormatServer
from tests.doors.registry import Door, Reports, register
from tests.doors.validation import check_reply, request_check

_OF_OPENAI = ("refusal", "logprobs")
"""Keys of OpenAI's replies that Mistral's have not."""


def mistral_error(detail: Mapping[str, Any], status: int = 422) -> web.Response:
    """An error response for one field, in Mistral's form."""
    body = {"object": "error", "message": {"detail": [detail]}, "type": "invalid_request_error", "code": "3001"}
    return web.json_response(body, status=status)


class MistralServer(OpenAIFormatServer):
    """A model of Mistral."""

    model: ClassVar[str]
    request_id_header = "mistral-correlation-id"

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def check_request(self, raw: bytes) -> None:
        kind = ChatCompletionStreamRequest if b'"stream": true' in raw or b'"stream":true' in raw else None
        request_check(kind or ChatCompletionRequest)(raw)

    def invalid(self, problem: str) -> web.Response:
        return mistral_error({"type": "extra_forbidden", "loc": ["body"], "msg": problem, "input": None})

    def refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        if body["model"] != self.model:
            message = f"Invalid model: {body['model']}"
            error = {"object": "error", "message": message, "type": "invalid_model", "param": None, "code": "1500"}
            return web.json_response(error, status=400)
        if (body.get("temperature") or 0) > 1.5:
            message = "Input should be less than or equal to 1.5"
            location = ["body", "temperature"]
            return mistral_error({"type": "less_than_equal", "loc": location, "msg": message, "ctx": {"le": 1.5}})
        return None

    def settings(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        return None

    def message(self, reply: Answer) -> dict[str, Any]:
        message = super().message(reply)
        del message["refusal"]
        return {"tool_calls": None, **message, "content": self.content(reply)}

    def content(self, reply: Answer) -> Any:
        """The content of a message."""
        return reply.text

    def tool_calls(self, reply: Answer) -> Iterator[dict[str, Any]]:
        for index, call in enumerate(super().tool_calls(reply)):
            yield {**call, "id": f"call{index:05d}", "index": index}

    def choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        return choice

    def usage_details(self, thinking: int) -> dict[str, Any]:
        return {}

    def deltas(self, reply: Answer) -> Iterator[dict[str, Any]]:
        for delta in super().deltas(reply):
            yield {name: value for name, value in delta.items() if name not in _OF_OPENAI}

    def chunks(self, body: Mapping[str, Any], reply: Answer) -> Sequence[Mapping[str, Any]]:
        *chunks, last = super().chunks({**body, "stream_options": None}, reply)
        return [*chunks, {**last, "usage": self.usage(body, reply)}]

    def whole(self, kind: str, choices: Sequence[Any], usage: Mapping[str, Any] | None) -> dict[str, Any]:
        body = super().whole(kind, choices, usage)
        if usage is None:
            del body["usage"]
        return body

    def check_reply(self, body: Mapping[str, Any]) -> None:
        check_reply(ChatCompletionResponse, body)

    def check_chunk(self, chunk: Mapping[str, Any]) -> None:
        check_reply(CompletionChunk, chunk)


class SmallServer(MistralServer):
    """mistral-small-latest: takes a temperature up to 1.5."""

    model = "mistral-small-latest"


class MagistralServer(MistralServer):
    """magistral-medium-latest: thinks in parts of its content."""

    model = "magistral-medium-latest"

    def content(self, reply: Answer) -> Any:
        thinking = {"type": "thinking", "thinking": [{"type": "text", "text": reply.thinking}]}
        text = [{"type": "text", "text": reply.text}] if reply.text else []
        return [thinking, *text]

    def deltas(self, reply: Answer) -> Iterator[dict[str, Any]]:
        first, *rest = super().deltas(reply)
        yield first
        yield {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": reply.thinking}]}]}
        yield from rest


register(
    Door(
        name="Mistral, mistral-small-latest",
        model="mistral/mistral-small-latest",
        server=SmallServer,
        reports=Reports(request_id="mistral-correlation-id", missing={"reasoning": "the model does not think"}),
    )
)
register(
    Door(
        name="Mistral, magistral-medium-latest",
        model="mistral/magistral-medium-latest",
        server=MagistralServer,
        reports=Reports(
            request_id="mistral-correlation-id",
            reasoning="always",
            reasoning_tokens="in streams",
            missing={"reasoning_tokens": "the SDK's UsageInfo has no such count; litellm estimates it for streams"},
        ),
    )
)
