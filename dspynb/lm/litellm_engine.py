"""The litellm engine: every provider it knows. litellm is imported on the first call, off the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import wraps
from typing import Any

from dspynb.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConnectionFailed,
    ContentFiltered,
    ContextTooLong,
    ModelError,
    ModelTimeout,
    RateLimited,
    ServerError,
)
from dspynb.lm.addresses import is_own_host, no_key_sent, redirected_to, refused_redirect
from dspynb.lm.base import Heard, LMReply, LMRequest
from dspynb.lm.endpoint import Endpoint
from dspynb.lm.openai_format import Pieces, kind_of, read_reply, request_body, retry_after
from dspynb.redact import redact, told

__all__ = ["LiteLLMEngine"]

_MISSING = 'providers are reached through litellm: pip install "dspynb[providers]"'
_NO_KEY = "no-key"
"""Given to litellm as the key where no key of the environment may be sent: without one it would look for one there."""
_redirects: ContextVar[list[str] | None] = ContextVar("redirects of the call", default=None)
"""Where servers sent the call of litellm that is under way; None outside of our calls."""
_UNMERGED = ("anthropic/", "bedrock/")
"""Providers for which litellm sends extra_body as a field of that name, and unknown arguments as fields."""
_SIGNED = {"bedrock": "AWS_BEARER_TOKEN_BEDROCK", "sagemaker": "", "sagemaker_chat": "", "vertex_ai": ""}
"""Providers whose requests are signed by litellm and carry no key, and the variable that changes that."""
_KINDS: Mapping[str, type[ModelError]] = {
    "ContextWindowExceededError": ContextTooLong,
    "ContentPolicyViolationError": ContentFiltered,
    "AuthenticationError": AuthenticationError,
    "PermissionDeniedError": AuthenticationError,
    "RateLimitError": RateLimited,
    "Timeout": ModelTimeout,
    "APIConnectionError": ConnectionFailed,
    "ServiceUnavailableError": ServerError,
    "InternalServerError": ServerError,
    "BadGatewayError": ServerError,
    "BadRequestError": BadRequestError,
    "NotFoundError": BadRequestError,
    "UnprocessableEntityError": BadRequestError,
}


class LiteLLMEngine:
    """One request through litellm, with the errors of our tree."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self.model = endpoint, endpoint.model

    @property
    def key(self) -> str | None:
        """The key to give to litellm; None where it may take the provider's from the environment."""
        base, provider = self.endpoint.api_base, self.model.partition("/")[0]
        if self.endpoint.api_key or base is None or is_own_host(provider, base):
            return self.endpoint.api_key
        if provider in _SIGNED and not os.environ.get(_SIGNED[provider]):
            return None
        return _NO_KEY

    async def complete(self, request: LMRequest, settings: Mapping[str, Any], heard: Heard | None = None) -> LMReply:
        """One reply; with ``heard``, its text also piece by piece. Raises a ModelError; ConfigurationError where
        litellm is not installed."""
        litellm = await asyncio.to_thread(_litellm)
        given = {"api_base": self.endpoint.api_base, "api_key": self.key}
        body = request_body(self.model, request, settings)
        if self.model.startswith(_UNMERGED):
            body |= body.pop("extra_body", None) or {}
        arguments = {
            **body,
            **{name: value for name, value in given.items() if value is not None},
            "timeout": self.endpoint.timeout,
            "num_retries": 0,  # the LM retries, and counts
            "max_retries": 0,
        }
        if heard is not None:
            arguments |= {"stream": True, "stream_options": {"include_usage": True}}
        facts, redirects = {"model": self.model}, list[str]()
        token = _redirects.set(redirects)
        try:
            response = await litellm.acompletion(**arguments)
            reply = response.model_dump() if heard is None else await _streamed(response, heard, facts)
        except ModelError:
            raise
        except Exception as error:
            raise self._told(error, redirects) from None
        finally:
            _redirects.reset(token)
        return read_reply(reply, self.model, facts)

    def _told(self, error: Exception, redirects: list[str]) -> ModelError:
        if redirects:
            return BadRequestError(refused_redirect(redirects[0]), model=self.model)
        names = [cls.__name__ for cls in type(error).__mro__]
        kind = next((_KINDS[name] for name in names if name in _KINDS), ModelError)
        if kind is BadRequestError:  # litellm does not know every way to say that a request is too long
            kind = kind_of(400, str(getattr(error, "code", "")), str(error).lower())
        headers = getattr(error, "litellm_response_headers", None) or {}
        said = told(error, 400)
        if kind is AuthenticationError and self.key == _NO_KEY:
            said += no_key_sent(self.model.partition("/")[0], self.endpoint.api_base or "")
        return kind(
            said,
            model=self.model,
            status=getattr(error, "status_code", None),
            request_id=redact(headers.get("x-request-id") or "") or None,
            retry_after=retry_after(headers),
        )


async def _streamed(response: Any, heard: Heard, facts: Mapping[str, Any]) -> dict[str, Any]:
    pieces = Pieces()
    async for piece in response:
        if text := pieces.add(piece.model_dump(), facts):
            heard(text)
    return pieces.body(facts)


def _litellm() -> Any:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no look-up on the network at import
    try:
        import litellm
    except ImportError as error:
        raise ConfigurationError(f"{_MISSING} ({error})") from error
    litellm.suppress_debug_info = True
    _refuse_redirects()
    return litellm


def _refuse_redirects() -> None:
    """Make the HTTP clients of litellm follow no redirect within our calls. litellm has no setting for it, makes its
    clients itself, and would send prompts, and the keys in headers of some providers, to the other address."""
    import httpx

    for client in (httpx.AsyncClient, httpx.Client):
        if not hasattr(client.send, "refuses_redirects"):
            refusing = _awaited_send(client.send) if client is httpx.AsyncClient else _plain_send(client.send)
            setattr(refusing, "refuses_redirects", True)  # noqa: B010  # mypy takes no other assignment
            setattr(client, "send", refusing)  # noqa: B010


def _awaited_send(send: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(send)
    async def sent(*args: Any, **keywords: Any) -> Any:
        redirects = _redirects.get()
        if redirects is None:
            return await send(*args, **keywords)
        return _noted(await send(*args, **keywords | {"follow_redirects": False}), redirects)

    return sent


def _plain_send(send: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(send)
    def sent(*args: Any, **keywords: Any) -> Any:
        redirects = _redirects.get()
        if redirects is None:
            return send(*args, **keywords)
        return _noted(send(*args, **keywords | {"follow_redirects": False}), redirects)

    return sent


def _noted(response: Any, redirects: list[str]) -> Any:
    if response.is_redirect:
        redirects.append(redirected_to(str(response.request.url), response.headers.get("location")))
    return response
