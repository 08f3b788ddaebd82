"""Addresses of providers, and whether a key from the environment may be sent to an address."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import SplitResult, urljoin, urlsplit

from dspynb.errors import ConfigurationError, shorten
from dspynb.redact import redact

__all__ = [
    "base_in_environment",
    "chat_url",
    "check_base",
    "describe_redirect",
    "foreign_credentials",
    "has_login",
    "host_and_port",
    "hosts_of",
    "is_own_host",
    "key_in_environment",
    "key_name",
    "missing_key",
    "needs_key",
    "no_key_sent",
    "provider_of_host",
    "refused_redirect",
    "responses_url",
    "unset_key",
]

_CHAT_PATH = "/chat/completions"
_RESPONSES_PATH = "/responses"
_PROCESS = "in the environment of the process that makes the call"
_PORTS = {"http": 80, "https": 443}
# The hosts of providers, by the first part of a model's name (from litellm's get_llm_provider_logic). A key from the
# environment is sent to these hosts, and to those in the environment.
_HOSTS = {
    "anthropic": "api.anthropic.com",
    "azure": "openai.azure.com cognitiveservices.azure.com services.ai.azure.com",
    "azure_ai": "services.ai.azure.com models.ai.azure.com inference.ai.azure.com",
    "cerebras": "api.cerebras.ai",
    "cohere": "api.cohere.com api.cohere.ai",
    "cohere_chat": "api.cohere.com api.cohere.ai",
    "databricks": "cloud.databricks.com azuredatabricks.net",
    "deepinfra": "api.deepinfra.com",
    "deepseek": "api.deepseek.com",
    "fireworks_ai": "api.fireworks.ai",
    "gemini": "generativelanguage.googleapis.com",
    "groq": "api.groq.com",
    "huggingface": "router.huggingface.co",
    "mistral": "api.mistral.ai",
    "moonshot": "api.moonshot.ai api.moonshot.cn",
    "nvidia_nim": "integrate.api.nvidia.com",
    "openai": "api.openai.com",
    "openrouter": "openrouter.ai",
    "perplexity": "api.perplexity.ai",
    "replicate": "api.replicate.com",
    "sambanova": "api.sambanova.ai",
    "together_ai": "api.together.ai api.together.xyz",
    "vertex_ai": "aiplatform.googleapis.com",
    "xai": "api.x.ai",
}
# Host names that contain the region. Other hosts under amazonaws.com may belong to anybody.
_REGIONAL = {
    "bedrock": re.compile(
        r"(vpce-[a-z0-9-]+\.)?bedrock(-agent)?-runtime(-fips)?\.[a-z]{2}(-[a-z]+)+-\d(\.vpce)?\.amazonaws\.com(\.cn)?"
        r"|bedrock-mantle\.[a-z]{2}(-[a-z]+)+-\d\.api\.aws"
    ),
    "sagemaker": re.compile(r"runtime\.sagemaker(-fips)?\.[a-z]{2}(-[a-z]+)+-\d\.amazonaws\.com(\.cn)?"),
    "vertex_ai": re.compile(r"[a-z0-9-]+-aiplatform(\.[a-z0-9-]+\.rep)?\.googleapis\.com"),
}
_REGIONAL["sagemaker_chat"] = _REGIONAL["sagemaker"]
# Environment variables with keys, where they are not only PROVIDER_API_KEY. The first one is named in messages.
# litellm reads the others as well (its files main.py and llms/*/common_utils.py).
_KEY_NAMES = {
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    "bedrock": ("AWS_BEARER_TOKEN_BEDROCK",),
    "cohere": ("COHERE_API_KEY", "CO_API_KEY"),
    "cohere_chat": ("COHERE_API_KEY", "CO_API_KEY"),
    "fireworks_ai": ("FIREWORKS_AI_API_KEY", "FIREWORKS_API_KEY", "FIREWORKSAI_API_KEY", "FIREWORKS_AI_TOKEN"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "huggingface": ("HUGGINGFACE_API_KEY", "HF_TOKEN"),
    "mistral": ("MISTRAL_API_KEY", "MISTRAL_AZURE_API_KEY"),
    "openrouter": ("OPENROUTER_API_KEY", "OR_API_KEY"),
    "perplexity": ("PERPLEXITY_API_KEY", "PERPLEXITYAI_API_KEY"),
    "replicate": ("REPLICATE_API_KEY", "REPLICATE_API_TOKEN"),
    "together_ai": ("TOGETHER_AI_API_KEY", "TOGETHERAI_API_KEY", "TOGETHER_API_KEY", "TOGETHER_AI_TOKEN"),
}
_OTHER_CREDENTIALS = frozenset(
    {"azure", "azure_ai", "bedrock", "databricks", "sagemaker", "sagemaker_chat", "vertex_ai"}
)
"""Providers that also take credentials other than a key, such as those of a cloud."""
_MORE_ADDRESS_NAMES = {
    "bedrock": ("AWS_BEDROCK_RUNTIME_ENDPOINT",),
    "vertex_ai": ("VERTEXAI_API_BASE", "VERTEX_API_BASE"),
}
"""Further environment variables from which litellm reads a provider's address."""


