"""Guards the HTTP clients of litellm: they follow no redirects, read no endless body, and close their connections with
the event loop.

litellm creates its clients itself and has no settings for this. It would send prompts, and for some providers keys in
headers, to the target of a redirect. Calls of litellm from outside dspynb are left unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from dspynb.lm.providers import sse
from dspynb.lm.providers.addresses import describe_redirect
from dspynb.lm.providers.engine import ResponseCallback
from dspynb.lm.providers.response_ids import ResponseNames, request_id

__all__ = ["HTTPGuard", "current_guard", "guard_clients"]

_SEND_OPTIONS = {"follow_redirects": False, "stream": True}


class HTTPGuard:
    """Guards the HTTP requests of one call, and records what it refused, and what the response says about itself.

    ``on_response``: called when the headers of a response have arrived, with the provider's id of the request.
    """

    def __init__(self, on_response: ResponseCallback | None = None) -> None:
        self.redirects: list[str] = []
        """The targets of redirects, for an error message."""
        self.exceeded_limit = ""
        """The limit that a body exceeded, such as ``64 MiB``; empty if none did."""
        self.address: str | None = None
        """The origin of the last request, such as ``https://api.anthropic.com:443``; None before it."""
        self.names = ResponseNames()
        """What the response says about itself."""
        self.on_response = on_response

    def size_limit(self, response: Any) -> int:
        """The maximum number of bytes of a response's body."""
        content_type = response.headers.get("content-type", "")
        if content_type.startswith("text/event-stream"):
            return sse.MAX_STREAM_BYTES
        return sse.MAX_BODY_BYTES

    def note_request(self, *args: Any, **keywords: Any) -> None:
        """Record where a request is sent, until one of them had a response with names: litellm may send further ones,
        such as a look-up of the model's abilities. Takes the arguments of ``httpx.Client.send``."""
        if self.names.has_any:
            return
        url = (args[0] if args else keywords["request"]).url
        self.address = f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}"

    def note_response(self, response: Any, *, is_stream: bool) -> None:
        """Record the id of a request, from the headers of its response."""
        if self.names.has_any:
            return
        encoding = response.headers.get("content-encoding", "") if is_stream else None
        self.names = ResponseNames(request_id(response.headers), encoding)
        if self.on_response is not None:
            self.on_response(self.names.request_id)

    def refuse_body(self, limit: int) -> None:
        """Record that a body is longer than ``limit`` bytes, and raise ValueError to end the request."""
        self.exceeded_limit = sse.format_size(limit)
        raise ValueError(f"the body of the reply is too long: more than {self.exceeded_limit}")


current_guard: ContextVar[HTTPGuard | None] = ContextVar("HTTP requests of the call", default=None)
"""The guard of the current call; None outside of calls of dspynb."""


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Any, WeakSet[Any]]] = WeakKeyDictionary()
"""For each event loop, the clients that have sent a request on it, and the generator that closes their connections."""


async def _connection_owner(clients: WeakSet[Any]) -> AsyncGenerator[None, None]:
    """Close the connections of clients with the event loop: asyncio ends its generators before it closes the loop.

    litellm keeps the connections of a loop that has ended. Its clients stay usable, and connect anew.
    """
    try:
        yield
    finally:
        for client in list(clients):
            with contextlib.suppress(Exception):
                await client._transport.aclose()
        await asyncio.sleep(0)  # sockets are closed in the next cycle of the loop


async def _close_with_loop(client: Any) -> None:
    """Close the connections of a client when the running event loop ends."""
    loop = asyncio.get_running_loop()
    if loop not in _clients:
        clients: WeakSet[Any] = WeakSet()
        owner = _connection_owner(clients)
        await anext(owner)
        _clients[loop] = (owner, clients)
    _clients[loop][1].add(client)


