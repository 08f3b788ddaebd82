"""The direct engine: OpenAI-compatible servers over aiohttp, one pooled session an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pydantic_core

from dspynb.errors import (
    BadRequestError,
    ConfigurationError,
    ConnectionFailed,
    ModelError,
    ModelTimeout,
    ServerError,
)
from dspynb.lm.protocol import LMReply, LMRequest, PieceCallback
from dspynb.lm.providers import sse
from dspynb.lm.providers.addresses import (
    base_in_environment,
    chat_url,
    check_base,
    has_login,
    is_own_host,
    key_in_environment,
    no_key_sent,
    redirected_to,
    refused_redirect,
)
from dspynb.lm.providers.endpoint import Endpoint
from dspynb.lm.providers.openai_format import Pieces, damaged, excerpt, kind_of, read_reply, request_body, retry_after
from dspynb.lm.settings import refuse_litellm_settings
from dspynb.redact import error_text, redact

if TYPE_CHECKING:
    import aiohttp

__all__ = ["DirectEngine"]

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
        """Where chat completions are asked for. Raises ConfigurationError where no address is known."""
        base = self.endpoint.api_base or base_in_environment(self.provider)
        if base is None and self.provider != "openai":
            raise ConfigurationError(
                f"{self.model}: with engine='direct', give the address of the server, api_base='https://…/v1'"
            )
        if base is not None and base is not self.endpoint.api_base:
            check_base(base)
        return chat_url(base or "https://api.openai.com/v1")

    @property
    def key(self) -> str | None:
        """The key in use now: given, or the provider's in the environment where it may go to this address."""
        return self._key_for(self.url)

    def _key_for(self, url: str) -> str | None:
        if self.endpoint.api_key:
            return self.endpoint.api_key
        key = key_in_environment(self.provider)
        return key if key and not has_login(url) and is_own_host(self.provider, url) else None

    async def complete(
        self, request: LMRequest, settings: Mapping[str, Any], heard: PieceCallback | None = None
    ) -> LMReply:
        """One reply; with ``heard``, its text also piece by piece. Raises a ModelError; a cancellation passes through
        and closes the connection."""
        import aiohttp

        session = await _session()
        settings = dict(settings)
        headers, url = dict(settings.pop("extra_headers", None) or {}), self.url
        if (key := self._key_for(url)) and not any(name.lower() == "authorization" for name in headers):
            headers["Authorization"] = f"Bearer {key}"
        refuse_litellm_settings(self.model, settings)
        body = request_body(self.remote, request, settings)
        body |= body.pop("extra_body", None) or {}
        if heard is not None:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if self._timeout is None:
            self._timeout = aiohttp.ClientTimeout(total=self.endpoint.timeout)
        try:
            sent = aiohttp.BytesPayload(_encoded(body), content_type="application/json")
            async with session.post(
                url, data=sent, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                self._check_redirect(response, url)
                return await self._read(response, heard)
        except TimeoutError:
            problem = f"no reply within {self.endpoint.timeout:g} s"
            raise ModelTimeout(problem, model=self.model, advice=ModelTimeout.remedy) from None
        except (aiohttp.ClientError, OSError) as error:
            advice = ConnectionFailed.remedy
            raise ConnectionFailed(error_text(error, 300), model=self.model, advice=advice) from None

    def _check_redirect(self, response: aiohttp.ClientResponse, url: str) -> None:
        """Raise BadRequestError for a redirect: prompts and keys go to the address in the settings and to no other."""
        if 300 <= response.status < 400:
            target = redirected_to(url, response.headers.get("Location"))
            raise BadRequestError(refused_redirect(target), model=self.model, status=response.status)

    async def _read(self, response: aiohttp.ClientResponse, heard: PieceCallback | None) -> LMReply:
        status, headers = response.status, response.headers
        request_id = redact(headers.get("x-request-id", "")) or None
        facts: dict[str, Any] = {"model": self.model, "status": status, "request_id": request_id}
        if status < 400 and heard is not None and response.content_type == "text/event-stream":
            return read_reply(await _streamed(response, heard, facts), self.model, facts)
        chunks = response.content.iter_any()
        if status >= 400:
            raw = await sse.read_start(chunks, sse.MOST_OF_AN_ERROR)
            raise self._refusal(status, headers, _decoded(raw), raw, facts)
        raw = await sse.read_body(chunks, facts)
        body = _decoded(raw)
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
        message = excerpt(said, 400) or "no message"
        kind = kind_of(status, code, message.lower())
        advice = kind.remedy
        if status in (401, 403) and not self.key and not has_login(self.url):
            message += no_key_sent(self.provider, self.url)
            advice = ""  # the message has it
        return kind(message, **facts, retry_after=retry_after(headers), advice=advice)


async def _streamed(response: aiohttp.ClientResponse, heard: PieceCallback, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a reply that comes as server-sent events, its text told to ``heard`` as it comes."""
    pieces = Pieces()
    async with contextlib.aclosing(sse.read_events(response.content.iter_any(), facts)) as events:
        async for name, data in events:
            if data.strip() == b"[DONE]":
                break
            if not name and not data.strip():  # an event without data says nothing; some servers keep a stream alive so
                continue
            piece = _decoded(data)
            if name == b"error" and not (isinstance(piece, Mapping) and piece.get("error")):
                raise ServerError(excerpt(data.decode("utf-8", "replace"), 400), **facts)
            if not isinstance(piece, Mapping):
                raise damaged(data.decode("utf-8", "replace"), facts)
            if text := pieces.add(piece, facts):
                heard(text)
    return pieces.body(facts)


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
