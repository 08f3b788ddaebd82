"""The wire format of a model: OpenAI's, which a direct client speaks, or the provider's own, through litellm."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from dspynb.lm.providers.addresses import base_in_environment, provider_of_host
from dspynb.lm.providers.model_names import parse_name

__all__ = [
    "OPENAI_CHAT",
    "OPENAI_RESPONSES",
    "OWN_FORMAT",
    "WIRE_FORMATS",
    "WireFormat",
    "format_of",
    "is_at_openai",
    "is_direct",
]

WireFormat = Literal["openai_chat", "openai_responses", "litellm"]
OPENAI_CHAT: WireFormat = "openai_chat"
"""OpenAI's chat completions."""
OPENAI_RESPONSES: WireFormat = "openai_responses"
"""OpenAI's Responses API. Models that have only this one are called through litellm."""
OWN_FORMAT: WireFormat = "litellm"
"""The provider's own format and path, through litellm."""
WIRE_FORMATS: tuple[WireFormat, ...] = (OPENAI_CHAT, OPENAI_RESPONSES, OWN_FORMAT)

_WITH_OWN_FORMAT = frozenset(
    {"a2a", "anthropic", "anthropic_text", "azure", "azure_ai", "azure_text", "bedrock", "bigmodel"}
    | {"bytez", "codestral", "cohere", "cohere_chat", "databricks_agent", "datarobot", "fal_ai", "gdc"}
    | {"gemini", "gigachat", "gradient_ai", "langflow", "langgraph", "mistral", "nlp_cloud", "oci"}
    | {"ollama", "ollama_chat", "petals", "predibase", "ragflow", "replicate", "sagemaker", "sagemaker_chat"}
    | {"sagemaker_nova", "sap", "snowflake", "text-completion-codestral", "text-completion-inception"}
    | {"text-completion-openai", "triton", "vertex_ai", "vertex_ai_beta", "watsonx", "watsonx_text"}
)
"""Providers whose requests have another path, other fields or another header for the key than OpenAI's.

From the requests that litellm sends for each of its providers. Mistral and Codestral have OpenAI's path, and other
names and values of fields (``random_seed``, the tool choice ``any``), of which they refuse OpenAI's.
"""
_OPENAI_PATHS = re.compile(r"/chat/completions|/openai/v1|/openai|/compatibility/v1|/endpoints/openapi")
"""Ends of paths at which providers with a format of their own speak OpenAI's: such as those of Gemini and Cohere."""
_MORE_OPENAI_PATHS = {
    "azure": re.compile(r"/openai/v1"),
    "azure_ai": re.compile(r"/openai/v1"),
    "ollama": re.compile(rf"/v1|{_OPENAI_PATHS.pattern}"),
    "ollama_chat": re.compile(rf"/v1|{_OPENAI_PATHS.pattern}"),
}
"""The same for single providers, in place of ``_OPENAI_PATHS``."""


def format_of(model: str, api_base: str | None) -> WireFormat:
    """The wire format of ``provider/model``, from its provider and its address, without litellm's map.

    Without an address, only OpenAI's models are called directly: litellm knows the addresses of all other providers.
    """
    if api_base is None:
        return OPENAI_CHAT if model.startswith("openai/") else OWN_FORMAT
    provider = parse_name(model, has_address=True).provider
    if provider not in _WITH_OWN_FORMAT or _is_openai_path(provider, api_base):
        return OPENAI_CHAT
    return OWN_FORMAT


def is_direct(wire_format: WireFormat | None) -> bool:
    """Whether a model with this wire format is called directly, and not through litellm."""
    return wire_format == OPENAI_CHAT


def _is_openai_path(provider: str, api_base: str) -> bool:
    """Whether the provider speaks OpenAI's format at this address."""
    try:
        path = urlsplit(api_base.strip()).path.rstrip("/")
    except ValueError:  # an invalid address, which is an error later
        return False
    ends = _MORE_OPENAI_PATHS.get(provider, _OPENAI_PATHS)
    return re.search(f"(?:{ends.pattern})$", path) is not None


def is_at_openai(model: str, api_base: str | None) -> bool:
    """Whether ``openai/…`` is called at a host of OpenAI, and not at a server that is compatible with it."""
    base = api_base or base_in_environment("openai")
    return model.startswith("openai/") and (base is None or provider_of_host(base) == "openai")