def _prefix(provider: str) -> str:
    return provider.upper().replace("-", "_")


def key_name(provider: str) -> str:
    """The name of the environment variable with a provider's key."""
    return _key_names(provider)[0]


def _key_names(provider: str) -> tuple[str, ...]:
    return _KEY_NAMES.get(provider) or (f"{_prefix(provider)}_API_KEY",)


def key_in_environment(provider: str) -> str | None:
    """A provider's key in the environment; None if it is unset or blank, or for a name without a provider."""
    if not provider:
        return None
    for name in _key_names(provider):
        key = (os.environ.get(name) or "").strip()
        if key:
            return key
    return None


def base_in_environment(provider: str) -> str | None:
    """A provider's address in the environment: ``*_BASE_URL``, or else ``*_API_BASE``."""
    prefix = _prefix(provider)
    return os.environ.get(f"{prefix}_BASE_URL") or os.environ.get(f"{prefix}_API_BASE") or None


def check_base(base: object) -> None:
    """Raise ConfigurationError unless ``base`` is an ``http://`` or ``https://`` address."""
    if not isinstance(base, str):
        raise ConfigurationError(f"api_base must be an address as text, got {type(base).__name__}")
    parts = _split(base)
    if parts is None or parts.scheme not in _PORTS or not parts.hostname:
        received = shorten(redact(base), 100)
        raise ConfigurationError(f"api_base must be an address such as 'http://127.0.0.1:8000/v1', got {received!r}")


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url.strip())
        parts.port  # noqa: B018  # raises for an invalid port
        (parts.hostname or "").encode("idna")  # raises UnicodeError, a ValueError, for an invalid host name
    except ValueError:
        return None
    return parts


@lru_cache(maxsize=256)
def chat_url(base: str) -> str:
    """The URL of chat completions at an address. The address may end with a slash or with the whole path. Its query is
    preserved."""
    return _with_path(base, _CHAT_PATH)


@lru_cache(maxsize=256)
def responses_url(base: str) -> str:
    """The URL of the Responses API at an address, which may have the same forms."""
    return _with_path(base, _RESPONSES_PATH)


def _with_path(base: str, end: str) -> str:
    parts = urlsplit(base.strip())
    path = parts.path.rstrip("/").removesuffix(_CHAT_PATH).removesuffix(_RESPONSES_PATH)
    return parts._replace(path=path + end, fragment="").geturl()


@lru_cache(maxsize=256)
def host_and_port(address: str | None) -> str | None:
    """The host and port of an address, as in ``api.openai.com:443``, without known secrets. None if it has no host."""
    parts = _split(address or "")
    if parts is None or parts.scheme not in _PORTS or not parts.hostname:
        return None
    host = redact(parts.hostname)
    if ":" in host:
        host = f"[{host}]"
    return f"{host}:{parts.port or _PORTS[parts.scheme]}"


def has_login(url: str) -> bool:
    """Whether an address contains a user name. It is sent in the Authorization header."""
    parts = _split(url)
    return parts is not None and parts.username is not None


def _displayed(url: str) -> str:
    """The origin of an address for an error message, without path and password: ``https://api.openai.com``."""
    origin = _origin(url)
    if origin is None:
        return "an invalid URL"
    return shorten(redact(origin), 200)


def _origin(url: str) -> str | None:
    """Scheme, host and port of an address, without the default port. None for an invalid address."""
    parts = _split(url)
    if parts is None or not parts.hostname:
        return None
    host = parts.hostname.lower().rstrip(".")
    if ":" in parts.hostname:  # IPv6
        host = f"[{parts.hostname}]"
    port = ""
    if parts.port not in (None, _PORTS.get(parts.scheme)):
        port = f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def hosts_of(provider: str) -> tuple[str, ...]:
    """The names of a provider's own hosts, without those that contain a region. Empty if they are unknown."""
    return tuple(_HOSTS.get(provider, "").split())


def needs_key(provider: str) -> bool | None:
    """Whether the provider's own hosts need a key. None if they are unknown, or if they also take credentials of a
    cloud."""
    if provider not in _HOSTS or provider in _OTHER_CREDENTIALS:
        return None
    return True


