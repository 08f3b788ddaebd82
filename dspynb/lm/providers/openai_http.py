"""The direct engine: OpenAI-compatible servers over aiohttp, with one pooled session per event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pydantic_core

from dspynb.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConnectionFailed,
    ModelError,
    ModelNotFound,
    ModelTimeout,
)
from dspynb.lm.protocol import LONG_TEXT, LMReply, LMRequest, PieceCallback
from dspynb.lm.providers import sse
from dspynb.lm.providers.addresses import (
    base_in_environment,
    check_base,
    describe_redirect,
    has_login,
    key_in_environment,
    no_key_sent,
    refused_redirect,
)
from dspynb.lm.providers.direct_formats import CHAT, FORMATS, DirectFormat, is_without_path, needs_responses
from dspynb.lm.providers.endpoint import Endpoint
from dspynb.lm.providers.engine import Engine, EngineProfile, response_callback
from dspynb.lm.providers.error_kinds import provider_error
from dspynb.lm.providers.error_report import read_report
from dspynb.lm.providers.model_names import not_found_advice, parse_name
from dspynb.lm.providers.openai_format import (
    damaged_chunk,
    excerpt,
    reported_error,
    retry_after,
)
from dspynb.lm.providers.response_ids import request_id
from dspynb.lm.providers.responses_request import OWN_FIELDS
from dspynb.lm.providers.wire_formats import OPENAI_CHAT, WireFormat
from dspynb.lm.settings import refuse_litellm_settings
from dspynb.redact import error_text, is_secret_name

if TYPE_CHECKING:
    import aiohttp

__all__ = ["DirectEngine"]

_sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Any, aiohttp.ClientSession]] = WeakKeyDictionary()


async def _session_owner() -> AsyncGenerator[aiohttp.ClientSession, None]:
    """Open a session, and close it with the event loop: asyncio ends its generators before it closes the loop."""
    import aiohttp

    jar = aiohttp.DummyCookieJar()  # providers need no cookies, and handling them takes time
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=jar) as session:
        yield session


async def _session() -> aiohttp.ClientSession:
    loop = asyncio.get_running_loop()
    entry = _sessions.get(loop)
    if entry is None:
        owner = _session_owner()
        session = await anext(owner)
        if loop in _sessions:  # another call has opened one meanwhile
            await owner.aclose()
        entry = _sessions.setdefault(loop, (owner, session))
    return entry[1]


class DirectEngine(Engine):
    """Sends single requests to an OpenAI-compatible server."""

    def __init__(self, endpoint: Endpoint, wire_format: WireFormat = OPENAI_CHAT) -> None:
        super().__init__(endpoint)
        self.provider, self.remote = parse_name(endpoint.model, has_address=endpoint.api_base is not None)
        self._timeout: aiohttp.ClientTimeout | None = None
        self.format = FORMATS.get(wire_format, CHAT)
        self._left_out: frozenset[str] = frozenset()

    def fit(self, profile: EngineProfile) -> None:
        super().fit(profile)
        if profile.wire_format is not None:
            self.format = FORMATS.get(profile.wire_format, self.format)
        self._left_out = profile.refused & OWN_FIELDS

    def stream_fields(self) -> dict[str, Any]:
        if self.format is CHAT:
            return super().stream_fields()
        return {"stream": True}  # the last event always has the usage

    @property
    def url(self) -> str:
        """The URL of the server's chat completions or responses. Raises ConfigurationError if no address is known."""
        base = self.endpoint.api_base or base_in_environment(self.provider)
        if base is None and self.provider != "openai":
            raise ConfigurationError(
                f"{self.model} is called directly (by engine='direct', or by the wire_format of its profile): give the "
                "address of the server, api_base='https://…/v1'"
            )
        if base is not None and base is not self.endpoint.api_base:
            check_base(base)
        return self.format.url(base or "https://api.openai.com/v1")

    @property
    def key(self) -> str | None:
        """The key that is sent: ``api_key``, or the provider's key in the environment if the server is the provider's
        own. None for no key."""
        return self._key_for(self.url)

    def _key_for(self, url: str) -> str | None:
        if self.endpoint.api_key:
            return self.endpoint.api_key
        key = key_in_environment(self.provider)
        if key and not has_login(url) and self.endpoint.owns(self.provider, url):
            return key
        return None

    async def complete(
        self, request: LMRequest, settings: Mapping[str, Any], on_piece: PieceCallback | None = None
    ) -> LMReply:
        """Send a request and return the reply; see ``Engine``. A cancellation closes the connection."""
        import aiohttp

        session = await _session()
        settings = dict(settings)
        headers = dict(settings.pop("extra_headers", None) or {})
        url = self.url
        message_format = self.format  # a refusal of another call may change it meanwhile
        self.address = url
        key = self._key_for(url)
        if key is None:
            self._check_key(url, headers)
        elif not any(name.lower() == "authorization" for name in headers):
            headers["Authorization"] = f"Bearer {key}"
        refuse_litellm_settings(self.model, settings)
        body = message_format.request_body(self.remote, request, settings, self._left_out)
        if on_piece is not None:
            body |= self.stream_fields()
        if self._timeout is None:
            self._timeout = aiohttp.ClientTimeout(total=self.endpoint.timeout)
        try:
            payload = aiohttp.BytesPayload(_encoded(body), content_type="application/json")
            async with session.post(
                url, data=payload, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                received_id = request_id(response.headers)
                on_response = response_callback.get()
                if on_response is not None:
                    on_response(received_id)
                self._check_redirect(response, url)
                return await self._read(response, message_format, on_piece, received_id)
        except TimeoutError:
            problem = f"no reply within {self.endpoint.timeout:g} s"
            raise ModelTimeout(problem, model=self.model, advice=ModelTimeout.remedy) from None
        except (aiohttp.ClientError, OSError) as error:
            advice = ConnectionFailed.remedy
            raise ConnectionFailed(error_text(error, 300), model=self.model, advice=advice) from None

    def _check_key(self, url: str, headers: Mapping[str, str]) -> None:
        """Raise AuthenticationError for a request without a key to a server that is known to need one."""
        if not self.endpoint.is_key_needed(url) or has_login(url) or any(map(is_secret_name, headers)):
            return
        problem = self.endpoint.missing_key(self.provider, url)
        if problem is not None:
            raise AuthenticationError(problem, model=self.model)

    def _check_redirect(self, response: aiohttp.ClientResponse, url: str) -> None:
        """Raise BadRequestError for a redirect. Prompts and keys are sent only to the address in the settings."""
        if 300 <= response.status < 400:
            target = describe_redirect(url, response.headers.get("Location"))
            raise BadRequestError(refused_redirect(target), model=self.model, status=response.status)

    async def _read(
        self,
        response: aiohttp.ClientResponse,
        message_format: DirectFormat,
        on_piece: PieceCallback | None,
        received_id: str | None,
    ) -> LMReply:
        status = response.status
        headers = response.headers
        error_fields: dict[str, Any] = {"model": self.model, "status": status, "request_id": received_id}
        if status < 400 and on_piece is not None and response.content_type == "text/event-stream":
            body = await _streamed(response, message_format, on_piece, error_fields)
            return message_format.read_reply(body, self.model, error_fields, self.endpoint.prices)
        chunks = response.content.iter_any()
        if status >= 400:
            raw = await sse.read_at_most(chunks, sse.MAX_ERROR_BYTES)
            raise self._response_error(message_format, headers, raw, error_fields)
        raw = await sse.read_body(chunks, error_fields)
        if len(raw) <= LONG_TEXT:
            reply = self._read_body(raw, message_format, error_fields)
        else:
            reply = await asyncio.to_thread(self._read_body, raw, message_format, error_fields)
        if on_piece is not None:
            on_piece(reply.text)
        return reply

    def _read_body(self, raw: bytes, message_format: DirectFormat, error_fields: Mapping[str, Any]) -> LMReply:
        body = _decoded(raw)
        if body is None:
            body = raw.decode("utf-8", "replace")
        return message_format.read_reply(body, self.model, error_fields, self.endpoint.prices)

    def _response_error(
        self, message_format: DirectFormat, headers: Mapping[str, str], raw: bytes, error_fields: dict[str, Any]
    ) -> ModelError:
        """The error for a response with a status of 400 or above."""
        status = error_fields["status"]
        text = raw.decode("utf-8", "replace")
        body = _decoded(raw)
        report = message_format.read_report(read_report(status, text if body is None else body))
        problem = excerpt(report.message or text, 400) or "no message"
        wait = retry_after(headers)
        if wait is None:
            wait = report.retry_after
        error = provider_error(report, problem, **error_fields, retry_after=wait)
        if type(error) is AuthenticationError and not self.key and not has_login(self.url):
            problem += no_key_sent(self.provider, self.url)  # it says what to do
            return AuthenticationError(problem, **error_fields, retry_after=error.retry_after)
        other_format = self._advice_of_other_format(message_format, error)
        if other_format is not None:
            error.advise(other_format)
        elif isinstance(error, ModelNotFound):
            error.advise(not_found_advice(self.model, has_address=self.endpoint.api_base is not None))
        elif status == 404:
            error.advise("check the address, api_base= (it often ends with /v1), and the name of the model")
        return error

    def _advice_of_other_format(self, message_format: DirectFormat, error: ModelError) -> str | None:
        """The advice for a model or server that does not take requests in this format; None for any other error."""
        if message_format is CHAT:
            if not needs_responses(error):
                return None
            return f"use dn.LM({self.model!r}, …, profile={{'wire_format': 'openai_responses'}})"
        if not is_without_path(error):
            return None
        return (
            "check the name of the model and the address, api_base=. If the server has no Responses API, use "
            f"dn.LM({self.model!r}, …, profile={{'wire_format': 'openai_chat'}})"
        )


async def _streamed(
    response: aiohttp.ClientResponse,
    message_format: DirectFormat,
    on_piece: PieceCallback,
    error_fields: Mapping[str, Any],
) -> dict[str, Any]:
    """Read a reply that is streamed as server-sent events, and return it as a response body."""
    assembler = message_format.assembler()
    has_begun = False
    async with contextlib.aclosing(sse.read_events(response.content.iter_any(), error_fields)) as events:
        async for name, data in events:
            if data.strip() == b"[DONE]":
                break
            if not name and not data.strip():  # some servers send empty events to keep the connection alive
                continue
            chunk = _decoded(data)
            if name == b"error" and not (isinstance(chunk, Mapping) and chunk.get("error")):
                raise reported_error(data.decode("utf-8", "replace") if chunk is None else chunk, error_fields)
            if not isinstance(chunk, Mapping):
                raise damaged_chunk(data.decode("utf-8", "replace"), error_fields)
            text = assembler.add(chunk, error_fields)
            if text or (not has_begun and assembler.has_begun):
                has_begun = True
                on_piece(text)
    return assembler.body(error_fields)


def _encoded(body: object) -> bytes:
    try:
        return pydantic_core.to_json(body)
    except ValueError:  # lone surrogates, which only json can escape; or a value that is not JSON
        return json.dumps(body).encode()


def _decoded(raw: bytes) -> Any:
    """The JSON value of a body; None if it is not JSON."""
    try:
        return pydantic_core.from_json(raw)
    except ValueError:  # not JSON, or an extension that only the json module reads
        pass
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
