"""The litellm engine: every provider it knows. litellm is imported on the first call, off the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from dspynb.data import Usage
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
    shorten,
)
from dspynb.lm.base import LMReply, LMRequest
from dspynb.lm.direct import request_body
from dspynb.lm.endpoint import Endpoint
from dspynb.lm.prices import cost

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

    async def complete(self, request: LMRequest, settings: Mapping[str, Any]) -> LMReply:
        """One reply. Raises a ModelError; ConfigurationError where litellm is not installed."""
        litellm = await asyncio.to_thread(_litellm)
        given = {"api_base": self.endpoint.api_base, "api_key": self.endpoint.api_key}
        arguments = {
            **request_body(self.model, request, settings),
            **{name: value for name, value in given.items() if value is not None},
            "timeout": self.endpoint.timeout,
            "num_retries": 0,  # the LM retries, and counts
        }
        try:
            response = await litellm.acompletion(**arguments)
        except Exception as error:
            raise self._told(error) from None
        return self._reply(response)

    def _told(self, error: Exception) -> ModelError:
        names = [cls.__name__ for cls in type(error).__mro__]
        kind = next((_KINDS[name] for name in names if name in _KINDS), ModelError)
        message = shorten(self.endpoint.redact(f"{type(error).__name__}: {error}"), 400)
        return kind(message, model=self.model, status=getattr(error, "status_code", None))

    def _reply(self, response: Any) -> LMReply:
        choice = response.choices[0]
        used = getattr(response, "usage", None)
        details = getattr(used, "prompt_tokens_details", None)
        usage = Usage(
            calls=1,
            prompt_tokens=getattr(used, "prompt_tokens", 0) or 0,
            completion_tokens=getattr(used, "completion_tokens", 0) or 0,
            cached_tokens=getattr(details, "cached_tokens", 0) or 0,
        )
        calls = tuple(c.model_dump() for c in choice.message.tool_calls or ())
        priced = Usage(
            1, usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usd=cost(self.model, usage)
        )
        reasoning = getattr(choice.message, "reasoning_content", None)
        return LMReply(
            choice.message.content or "", calls, priced, response, finish=choice.finish_reason, reasoning=reasoning
        )


def _litellm() -> Any:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no look-up on the network at import
    try:
        import litellm
    except ImportError as error:
        raise ConfigurationError(f"{_MISSING} ({error})") from error
    litellm.suppress_debug_info = True
    return litellm
