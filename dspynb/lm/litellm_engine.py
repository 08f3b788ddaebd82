"""The litellm engine: every provider it knows. litellm is imported on the first call, off the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
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
from dspynb.lm.base import Heard, LMReply, LMRequest
from dspynb.lm.endpoint import Endpoint
from dspynb.lm.openai_format import Pieces, kind_of, read_reply, request_body, retry_after
from dspynb.redact import redact, told

__all__ = ["LiteLLMEngine"]

_MISSING = 'providers are reached through litellm: pip install "dspynb[providers]"'
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

    async def complete(self, request: LMRequest, settings: Mapping[str, Any], heard: Heard | None = None) -> LMReply:
        """One reply; with ``heard``, its text also piece by piece. Raises a ModelError; ConfigurationError where
        litellm is not installed."""
        litellm = await asyncio.to_thread(_litellm)
        given = {"api_base": self.endpoint.api_base, "api_key": self.endpoint.api_key}
        arguments = {
            **request_body(self.model, request, settings),
            **{name: value for name, value in given.items() if value is not None},
            "timeout": self.endpoint.timeout,
            "num_retries": 0,  # the LM retries, and counts
            "max_retries": 0,
        }
        if heard is not None:
            arguments |= {"stream": True, "stream_options": {"include_usage": True}}
        facts = {"model": self.model}
        try:
            response = await litellm.acompletion(**arguments)
            body = response.model_dump() if heard is None else await _streamed(response, heard, facts)
        except ModelError:
            raise
        except Exception as error:
            raise self._told(error) from None
        return read_reply(body, self.model, facts)

    def _told(self, error: Exception) -> ModelError:
        names = [cls.__name__ for cls in type(error).__mro__]
        kind = next((_KINDS[name] for name in names if name in _KINDS), ModelError)
        if kind is BadRequestError:  # litellm does not know every way to say that a request is too long
            kind = kind_of(400, str(getattr(error, "code", "")), str(error).lower())
        headers = getattr(error, "litellm_response_headers", None) or {}
        return kind(
            told(error, 400),
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
    return litellm