def is_own_host(provider: str, url: str, hosts: Sequence[str] | None = None) -> bool:
    """Whether an address belongs to the provider, or is the provider's address in the environment.

    Scheme, host and port are compared. The provider's own hosts count only with ``https`` on the default port.
    ``hosts``: replaces the names of the provider's own hosts.
    """
    origin = _origin(url)
    if origin is None or not provider:
        return False
    if origin in map(_origin, _addresses_in_environment(provider)):
        return True
    if hosts is not None:
        return _is_one_of(hosts, origin)
    return _is_host_of(provider, origin)


def _is_host_of(provider: str, origin: str) -> bool:
    if provider in _REGIONAL and _REGIONAL[provider].fullmatch(origin.removeprefix("https://")):
        return origin.startswith("https://")
    return _is_one_of(hosts_of(provider), origin)


def _is_one_of(hosts: Sequence[str], origin: str) -> bool:
    """Whether an origin is one of these hosts or a subdomain of one, with ``https`` on the default port."""
    host = origin.removeprefix("https://")
    if host == origin:
        return False
    return any(host == name or host.endswith(f".{name}") for name in hosts)


@lru_cache(maxsize=256)
def provider_of_host(url: str) -> str | None:
    """The provider to whose own host an address belongs. None for any other server, which may need no key."""
    origin = _origin(url)
    if origin is None:
        return None
    for provider in (*_HOSTS, *_REGIONAL):
        if _is_host_of(provider, origin):
            return provider
    return None


def missing_key(provider: str, url: str, hosts: Sequence[str] | None = None, *, needed: bool = False) -> str | None:
    """The error message for a request without a key to the own host of a provider. None if the server may need no key.

    ``provider``: that of the model's name, or empty. ``hosts``: replaces the names of the provider's own hosts.
    ``needed``: whether any other server needs a key as well.
    """
    owner = provider_of_host(url)
    if owner is None and not needed:
        return None
    start = f"{_displayed(url)} needs a key, and none was found, so nothing was sent: pass api_key="
    if is_own_host(provider, url, hosts):
        return f"{start}, or set {key_name(provider)} {_PROCESS}"
    if owner is None:
        return start
    return f"{start}, or name the model '{owner}/…' and set {key_name(owner)} {_PROCESS}"


def unset_key(provider: str, *, needed: bool = False) -> str | None:
    """The error message for a provider that is called at its own address without a key. None if its variable is set, or
    if it may take other credentials or another address. ``needed``: whether it is known to need a key."""
    if not needed and not needs_key(provider):
        return None
    if key_in_environment(provider) or base_in_environment(provider):
        return None
    return (
        f"{provider} needs a key, and none was found, so nothing was sent: pass api_key=, or set {key_name(provider)} "
        f"{_PROCESS}"
    )


def _addresses_in_environment(provider: str) -> list[str]:
    prefix = _prefix(provider)
    names = (f"{prefix}_BASE_URL", f"{prefix}_API_BASE", *_MORE_ADDRESS_NAMES.get(provider, ()))
    addresses = []
    for name in names:
        address = os.environ.get(name)
        if address:
            addresses.append(address)
    return addresses


def describe_redirect(url: str, location: str | None) -> str:
    """Describe the target of a redirect for an error message. ``location``: the Location header of the response from
    ``url``."""
    if not location:
        return "another URL, which it does not name"
    try:
        target = urljoin(url, location)
    except ValueError:
        return "an invalid URL"
    if _origin(target) == _origin(url):
        return f"another path on {_displayed(target)}"
    return _displayed(target)


def refused_redirect(target: str) -> str:
    """The error message for a redirect."""
    return (
        f"the server redirects to {target}, and redirects are not followed. If that is the right address, give it as "
        "api_base"
    )


def no_key_sent(provider: str, url: str) -> str:
    """The end of the error message for a request without a key: why no key was sent, and what to do."""
    if not provider:
        return "; no key was sent: pass api_key="
    name = key_name(provider)
    if is_own_host(provider, url):
        return f"; no key was sent: set {name} {_PROCESS}"
    base = f"{_prefix(provider)}_API_BASE"
    reason = ""
    if key_in_environment(provider):
        reason = f", since {_displayed(url)} is not the provider's own host"
    return f"; no key was sent{reason}: pass api_key=, or set {name}, and {base} to this address, {_PROCESS}"


def foreign_credentials(model: str, provider: str, url: str, settings: Sequence[str]) -> str:
    """The error message for a request that would send credentials from the environment to a foreign host.

    ``settings``: the settings with which credentials can be passed; the message names the first one.
    """
    alternative = f"{settings[0]}=…, or " if settings else ""
    return (
        f"{model}: credentials from the environment are not sent to {_displayed(url)}, which is not the provider's own "
        f"host: pass {alternative}set {_prefix(provider)}_API_BASE to this address in the environment of the process "
        "that makes the call"
    )
