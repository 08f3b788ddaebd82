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
    MalformedReply,
    ModelError,
    ModelTimeout,
    RateLimited,
    ServerError,
)
from dspynb.lm.protocol import LMReply, LMRequest, PieceCallback
from dspynb.lm.providers.addresses import foreign_credentials, is_own_host, no_key_sent, refused_redirect
from dspynb.lm.providers.endpoint import Endpoint
from dspynb.lm.providers.litellm_http import Watch, watch_clients, watched
from dspynb.lm.providers.openai_format import Pieces, kind_of, read_reply, request_body, retry_after
from dspynb.lm.settings import LITELLM_SETTINGS
from dspynb.redact import error_text, redact

__all__ = ["LiteLLMEngine"]

_MISSING = 'providers are reached through litellm: pip install "dspynb[providers]"'
_NO_KEY = "no-key"
"""Given to litellm as the key where no key of the environment may be sent: without one it would look for one there."""
_FOLLOWING = "aiohttp_openai/"
"""The provider that litellm asks without httpx, so that its client cannot be kept from following redirects."""
_UNMERGED = ("anthropic/", "bedrock/")
"""Providers for which litellm sends extra_body as a field of that name, and unknown arguments as fields."""
_CREDENTIALS = {
    **dict.fromkeys(("bedrock", "sagemaker", "sagemaker_chat"), ("aws_access_key_id", "aws_profile_name")),
    "vertex_ai": ("vertex_credentials", "vertex_ai_credentials"),
}
"""Providers for which litellm takes credentials from the environment and signs requests, or gets a token. With it, the
settings that say which credentials are meant."""
_ADDRESS = "aws_bedrock_runtime_endpoint"
"""A setting that is an address too."""
_NO_FIELDS = frozenset(
    {"api_base", "api_key", "api_version", "base_url", "custom_llm_provider", "fallbacks", "headers", "max_retries"}
    | {"mock_response", "model_list", "num_retries", "request_timeout", "timeout"}
)
"""Names that litellm would read where extra_body is merged here, and not send."""
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
        if self.model.startswith(_FOLLOWING):
            name = self.model.partition("/")[2]
            raise ConfigurationError(
                f"{self.model}: litellm asks this provider with a client that follows redirects; use 'openai/{name}'"
            )

    def _base(self, settings: Mapping[str, Any]) -> str | None:
        return self.endpoint.api_base or settings.get(_ADDRESS)

    def _key(self, settings: Mapping[str, Any]) -> str | None:
        """The key to give to litellm; None where it may take the provider's from the environment, or credentials from
        the settings. Raises ConfigurationError where it would send others than a key from the environment."""
        base, provider = self._base(settings), self.model.partition("/")[0]
        if base is None or is_own_host(provider, base):
            return self.endpoint.api_key
        named = any(settings.get(name) for name in _CREDENTIALS.get(provider, ()))
        if provider == "bedrock":  # the one of them that takes a key
            bearer = os.environ.get("AWS_BEARER_TOKEN_BEDROCK")
            return self.endpoint.api_key or (None if named and not bearer else _NO_KEY)
        token = provider == "gigachat" and os.environ.get("GIGACHAT_ACCESS_TOKEN")  # comes before a key that is passed
        if provider not in _CREDENTIALS and not token:
            return self.endpoint.api_key or _NO_KEY
        if not named:
            raise ConfigurationError(foreign_credentials(self.model, provider, base, _CREDENTIALS.get(provider, ())))
        return self.endpoint.api_key

    async def complete(
        self, request: LMRequest, settings: Mapping[str, Any], heard: PieceCallback | None = None
    ) -> LMReply:
        """One reply; with ``heard``, its text also piece by piece. Raises a ModelError; ConfigurationError where
        litellm is not installed."""
        litellm = await asyncio.to_thread(_litellm)
        key = self._key(settings)
        given = {"api_base": self.endpoint.api_base, "api_key": key}
        body = request_body(self.model, request, settings)
        if self.model.startswith(_UNMERGED):
            body |= self._fields(body.pop("extra_body", None) or {})
        arguments = {
            **body,
            **{name: value for name, value in given.items() if value is not None},
            "timeout": self.endpoint.timeout,
            "num_retries": 0,  # the LM retries, and counts
            "max_retries": 0,
        }
        if heard is not None:
            arguments |= {"stream": True, "stream_options": {"include_usage": True}}
        facts, watch = {"model": self.model}, Watch()
        token = watched.set(watch)
        try:
            response = await litellm.acompletion(**arguments)
            reply = _with_refusals(response.model_dump()) if heard is None else await _streamed(response, heard, facts)
        except ModelError:
            raise
        except Exception as error:
            unsent = no_key_sent(self.model.partition("/")[0], self._base(settings) or "") if key == _NO_KEY else ""
            raise self._told(error, watch, unsent) from None
        finally:
            watched.reset(token)
        return read_reply(reply, self.model, facts)

    def _fields(self, extra: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields of extra_body, for a provider for which they are arguments of litellm."""
        if not (_NO_FIELDS | LITELLM_SETTINGS).isdisjoint(extra):
            name = min((_NO_FIELDS | LITELLM_SETTINGS).intersection(extra))
            raise ConfigurationError(
                f"{self.model}: extra_body may not have the field {name!r}, which litellm reads and does not send: it "
                "is a setting of dn.LM, if anything"
            )
        return extra

    def _told(self, error: Exception, watch: Watch, unsent: str) -> ModelError:
        if watch.redirects:
            return BadRequestError(refused_redirect(watch.redirects[0]), model=self.model)
        if watch.too_long:
            return MalformedReply(f"the body of the reply is too long: more than {watch.too_long}", model=self.model)
        names = [cls.__name__ for cls in type(error).__mro__]
        kind = next((_KINDS[name] for name in names if name in _KINDS), ModelError)
        if kind is BadRequestError:  # litellm does not know every way to say that a request is too long
            kind = kind_of(400, str(getattr(error, "code", "")), str(error).lower())
        headers = getattr(error, "litellm_response_headers", None) or {}
        said = error_text(error, 400)
        advice = kind.remedy
        if kind is AuthenticationError and unsent:
            said += unsent
            advice = ""  # the message has it
        return kind(
            said,
            model=self.model,
            status=getattr(error, "status_code", None),
            request_id=redact(headers.get("x-request-id") or "") or None,
            retry_after=retry_after(headers),
            advice=advice,
        )


async def _streamed(response: Any, heard: PieceCallback, facts: Mapping[str, Any]) -> dict[str, Any]:
    pieces = Pieces()
    async for piece in response:
        if text := pieces.add(piece.model_dump(), facts):
            heard(text)
    return pieces.body(facts)


def _with_refusals(body: dict[str, Any]) -> dict[str, Any]:
    """The body with each message's refusal in its place: older releases of litellm keep it among fields they do not
    know."""
    for choice in body.get("choices") or ():
        message = choice.get("message") or {}
        unknown = message.get("provider_specific_fields") or {}
        if not message.get("refusal") and unknown.get("refusal"):
            message["refusal"] = unknown["refusal"]
    return body


def _litellm() -> Any:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no look-up on the network at import
    try:
        import litellm
    except ImportError as error:
        raise ConfigurationError(f"{_MISSING} ({error})") from error
    litellm.suppress_debug_info = True
    watch_clients()
    return litellm
