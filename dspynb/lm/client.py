"""LM: a provider's model by name, through litellm, which is imported on the first call and not before."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any

from dspynb.data import Usage
from dspynb.errors import ConfigurationError, ModelError
from dspynb.lm.base import LMReply, LMRequest

__all__ = ["LM"]


class LM:
    """A model of a provider: ``LM("openai/gpt-5-mini")``. Keys come from ``api_key`` or the provider's environment
    variable. ``timeout`` is in seconds, ``retries`` counts tries after the first. Other settings (``temperature``,
    ``max_tokens``, …) are sent with every request, unless a call overrides them.
    """

    adapter: str | None = None
    constrains = True

    def __init__(
        self,
        model: str,
        *,
        api_base: str | None = None,
        api_key: str | None = None,
        timeout: float = 120.0,
        retries: int = 2,
        **settings: Any,
    ) -> None:
        if not isinstance(model, str) or "/" not in model or not all(model.split("/", 1)):
            raise ConfigurationError(f"a model is named 'provider/model', as in 'openai/gpt-5-mini'; got {model!r}")
        self.name = model
        self.api_base, self._api_key = api_base, api_key
        self.timeout, self.retries, self.settings = timeout, retries, dict(settings)

    async def complete(self, request: LMRequest) -> LMReply:
        """The provider's reply. Raises ModelError naming the model; never shows the key."""
        started = time.perf_counter()
        litellm = await asyncio.to_thread(_litellm)
        try:
            response = await litellm.acompletion(**self._arguments(request))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            raise ModelError(f"{self.name}: {type(error).__name__}: {self._redact(str(error))}") from None
        return _reply(litellm, response, time.perf_counter() - started)

    def _arguments(self, request: LMRequest) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": self.name,
            "messages": [dict(m) for m in request.messages],
            "timeout": self.timeout,
            "num_retries": self.retries,
            **self.settings,
            **request.settings,
        }
        if self.api_base is not None:
            arguments["api_base"] = self.api_base
        if self._api_key is not None:
            arguments["api_key"] = self._api_key
        if request.tools:
            arguments["tools"] = [dict(t) for t in request.tools]
        if request.response_format is not None:
            schema = {"name": "reply", "schema": dict(request.response_format)}
            arguments["response_format"] = {"type": "json_schema", "json_schema": schema}
        return arguments

    def _redact(self, text: str) -> str:
        secrets = [self._api_key, *(v for k, v in os.environ.items() if k.endswith(("_API_KEY", "_TOKEN", "_SECRET")))]
        for secret in secrets:
            if secret and len(secret) >= 6:
                text = text.replace(secret, "***")
        return text

    def __getstate__(self) -> dict[str, Any]:
        return {
            **vars(self),
            "_api_key": None,
        }  # a key does not travel; the other side takes its own from the environment

    def __repr__(self) -> str:
        return f"LM({self.name!r})"


_MISSING = 'providers are reached through litellm: pip install "dspynb[providers]"'


def _litellm() -> Any:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no look-up on the network at import
    try:
        import litellm
    except ImportError as error:
        raise ConfigurationError(f"{_MISSING} ({error})") from error
    litellm.suppress_debug_info = True
    return litellm


def _reply(litellm: Any, response: Any, seconds: float) -> LMReply:
    choice = response.choices[0]
    used = getattr(response, "usage", None)
    details = getattr(used, "prompt_tokens_details", None)
    usage = Usage(
        calls=1,
        prompt_tokens=getattr(used, "prompt_tokens", 0) or 0,
        completion_tokens=getattr(used, "completion_tokens", 0) or 0,
        cached_tokens=getattr(details, "cached_tokens", 0) or 0,
        usd=_cost(litellm, response),
        seconds=seconds,
    )
    calls: list[Mapping[str, Any]] = [c.model_dump() for c in choice.message.tool_calls or ()]
    return LMReply(choice.message.content or "", tuple(calls), usage, response, finish=choice.finish_reason)


def _cost(litellm: Any, response: Any) -> float | None:
    try:
        return float(litellm.completion_cost(completion_response=response))
    except Exception:
        return None  # a model without a price: unknown, not zero
