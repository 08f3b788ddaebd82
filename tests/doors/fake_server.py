"""The base class of servers that behave as a provider does. Each is honest about its provider's format: requests and
replies are validated against the provider's SDK."""

from __future__ import annotations

import asyncio
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from aiohttp import web

from tests.doors.answers import Answer, Prompt, answer
from tests.lm.server import Server

__all__ = ["FakeServer"]


class FakeServer(Server):
    """A server of one model on loopback. A subclass is one provider, and defines the methods below.

    Attributes:
        bodies: The requests that were answered, without those that the provider refused.
        refusals: The requests that the provider refused.
        problems: Requests that the SDK's types do not allow, and own replies that do not parse there. A test must
            check at its end that there are none.
        request_ids: The ids of requests that were sent in headers, of refused requests too.
        holds_end: Whether the last piece of a streamed reply is never sent.
    """

    paths: ClassVar[Sequence[str]] = ("/v1/chat/completions",)
    """The paths of requests, as aiohttp has them: ``{name}`` is a variable part."""

    request_id_header: ClassVar[str | None] = None
    """The header of responses with the id of the request. None for a provider that sends none."""

    def __init__(self) -> None:
        super().__init__()
        self.request_ids: list[str] = []
        self.holds_end = False
        self.refusals: list[Mapping[str, Any]] = []
        self.problems: list[str] = []

    @abstractmethod
    def check_request(self, raw: bytes) -> None:
        """Raise ValueError for a body that the SDK's types do not allow; see ``request_check``."""

    @abstractmethod
    def invalid(self, problem: str) -> web.Response:
        """The provider's response to a body that is not in its format, in its own words."""

    @abstractmethod
    def refusal(self, body: Mapping[str, Any]) -> web.Response | None:
        """The provider's response to what this model does not take, in its own words. None if it takes the request."""

    @abstractmethod
    def prompt(self, body: Mapping[str, Any]) -> Prompt:
        """The prompt of a request."""

    @abstractmethod
    def reply(self, body: Mapping[str, Any], reply: Answer) -> Mapping[str, Any]:
        """The body of the response."""

    @abstractmethod
    def chunks(self, body: Mapping[str, Any], reply: Answer) -> Sequence[Mapping[str, Any]]:
        """The pieces of a streamed response."""

    @abstractmethod
    def check_reply(self, body: Mapping[str, Any]) -> None:
        """Raise ValueError for a body that is no reply in the SDK; see ``check_reply`` of the validation."""

    @abstractmethod
    def check_chunk(self, chunk: Mapping[str, Any]) -> None:
        """Raise ValueError for a piece of a stream that does not parse in the SDK."""

    def token_limit(self, body: Mapping[str, Any]) -> int | None:
        """The largest number of tokens of a reply that a request names; None for none."""
        return body.get("max_completion_tokens") or body.get("max_tokens")

    def is_streamed(self, request: web.Request, body: Mapping[str, Any]) -> bool:
        """Whether a request wants its reply as a stream."""
        return bool(body.get("stream"))

    def event(self, chunk: Mapping[str, Any]) -> bytes:
        """A piece of a stream as it is sent: a server-sent event."""
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    end_of_stream: ClassVar[bytes] = b"data: [DONE]\n\n"
    stream_type: ClassVar[str] = "text/event-stream"

    def settings(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """The settings of a request, to be compared with the column ``sent`` of ``run.calls``. None for a provider that
        has other names for them than OpenAI."""
        return None

    def request_body(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        """The request for the methods above. A provider whose path names the model can add it to the body."""
        return body

    def add_routes(self, app: web.Application) -> None:
        for path in self.paths:
            app.router.add_post(path, self._respond)
        app.router.add_route("*", "/{path:.*}", self._unknown_path)

    async def _unknown_path(self, request: web.Request) -> web.Response:
        self.problems.append(f"a request to {request.method} {request.path}, which is not one of {self.paths}")
        return web.json_response({"error": {"message": "Not Found"}}, status=404)

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._response(request, await request.read())
        except Exception as error:
            self.problems.append(f"the fake server failed: {error!r}")
            return self.invalid("the fake server failed")

    async def _response(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        try:
            self.check_request(raw)
        except ValueError as error:
            self.problems.append(f"a request is not in the SDK's format: {error}\n{raw.decode()[:2000]}")
            return self.invalid(str(error))
        body = self.request_body(request, json.loads(raw))
        response = self.refusal(body)
        if response is not None:
            self.refusals.append(body)
            response.headers.update(self._headers())
            return response
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        reply = answer(self.prompt(body)).cut(self.token_limit(body))
        if self.is_streamed(request, body):
            return await self._stream(request, self.chunks(body, reply))
        content = self.reply(body, reply)
        self._note_problem(self.check_reply, content)
        return web.json_response(content, headers=self._headers())

    def _headers(self) -> dict[str, str]:
        """The headers of a response, with a new id."""
        if self.request_id_header is None:
            return {}
        self.request_ids.append(f"request-{len(self.request_ids) + 1}")
        return {self.request_id_header: self.request_ids[-1]}

    async def _stream(self, request: web.Request, chunks: Sequence[Mapping[str, Any]]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": self.stream_type, **self._headers()})
        await response.prepare(request)
        for number, chunk in enumerate(chunks, 1):
            if self.holds_end and number == len(chunks):
                await asyncio.Event().wait()  # until the client disconnects, or the server is stopped
            self._note_problem(self.check_chunk, chunk)
            try:
                await response.write(self.event(chunk))
            except ConnectionResetError:  # the client has cancelled its request
                return response
            await asyncio.sleep(0)  # pieces arrive one at a time
        await response.write(self.end_of_stream)
        return response

    def _note_problem(self, check: Any, content: Mapping[str, Any]) -> None:
        try:
            check(content)
        except ValueError as error:
            self.problems.append(f"a reply of the fake server does not parse in the SDK: {error}\n{content}")