class _BoundedStream:
    """The bytes of a response before they are decompressed, up to a limit."""

    def __init__(self, stream: Any, limit: int, guard: HTTPGuard) -> None:
        self._stream = stream
        self._limit = limit
        self._guard = guard
        self._size = 0

    def _counted(self, chunk: bytes) -> bytes:
        self._size += len(chunk)
        if self._size > self._limit:
            self._guard.refuse_body(self._limit)
        if not self._guard.names.is_complete:
            self._guard.names.add(chunk)
        return chunk


def guard_clients() -> None:
    """Patch the clients of httpx, which litellm uses, to obey the guard of the current call."""
    import httpx

    class AsyncStream(_BoundedStream, httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in self._stream:
                yield self._counted(chunk)

        async def aclose(self) -> None:
            await self._stream.aclose()

    class SyncStream(_BoundedStream, httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for chunk in self._stream:
                yield self._counted(chunk)

        def close(self) -> None:
            self._stream.close()

    for client, guarded_send, stream in (
        (httpx.AsyncClient, _guarded_async_send, AsyncStream),
        (httpx.Client, _guarded_sync_send, SyncStream),
    ):
        if not hasattr(client.send, "is_guarded"):
            send = guarded_send(client.send, stream)
            setattr(send, "is_guarded", True)  # noqa: B010  # mypy accepts no other assignment
            setattr(client, "send", send)  # noqa: B010


def _guarded_async_send(send: Callable[..., Any], bounded_stream: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(send)
    async def guarded_send(*args: Any, **keywords: Any) -> Any:
        guard = current_guard.get()
        if guard is None:
            return await send(*args, **keywords)
        await _close_with_loop(args[0])
        guard.note_request(*args[1:], **keywords)
        response = await send(*args, **keywords | _SEND_OPTIONS)
        _guard_response(response, guard, bounded_stream, is_stream=bool(keywords.get("stream")))
        if keywords.get("stream"):
            return response
        try:
            body = _DecodedBody(response, guard)
            async for chunk in response.aiter_bytes():
                if body.add(chunk):
                    break
            response._content = body.content()
        finally:
            await response.aclose()
        return response

    return guarded_send


def _guarded_sync_send(send: Callable[..., Any], bounded_stream: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(send)
    def guarded_send(*args: Any, **keywords: Any) -> Any:
        guard = current_guard.get()
        if guard is None:
            return send(*args, **keywords)
        guard.note_request(*args[1:], **keywords)
        response = send(*args, **keywords | _SEND_OPTIONS)
        _guard_response(response, guard, bounded_stream, is_stream=bool(keywords.get("stream")))
        if keywords.get("stream"):
            return response
        try:
            body = _DecodedBody(response, guard)
            for chunk in response.iter_bytes():
                if body.add(chunk):
                    break
            response._content = body.content()
        finally:
            response.close()
        return response

    return guarded_send


class _DecodedBody:
    """The decompressed body of a response, up to a limit: a few compressed bytes may contain very many."""

    def __init__(self, response: Any, guard: HTTPGuard) -> None:
        self._guard = guard
        self._limit = guard.size_limit(response)
        self._is_error = response.status_code >= 400
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> bool:
        """Add a chunk. Returns True if the rest can be skipped, as the start of an error is enough. Raises ValueError
        if a reply is too long."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._is_error:
            return self._size >= sse.MAX_ERROR_BYTES
        if self._size > self._limit:
            self._guard.refuse_body(self._limit)
        return False

    def content(self) -> bytes:
        """All chunks so far."""
        content = b"".join(self._chunks)
        if not self._is_error and not self._guard.names.has_any:
            self._guard.names.read_body(content)
        return content


def _guard_response(response: Any, guard: HTTPGuard, bounded_stream: Callable[..., Any], *, is_stream: bool) -> None:
    """Record a redirect and the id of the request, and bound the response's stream."""
    if response.is_redirect:
        guard.redirects.append(describe_redirect(str(response.request.url), response.headers.get("location")))
    guard.note_response(response, is_stream=is_stream)
    response.stream = bounded_stream(response.stream, guard.size_limit(response), guard)
