"""What the HTTP clients of litellm may do within our calls: follow no redirect, and read no endless body.

litellm has no settings for it, makes its clients itself, and would send prompts, and the keys in headers of some
providers, to the other address. Calls of litellm that are not ours are left as they are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from functools import wraps
from typing import Any

from dspynb.lm.providers import sse
from dspynb.lm.providers.addresses import redirected_to

__all__ = ["Watch", "watch_clients", "watched"]

_STREAMED = {"follow_redirects": False, "stream": True}


class Watch:
    """What was seen of the HTTP requests of one call."""

    def __init__(self) -> None:
        self.redirects: list[str] = []
        """Where servers sent the client."""
        self.too_long = ""
        """How long a body was at least that was too long."""

    def most(self, response: Any) -> int:
        """Bytes that are read of a response, before they are unpacked."""
        kind = response.headers.get("content-type", "")
        return sse.MOST_OF_A_STREAM if kind.startswith("text/event-stream") else sse.MOST_OF_A_BODY

    def refuse(self, most: int) -> None:
        """Note that a body is longer than it may be, and end the request."""
        self.too_long = sse.shown(most)
        raise ValueError(f"the body of the reply is too long: more than {self.too_long}")


watched: ContextVar[Watch | None] = ContextVar("HTTP requests of the call", default=None)
"""The watch of the call of litellm that is under way; None outside of our calls."""


class _Bounded:
    """The bytes of a response, as httpx takes them from it, up to a limit."""

    def __init__(self, stream: Any, most: int, watch: Watch) -> None:
        self._stream = stream
        self._most = most
        self._watch = watch
        self._size = 0

    def _counted(self, chunk: bytes) -> bytes:
        self._size += len(chunk)
        if self._size > self._most:
            self._watch.refuse(self._most)
        return chunk


def watch_clients() -> None:
    """Make the clients of httpx, which litellm uses, look at the watch of a call."""
    import httpx

    class Awaited(_Bounded, httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in self._stream:
                yield self._counted(chunk)

        async def aclose(self) -> None:
            await self._stream.aclose()

    class Plain(_Bounded, httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for chunk in self._stream:
                yield self._counted(chunk)

        def close(self) -> None:
            self._stream.close()

    for client, watching, stream in (
        (httpx.AsyncClient, _awaited_send, Awaited),
        (httpx.Client, _plain_send, Plain),
    ):
        if not hasattr(client.send, "watches"):
            sent = watching(client.send, stream)
            setattr(sent, "watches", True)  # noqa: B010  # mypy takes no other assignment
            setattr(client, "send", sent)  # noqa: B010


def _awaited_send(send: Callable[..., Any], bounded: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(send)
    async def sent(*args: Any, **keywords: Any) -> Any:
        watch = watched.get()
        if watch is None:
            return await send(*args, **keywords)
        response = await send(*args, **keywords | _STREAMED)
        _look_at(response, watch, bounded)
        if keywords.get("stream"):
            return response
        try:
            body = _Body(response, watch)
            async for chunk in response.aiter_bytes():
                if body.add(chunk):
                    break
            response._content = body.content()
        finally:
            await response.aclose()
        return response

    return sent


def _plain_send(send: Callable[..., Any], bounded: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(send)
    def sent(*args: Any, **keywords: Any) -> Any:
        watch = watched.get()
        if watch is None:
            return send(*args, **keywords)
        response = send(*args, **keywords | _STREAMED)
        _look_at(response, watch, bounded)
        if keywords.get("stream"):
            return response
        try:
            body = _Body(response, watch)
            for chunk in response.iter_bytes():
                if body.add(chunk):
                    break
            response._content = body.content()
        finally:
            response.close()
        return response

    return sent


class _Body:
    """The body of a response while it is read, unpacked: a few bytes of a compressed one may make very many."""

    def __init__(self, response: Any, watch: Watch) -> None:
        self._watch = watch
        self._limit = watch.most(response)
        self._is_error = response.status_code >= 400
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> bool:
        """Take one more piece. Returns True where the rest need not be read: of an error the beginning is enough.
        Raises where a reply is too long."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._is_error:
            return self._size >= sse.MOST_OF_AN_ERROR
        if self._size > self._limit:
            self._watch.refuse(self._limit)
        return False

    def content(self) -> bytes:
        """What was read."""
        return b"".join(self._chunks)


def _look_at(response: Any, watch: Watch, bounded: Callable[..., Any]) -> None:
    if response.is_redirect:
        watch.redirects.append(redirected_to(str(response.request.url), response.headers.get("location")))
    response.stream = bounded(response.stream, watch.most(response), watch)
