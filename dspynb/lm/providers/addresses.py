"""Which address a request goes to, and whether a key of the environment may go there."""

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
    "foreign_credentials",
    "has_login",
    "is_own_host",
    "key_in_environment",
    "key_name",
    "no_key_sent",
    "redirected_to",
    "refused_redirect",
]

_SUFFIX = "/chat/completions"
_PORTS = {"http": 80, "https": 443}
# The hosts of providers that speak OpenAI's chat format, by the name that a model's name begins with (from litellm's
# get_llm_provider_logic). A key in the environment goes to these, and to the hosts that the environment names.
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
# Hosts with the region in their names. Other hosts under amazonaws.com are those of anybody.
_REGIONAL = {
    "bedrock": re.compile(
        r"(vpce-[a-z0-9-]+\.)?bedrock(-agent)?-runtime(-fips)?\.[a-z]{2}(-[a-z]+)+-\d(\.vpce)?\.amazonaws\.com(\.cn)?"
        r"|bedrock-mantle\.[a-z]{2}(-[a-z]+)+-\d\.api\.aws"
    ),
    "sagemaker": re.compile(r"runtime\.sagemaker(-fips)?\.[a-z]{2}(-[a-z]+)+-\d\.amazonaws\.com(\.cn)?"),
    "vertex_ai": re.compile(r"[a-z0-9-]+-aiplatform(\.[a-z0-9-]+\.rep)?\.googleapis\.com"),
}
_REGIONAL["sagemaker_chat"] = _REGIONAL["sagemaker"]
_KEYS = {"bedrock": "AWS_BEARER_TOKEN_BEDROCK"}
_FURTHER = {"bedrock": ("AWS_BEDROCK_RUNTIME_ENDPOINT",), "vertex_ai": ("VERTEXAI_API_BASE", "VERTEX_API_BASE")}
"""Further variables that name a provider's address, which litellm reads."""


def _prefix(provider: str) -> str:
    return provider.upper().replace("-", "_")


def key_name(provider: str) -> str:
    """The environment variable that holds a provider's key."""
    return _KEYS.get(provider) or f"{_prefix(provider)}_API_KEY"


def key_in_environment(provider: str) -> str | None:
    """A provider's key in the environment now."""
    return (os.environ.get(key_name(provider)) or "").strip() or None


def base_in_environment(provider: str) -> str | None:
    """A provider's address in the environment: ``*_BASE_URL``, then ``*_API_BASE``."""
    prefix = _prefix(provider)
    return os.environ.get(f"{prefix}_BASE_URL") or os.environ.get(f"{prefix}_API_BASE") or None


def check_base(base: object) -> None:
    """Raise ConfigurationError for what is no ``http://`` or ``https://`` address."""
    if not isinstance(base, str):
        raise ConfigurationError(f"api_base must be an address as text, got {type(base).__name__}")
    parts = _split(base)
    if parts is None or parts.scheme not in _PORTS or not parts.hostname:
        shown = shorten(redact(base), 100)
        raise ConfigurationError(f"api_base must be an address such as 'http://127.0.0.1:8000/v1', got {shown!r}")


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url.strip())
        parts.port  # noqa: B018  # raises for what is no port
        (parts.hostname or "").encode("idna")  # raises for what is no name of a host
    except ValueError:  # a UnicodeError is one
        return None
    return parts


@lru_cache(maxsize=256)
def chat_url(base: str) -> str:
    """Where chat completions are asked for at an address. A slash at its end, or the whole path, makes no
    difference; a query stays behind the path."""
    parts = urlsplit(base.strip())
    path = parts.path.rstrip("/").removesuffix(_SUFFIX)
    return parts._replace(path=path + _SUFFIX, fragment="").geturl()


def has_login(url: str) -> bool:
    """Whether an address has a user name in it, which is sent as the Authorization header."""
    parts = _split(url)
    return parts is not None and parts.username is not None


def _shown(url: str) -> str:
    """Scheme, host and port of an address for an error, without its path or a password: ``https://api.openai.com``."""
    where = _origin(url)
    return "an address that cannot be read" if where is None else shorten(redact(where), 200)


def _origin(url: str) -> str | None:
    parts = _split(url)
    if parts is None or not parts.hostname:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname.lower().rstrip(".")
    port = "" if parts.port in (None, _PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def is_own_host(provider: str, url: str) -> bool:
    """Whether an address is the provider's own, or of the host that the environment names for it.

    Scheme, host and port are compared; of the provider's own, only ``https`` on its usual port counts.
    """
    where = _origin(url)
    if where is None:
        return False
    if where in map(_origin, _bases(provider)):
        return True
    host = where.removeprefix("https://")
    if host == where:
        return False
    if provider in _REGIONAL and _REGIONAL[provider].fullmatch(host):
        return True
    return any(host == name or host.endswith(f".{name}") for name in _HOSTS.get(provider, "").split())


def _bases(provider: str) -> list[str]:
    prefix = _prefix(provider)
    names = (f"{prefix}_BASE_URL", f"{prefix}_API_BASE", *_FURTHER.get(provider, ()))
    return [base for name in names if (base := os.environ.get(name))]


def redirected_to(url: str, location: str | None) -> str:
    """Where an answer of ``url`` sends a client: the other host, or another path of the same one."""
    if not location:
        return "another address, which it does not name"
    try:
        target = urljoin(url, location)
    except ValueError:
        return "an address that cannot be read"
    same = _origin(target) == _origin(url)
    return f"another path of {_shown(target)}" if same else _shown(target)


def refused_redirect(target: str) -> str:
    """What to say of an answer that sends a client elsewhere."""
    return (
        f"the server redirects to {target}, and redirects are not followed. If that is the right address, give it as "
        "api_base"
    )


def no_key_sent(provider: str, url: str) -> str:
    """What to say of a request that was refused for want of a key: why none was sent, and what to do."""
    name, process = key_name(provider), "in the environment of the process that makes the call"
    if is_own_host(provider, url):
        return f"; no key was sent: set {name} {process}"
    base = f"{_prefix(provider)}_API_BASE"
    reason = f", since {_shown(url)} is not the provider's own host" if key_in_environment(provider) else ""
    return f"; no key was sent{reason}: pass api_key=, or set {name}, and {base} to this address, {process}"


def foreign_credentials(model: str, provider: str, url: str, settings: Sequence[str]) -> str:
    """What to say of a request that would take credentials of the environment to another host than the provider's."""
    named = "".join(f"{setting}=…, or " for setting in settings[:1])
    return (
        f"{model}: credentials of the environment are not sent to {_shown(url)}, which is not the provider's own host: "
        f"pass {named}set {_prefix(provider)}_API_BASE to this address in the environment of the process that makes "
        "the call"
    )
