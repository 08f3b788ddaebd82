"""The litellm engine, for all providers that litellm supports. litellm is imported on the first call, in a thread."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from dspynb.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConnectionFailed,
    ContentFiltered,
    ContextTooLong,
    MalformedReply,
    ModelError,
    ModelNotFound,
    ModelTimeout,
    QuotaExceeded,
    RateLimited,
    ServerError,
    UnsupportedParameter,
)
from dspynb.lm.protocol import LMReply, LMRequest, PieceCallback
from dspynb.lm.providers.addresses import (
    foreign_credentials,
    has_login,
    hosts_of,
    key_in_environment,
    needs_key,
    no_key_sent,
    refused_redirect,
    unset_key,
)
from dspynb.lm.providers.endpoint import Endpoint
from dspynb.lm.providers.engine import Engine, response_callback
from dspynb.lm.providers.error_kinds import error_kind, provider_error
from dspynb.lm.providers.error_report import ErrorReport, read_report
from dspynb.lm.providers.litellm_http import HTTPGuard, current_guard, guard_clients
from dspynb.lm.providers.model_names import not_found_advice, parse_name
from dspynb.lm.providers.openai_format import read_reply, request_body, retry_after
from dspynb.lm.providers.reply_assembler import ReplyAssembler
from dspynb.lm.providers.response_ids import request_id
from dspynb.lm.settings import LITELLM_SETTINGS
from dspynb.redact import error_text, is_secret_name

__all__ = ["LiteLLMEngine"]

_MISSING = "this provider is called through litellm, which is not installed: pip install litellm"
_NO_KEY = "no-key"
"""The key that litellm gets if no key from the environment may be sent. Without a key, litellm would look there."""
_FOLLOWS_REDIRECTS = "aiohttp_openai/"
"""The provider that litellm calls without httpx, so that redirects cannot be prevented."""
_IGNORES_ADDRESS = frozenset({"bytez", "replicate", "sap"})
"""The providers that litellm calls at their own address, whatever address it is given."""
_UNMERGED = ("anthropic/", "bedrock/")
"""Providers for which litellm sends extra_body as a field of this name, and unknown arguments as fields."""
_LOCAL_FILES = ("LITELLM_LOCAL_MODEL_COST_MAP", "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS")
"""Variables that make litellm read the files that are installed with it, which it would download at its import and at
the first call of Anthropic."""
_CREDENTIALS = {
    **dict.fromkeys(("bedrock", "sagemaker", "sagemaker_chat"), ("aws_access_key_id", "aws_profile_name")),
    "vertex_ai": ("vertex_credentials", "vertex_ai_credentials"),
}
"""The providers for which litellm signs requests, or gets a token, with credentials from the environment; and the
settings that pass other credentials."""
_ADDRESS_SETTING = "aws_bedrock_runtime_endpoint"
"""A setting with the address of a server."""
_NO_FIELDS = frozenset(
    {"api_base", "api_key", "api_version", "base_url", "custom_llm_provider", "fallbacks", "headers", "max_retries"}
    | {"mock_response", "model_list", "num_retries", "request_timeout", "timeout"}
)
"""Fields that extra_body may not have for the providers in _UNMERGED: litellm would read them as its own arguments."""
_ERROR_CLASSES: Mapping[str, type[ModelError]] = {
    "UnsupportedParamsError": UnsupportedParameter,
    "ContextWindowExceededError": ContextTooLong,
    "ContentPolicyViolationError": ContentFiltered,
    "AuthenticationError": AuthenticationError,
    "PermissionDeniedError": AuthenticationError,
    "PaymentRequiredError": QuotaExceeded,
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


class LiteLLMEngine(Engine):
    """Sends single requests through litellm."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self.provider = parse_name(endpoint.model, has_address=endpoint.api_base is not None).provider
        if self.model.startswith(_FOLLOWS_REDIRECTS):
            name = self.model.partition("/")[2]
            raise ConfigurationError(
                f"{self.model}: litellm calls this provider with a client that follows redirects; use 'openai/{name}'"
            )

        if endpoint.api_base is not None and self.provider in _IGNORES_ADDRESS:
            raise ConfigurationError(
                f"{self.model}: litellm calls this provider at its own address only. Leave out api_base, or use "
                "engine='direct' for a server that speaks OpenAI's format"
            )

    def _base(self, settings: Mapping[str, Any]) -> str | None:
        return self.endpoint.api_base or settings.get(_ADDRESS_SETTING)

    def _key(self, settings: Mapping[str, Any]) -> str | None:
        """The key to pass to litellm.

        None if litellm may use the provider's key from the environment, or credentials from the settings. Raises
        ConfigurationError if litellm would send credentials from the environment to a foreign host.
        """
        base = self._base(settings)
        provider = self.provider
        api_key = self.endpoint.api_key
        if base is None or self.endpoint.owns(provider, base):
            return api_key
        credential_settings = _CREDENTIALS.get(provider, ())
        has_credentials = any(settings.get(name) for name in credential_settings)
        if provider == "bedrock":  # the only provider of _CREDENTIALS that also takes a key
            if api_key is None and has_credentials and not os.environ.get("AWS_BEARER_TOKEN_BEDROCK"):
                return None
            return api_key or _NO_KEY
        # GIGACHAT_ACCESS_TOKEN takes precedence over a key that is passed.
        token = provider == "gigachat" and os.environ.get("GIGACHAT_ACCESS_TOKEN")
        if provider not in _CREDENTIALS and not token:
            return api_key or _NO_KEY
        if not has_credentials:
            raise ConfigurationError(foreign_credentials(self.model, provider, base, credential_settings))
        return api_key

    async def complete(
        self, request: LMRequest, settings: Mapping[str, Any], on_piece: PieceCallback | None = None
    ) -> LMReply:
        """Send a request and return the reply; see ``Engine``. Raises ConfigurationError without litellm."""
        key = self._key(settings)
        if key in (None, _NO_KEY) and not _has_credentials(self.provider, settings):
            self._check_key(settings, key)
        litellm = await asyncio.to_thread(_litellm)
        arguments = self._arguments(request, settings, key)
        if on_piece is not None:
            arguments |= self.stream_fields()
        error_fields: dict[str, Any] = {"model": self.model}
        guard = HTTPGuard(response_callback.get())
        token = current_guard.set(guard)
        try:
            response = await litellm.acompletion(**arguments)
            error_fields["request_id"] = guard.names.request_id
            if on_piece is None:
                body = _with_refusals(response.model_dump())
            else:
                body = await _streamed(response, on_piece, error_fields)
        except ModelError:
            raise
        except Exception as error:
            key_problem = ""
            if key == _NO_KEY:
                key_problem = no_key_sent(self.provider, self._base(settings) or "")
            raise self._model_error(error, guard, key_problem) from None
        finally:
            current_guard.reset(token)
            self.address = self._base(settings) or guard.address or self.address
        return read_reply(_as_reported(body, guard), self.model, error_fields, self.endpoint.prices)

    def _check_key(self, settings: Mapping[str, Any], key: str | None) -> None:
        """Raise AuthenticationError for a request without a key to a server that is known to need one.

        ``key``: None if litellm may use a key from the environment.
        """
        base = self._base(settings)
        needed = self.endpoint.needs_key
        if needed is False:
            return
        if base is None:
            problem = unset_key(self.provider, needed=bool(needed))
        elif has_login(base) or (key is None and self._may_have_credentials()):
            return
        else:
            problem = self.endpoint.missing_key(self.provider, base)
        if problem is not None:
            raise AuthenticationError(problem, model=self.model)

    def _may_have_credentials(self) -> bool:
        """Whether litellm may find a key, or credentials of a cloud, in the environment."""
        takes_only_keys = self.endpoint.needs_key or needs_key(self.provider)
        return not takes_only_keys or key_in_environment(self.provider) is not None

    def _arguments(self, request: LMRequest, settings: Mapping[str, Any], key: str | None) -> dict[str, Any]:
        """The arguments of ``litellm.acompletion``."""
        name = self.model if self.provider else f"openai/{self.model}"  # litellm removes the provider
        arguments = request_body(name, request, settings)
        if self.model.startswith(_UNMERGED):
            arguments |= self._checked_fields(arguments.pop("extra_body", None) or {})
        if self.endpoint.api_base is not None:
            arguments["api_base"] = _address_for_litellm(self.provider, self.endpoint.api_base)
        if key is not None:
            arguments["api_key"] = key
        # LM retries, and counts its retries.
        return arguments | {"timeout": self.endpoint.timeout, "num_retries": 0, "max_retries": 0}

    def _checked_fields(self, extra_body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields of extra_body. Raises ConfigurationError for one that litellm would read as its own argument."""
        if not (_NO_FIELDS | LITELLM_SETTINGS).isdisjoint(extra_body):
            name = min((_NO_FIELDS | LITELLM_SETTINGS).intersection(extra_body))
            raise ConfigurationError(
                f"{self.model}: extra_body may not have the field {name!r}, which litellm reads itself and does not "
                "send; if it is a setting, pass it to dn.LM"
            )
        return extra_body

    def _model_error(self, error: Exception, guard: HTTPGuard, key_problem: str) -> ModelError:
        """The error of dspynb for an exception of litellm. ``key_problem``: why no key was sent, if none was."""
        if guard.redirects:
            return BadRequestError(refused_redirect(guard.redirects[0]), model=self.model)
        if guard.exceeded_limit:
            problem = f"the body of the reply is too long: more than {guard.exceeded_limit}"
            return MalformedReply(problem, model=self.model)
        headers = getattr(error, "litellm_response_headers", None) or {}
        problem = error_text(error, 400)
        report = _report(error)
        wait = retry_after(headers)
        if wait is None:
            wait = report.retry_after
        details: dict[str, Any] = {
            "model": self.model,
            "status": getattr(error, "status_code", None),
            "request_id": guard.names.request_id or request_id(headers),
            "retry_after": wait,
        }
        if error_kind(report, _client_kind(error)) is AuthenticationError and key_problem:
            return AuthenticationError(problem + key_problem, **details)  # key_problem says what to do
        model_error = provider_error(report, problem, client_kind=_client_kind(error), **details)
        if isinstance(model_error, ModelNotFound):
            model_error.advise(not_found_advice(self.model, has_address=self.endpoint.api_base is not None))
        return model_error


def _address_for_litellm(provider: str, api_base: str) -> str:
    """An address with the path that litellm expects: without a slash at its end; without the version for Anthropic,
    which litellm would add twice; with the whole path for Cohere, or the version for Gemini, which it would not add."""
    parts = urlsplit(api_base.strip())
    path = parts.path.rstrip("/")
    if provider == "anthropic":
        path = path.removesuffix("/v1")
    elif provider in ("cohere", "cohere_chat") and path in ("", "/v1", "/v2"):
        path = "/v2/chat"
    elif provider == "gemini" and not path and parts.hostname in hosts_of(provider):
        path = "/v1beta"
    return parts._replace(path=path).geturl()


def _has_credentials(provider: str, settings: Mapping[str, Any]) -> bool:
    """Whether a request has credentials from its settings or from litellm's own variables."""
    if any(map(is_secret_name, settings.get("extra_headers") or ())) or not LITELLM_SETTINGS.isdisjoint(settings):
        return True
    litellm = sys.modules.get("litellm")  # without a program that has imported it, its variables have no values
    names = ("api_key", f"{provider}_key", "secret_manager_client")
    return any(getattr(litellm, name, None) for name in names)


def _report(error: Exception) -> ErrorReport:
    """An exception of litellm as an error response."""
    status = getattr(error, "status_code", None)
    fields = {name: getattr(error, name, None) for name in ("code", "type", "param")}
    body = {**fields, "message": str(error), "details": getattr(error, "body", None)}
    return read_report(status if isinstance(status, int) else None, body)


def _client_kind(error: Exception) -> type[ModelError] | None:
    """The class for litellm's class of an exception. None for one that says nothing beyond its status."""
    for base in type(error).__mro__:
        if base.__name__ in _ERROR_CLASSES:
            return _ERROR_CLASSES[base.__name__]
    if isinstance(getattr(error, "status_code", None), int):
        return None
    return ModelError


async def _streamed(response: Any, on_piece: PieceCallback, error_fields: Mapping[str, Any]) -> dict[str, Any]:
    assembler = ReplyAssembler(shares_finish=True)
    has_begun = False
    async for chunk in response:
        text = assembler.add(chunk.model_dump(), error_fields)
        if text or (not has_begun and assembler.has_begun):
            has_begun = True
            on_piece(text)
    return assembler.body(error_fields)


_ID_OF_LITELLM = re.compile(r"chatcmpl-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _as_reported(body: dict[str, Any], guard: HTTPGuard) -> dict[str, Any]:
    """The body with the id, the model and the usage that the provider reports, where litellm has others.

    Its id and model stay for a response in a format that could not be read, except for an id that litellm has made.
    """
    names = guard.names
    usage = body.get("usage") or {}
    if not usage.get("prompt_tokens") and not usage.get("completion_tokens"):
        body = {**body, "usage": None}  # litellm has zeros for a response without usage
    if names.has_read:
        return {**body, "id": names.response_id, "model": names.response_model}
    if _ID_OF_LITELLM.fullmatch(str(body.get("id"))):
        return {**body, "id": None}
    return body


def _with_refusals(body: dict[str, Any]) -> dict[str, Any]:
    """Move the refusal of each message to ``message["refusal"]``. Older releases of litellm have it among the
    provider-specific fields. Returns the body."""
    for choice in body.get("choices") or ():
        message = choice.get("message") or {}
        specific_fields = message.get("provider_specific_fields") or {}
        if not message.get("refusal") and specific_fields.get("refusal"):
            message["refusal"] = specific_fields["refusal"]
    return body


def _litellm() -> Any:
    for name in _LOCAL_FILES:
        os.environ.setdefault(name, "True")
    try:
        import litellm
    except ImportError as error:
        raise ConfigurationError(f"{_MISSING} ({error})") from error
    litellm.suppress_debug_info = True
    guard_clients()
    return litellm
