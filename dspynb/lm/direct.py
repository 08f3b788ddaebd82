"""The direct engine: OpenAI-compatible servers over aiohttp, one pooled session an event loop."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from dspynb.data import Usage
from dspynb.errors import (
    AuthenticationError,
    BadRequestError,
    ConnectionFailed,
    ContentFiltered,
    ContextTooLong,
    MalformedReply,
    ModelError,
    ModelTimeout,
    RateLimited,
    ServerError,
    shorten,
)
from dspynb.lm.base import LMReply, LMRequest
from dspynb.lm.endpoint import Endpoint
from dspynb.lm.prices import cost

if TYPE_CHECKING:
    import aiohttp

__all__ = ["DirectEngine", "request_body"]

_sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Any, aiohttp.ClientSession]] = WeakKeyDictionary()


async def _owner() -> AsyncGenerator[aiohttp.ClientSession, None]:
    """Owns a loop's session: asyncio ends its generators, and so closes the session, before the loop closes."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def _session() -> aiohttp.ClientSession:
    loop = asyncio.get_running_loop()
    if loop not in _sessions:
        owner = _owner()
        session = await anext(owner)
        if loop in _sessions:  # another call came first
            await owner.aclose()
        else:
            _sessions[loop] = owner, session
    return _sessions[loop][1]


class DirectEngine:
    """One request to one server, with the errors of our tree. Retries and limits are the LM's."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self.model = endpoint, endpoint.model
        self.provider, self.remote = endpoint.model.split("/", 1)

    @property
    def url(self) -> str:
        """Where chat completions are asked for."""
        base = self.endpoint.api_base or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        return f"{base.rstrip('/')}/chat/completions"

    @property
    def key(self) -> str | None:
        """The key in use now: given, or the provider's in the environment."""
        return self.endpoint.api_key or os.environ.get(f"{self.provider.upper()}_API_KEY")

    async def complete(self, request: LMRequest, settings: Mapping[str, Any]) -> LMReply:
        """One reply. Raises a ModelError; a cancellation passes through and closes the connection."""
        import aiohttp

        session = await _session()
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        timeout = aiohttp.ClientTimeout(total=self.endpoint.timeout)
        body = json.dumps(request_body(self.remote, request, settings)).encode()
        headers["Content-Type"] = "application/json"
        try:
            async with session.post(self.url, data=body, headers=headers, timeout=timeout) as response:
                raw = await response.read()
                return self._reply(response.status, response.headers, raw)
        except TimeoutError:
            raise ModelTimeout(f"no reply within {self.endpoint.timeout:g} s", model=self.model) from None
        except (aiohttp.ClientError, OSError) as error:
            said = self.endpoint.redact(f"{type(error).__name__}: {error}")
            raise ConnectionFailed(shorten(said), model=self.model) from None

    def _reply(self, status: int, headers: Mapping[str, str], raw: bytes) -> LMReply:
        body = _decoded(raw)
        facts: dict[str, Any] = {"model": self.model, "status": status, "request_id": headers.get("x-request-id")}
        if status >= 400:
            raise self._refusal(status, headers, body, raw, facts)
        try:
            choice = body["choices"][0]
            message = choice["message"]
        except (KeyError, IndexError, TypeError):
            said = shorten(self.endpoint.redact(raw.decode("utf-8", "replace")), 200)
            raise MalformedReply(f"the reply has no choices: {said!r}", **facts) from None
        text = message.get("content") or ""
        calls = tuple(message.get("tool_calls") or ())
        if choice.get("finish_reason") == "content_filter" and not text:
            raise ContentFiltered("the content filter stopped the reply", **facts)
        if not text and not calls:
            raise MalformedReply("the reply is empty", **facts)
        usage = _usage(body.get("usage") or {})
        priced = Usage(**{**_fields(usage), "usd": cost(self.model, usage)})
        return LMReply(
            text,
            calls,
            priced,
            body,
            finish=choice.get("finish_reason"),
            reasoning=message.get("reasoning_content") or message.get("reasoning"),
            completions=tuple((c.get("message") or {}).get("content") or "" for c in body["choices"]),
        )

    def _refusal(
        self, status: int, headers: Mapping[str, str], body: Any, raw: bytes, facts: dict[str, Any]
    ) -> ModelError:
        detail = body.get("error", body) if isinstance(body, Mapping) else raw.decode("utf-8", "replace")
        code = str(detail.get("code") or detail.get("type") or "") if isinstance(detail, Mapping) else ""
        said = detail.get("message", detail) if isinstance(detail, Mapping) else detail
        # Redacted first: cut in its middle, a key would no longer be known as one.
        message = shorten(self.endpoint.redact(str(said)), 400) or "no message"
        kind = _kind(status, code, message.lower())
        return kind(message, **facts, retry_after=_retry_after(headers))


def _kind(status: int, code: str, message: str) -> type[ModelError]:
    if status in (401, 403):
        return AuthenticationError
    if status == 413 or code == "context_length_exceeded" or "context length" in message or "context size" in message:
        return ContextTooLong
    if "content_filter" in code or "content_policy" in code:
        return ContentFiltered
    if status == 429:
        # A quota that is used up does not come back by waiting.
        return AuthenticationError if code == "insufficient_quota" else RateLimited
    if status in (408, 504):
        return ModelTimeout
    return ServerError if status >= 500 else BadRequestError


def _retry_after(headers: Mapping[str, str]) -> float | None:
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    return None


def _decoded(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _fields(usage: Usage) -> dict[str, Any]:
    return {name: getattr(usage, name) for name in usage.__slots__}


def _usage(used: Mapping[str, Any]) -> Usage:
    prompt, completion = used.get("prompt_tokens_details") or {}, used.get("completion_tokens_details") or {}
    return Usage(
        calls=1,
        prompt_tokens=used.get("prompt_tokens") or 0,
        completion_tokens=used.get("completion_tokens") or 0,
        cached_tokens=prompt.get("cached_tokens") or 0,
        reasoning_tokens=completion.get("reasoning_tokens") or 0,
    )


def request_body(remote: str, request: LMRequest, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON body of a chat completion; the rollout is not in it."""
    body: dict[str, Any] = {"model": remote, "messages": [dict(m) for m in request.messages], **settings}
    if request.tools:
        body["tools"] = [dict(t) for t in request.tools]
    if request.response_format is not None:
        schema = {"name": "reply", "schema": dict(request.response_format)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body
