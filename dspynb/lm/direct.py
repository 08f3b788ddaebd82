"""The direct engine: OpenAI-compatible servers over aiohttp, one pooled session an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pydantic_core

from dspynb.errors import (
    ConnectionFailed,
    MalformedReply,
    ModelError,
    ModelTimeout,
    shorten,
)
from dspynb.lm.base import Heard, LMReply, LMRequest
from dspynb.lm.endpoint import Endpoint
from dspynb.lm.openai_format import Pieces, kind_of, read_reply, request_body, retry_after
from dspynb.redact import redact, told

if TYPE_CHECKING:
    import aiohttp

__all__ = ["DirectEngine"]

_LONGEST_LINE = 2**24
_sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Any, aiohttp.ClientSession]] = WeakKeyDictionary()


async def _owner() -> AsyncGenerator[aiohttp.ClientSession, None]:
    """Owns a loop's session: asyncio ends its generators, and so closes the session, before the loop closes."""
    import aiohttp

    jar = aiohttp.DummyCookieJar()  # cookies of a provider are of no use, and handling them takes time
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=jar) as session:
        yield session


async def _session() -> aiohttp.ClientSession:
    loop = asyncio.get_running_loop()
    known = _sessions.get(loop)
    if known is None:
        owner = _owner()
        session = await anext(owner)
        if loop in _sessions:  # another call came first
            await owner.aclose()
        known = _sessions.setdefault(loop, (owner, session))
    return known[1]


class DirectEngine:
    """One request to one server, with the errors of our tree. Retries and limits are the LM's."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self.model = endpoint, endpoint.model
        self.provider, self.remote = endpoint.model.split("/", 1)
        self._timeout: aiohttp.ClientTimeout | None = None

    @property
    def url(self) -> str:
        """Where chat completions are asked for."""
        base = self.endpoint.api_base or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        return f"{base.rstrip('/')}/chat/completions"

    @property
    def key(self) -> str | None:
        """The key in use now: given, or the provider's in the environment."""
        return self.endpoint.api_key or os.environ.get(f"{self.provider.upper()}_API_KEY")

    async def complete(self, request: LMRequest, settings: Mapping[str, Any], heard: Heard | None = None) -> LMReply:
        """One reply; with ``heard``, its text also piece by piece. Raises a ModelError; a cancellation passes through
        and closes the connection."""
        import aiohttp

        session = await _session()
        settings = dict(settings)
        headers = dict(settings.pop("extra_headers", None) or {})
        if key := self.key:
            headers["Authorization"] = f"Bearer {key}"
        body = request_body(self.remote, request, settings)
        if heard is not None:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if self._timeout is None:
            self._timeout = aiohttp.ClientTimeout(total=self.endpoint.timeout)
        try:
            sent = aiohttp.BytesPayload(_encoded(body), content_type="application/json")
            async with session.post(self.url, data=sent, headers=headers, timeout=self._timeout) as response:
                return await self._read(response, heard)
        except TimeoutError:
            raise ModelTimeout(f"no reply within {self.endpoint.timeout:g} s", model=self.model) from None
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionFailed(told(error, 300), model=self.model) from None

    async def _read(self, response: aiohttp.ClientResponse, heard: Heard | None) -> LMReply:
        status, headers = response.status, response.headers
        request_id = redact(headers.get("x-request-id", "")) or None
        facts: dict[str, Any] = {"model": self.model, "status": status, "request_id": request_id}
        if status < 400 and heard is not None and response.content_type == "text/event-stream":
            return read_reply(await _streamed(response, heard, facts), self.model, facts)
        raw = await response.read()
        body = _decoded(raw)
        if status >= 400:
            raise self._refusal(status, headers, body, raw, facts)
        reply = read_reply(body if body is not None else raw.decode("utf-8", "replace"), self.model, facts)
        if heard is not None:
            heard(reply.text)
        return reply

    def _refusal(
        self, status: int, headers: Mapping[str, str], body: Any, raw: bytes, facts: dict[str, Any]
    ) -> ModelError:
        detail = body.get("error", body) if isinstance(body, Mapping) else raw.decode("utf-8", "replace")
        code = str(detail.get("code") or detail.get("type") or "") if isinstance(detail, Mapping) else ""
        said = detail.get("message", detail) if isinstance(detail, Mapping) else detail
        # Redacted first: cut in its middle, a key would no longer be known as one.
        message = shorten(redact(str(said)), 400) or "no message"
        kind = kind_of(status, code, message.lower())
        if status == 401 and not self.key:
            name = f"{self.provider.upper()}_API_KEY"
            message += f"; no key was sent: set {name} in the environment of the process that makes the call"
        return kind(message, **facts, retry_after=retry_after(headers))


async def _streamed(response: aiohttp.ClientResponse, heard: Heard, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a reply that comes as server-sent events, its text told to ``heard`` as it comes."""
    pieces = Pieces()
    async with contextlib.aclosing(_lines(response.content, facts)) as lines:
        async for line in lines:
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                break
            piece = _decoded(data) if line.startswith(b"data:") else None
            if isinstance(piece, Mapping) and (text := pieces.add(piece, facts)):
                heard(text)
    return pieces.body(facts)


async def _lines(content: aiohttp.StreamReader, facts: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
    """The lines of a body: some servers send all of a long reply in one, more than aiohttp reads as a line."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > _LONGEST_LINE:
            raise MalformedReply("a line of the stream is too long", **facts)
    yield rest


def _encoded(body: Any) -> bytes:
    try:
        return pydantic_core.to_json(body)
    except ValueError:  # halves of surrogate pairs, which JSON can escape; or a value that JSON does not know
        return json.dumps(body).encode()


def _decoded(raw: bytes) -> Any:
    try:
        return pydantic_core.from_json(raw)
    except ValueError:  # not JSON, or what only Python reads
        pass
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
