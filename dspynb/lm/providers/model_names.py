"""Names of models: the provider in a name, and the name that is sent to a server."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from dspynb.lm.providers.litellm_files import litellm_file

__all__ = ["ModelName", "known_providers", "not_found_advice", "parse_name"]

_FILE = "types/utils.py"
_PROVIDERS = re.compile(r"^class LlmProviders\(.*\):\n((?:[ \t].*\n|\n)+)", re.MULTILINE)
_PROVIDER = re.compile(r'^[ \t]+[A-Z0-9_]+ = "([^"\n]+)"', re.MULTILINE)
_COMMON = frozenset(
    {"anthropic", "azure", "azure_ai", "bedrock", "cerebras", "cohere", "cohere_chat", "custom_openai", "databricks"}
    | {
        "deepinfra",
        "deepseek",
        "fireworks_ai",
        "gemini",
        "github",
        "groq",
        "hosted_vllm",
        "huggingface",
        "litellm_proxy",
    }
    | {"llamafile", "lm_studio", "mistral", "moonshot", "nvidia_nim", "ollama", "ollama_chat", "openai", "openai_like"}
    | {"openrouter", "perplexity", "replicate", "sagemaker", "sambanova", "text-completion-openai", "together_ai"}
    | {"vertex_ai", "vllm", "watsonx", "xai", "xinference", "zai"}
)
"""Providers that are known without litellm."""


class ModelName(NamedTuple):
    """``provider``: the provider, or empty if the name has none. ``sent``: the name that is sent."""

    provider: str
    sent: str


@lru_cache(maxsize=1)
def known_providers() -> frozenset[str]:
    """The names of providers that can stand before the name of a model. They are those of litellm, if it is
    installed."""
    path = litellm_file(_FILE)
    if path is None:
        return _COMMON
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return _COMMON
    block = _PROVIDERS.search(source)
    if block is None:
        return _COMMON
    return _COMMON.union(_PROVIDER.findall(block[1]))


def parse_name(name: str, *, has_address: bool) -> ModelName:
    """Split the name of a model into its provider and the name that is sent.

    Without an address, the first part is the provider. With the address of a server, it is the provider only if it is
    known as one; else the whole name is the server's, as ``Qwen/Qwen3-8B`` is. The provider is removed once:
    ``openai/gpt-oss-20b`` sends ``gpt-oss-20b``, and ``openai/openai/gpt-oss-20b`` sends ``openai/gpt-oss-20b``.
    """
    first, _, rest = name.partition("/")
    if has_address and (not rest or first not in known_providers()):
        return ModelName("", name)
    return ModelName(first, rest)


def not_found_advice(name: str, *, has_address: bool) -> str:
    """The end of the error message for a model that the provider or server does not have: what was sent, and what to
    do."""
    provider, sent = parse_name(name, has_address=has_address)
    if not has_address:
        return f"the name that was sent is {sent!r}: check it. For a server of your own, give its address, api_base="
    listed = "see the names that the server lists (GET …/v1/models)"
    if provider:
        return (
            f"the name that was sent is {sent!r}, without the provider {provider!r}: {listed}. If its name is "
            f"{name!r}, use dn.LM('{provider}/{name}', api_base=…)"
        )
    first, _, rest = sent.partition("/")
    if not first or not rest:
        return f"the name that was sent is {sent!r}: {listed}"
    return (
        f"the name that was sent is {sent!r}, since {first!r} is no known provider: {listed}. If its name is {rest!r}, "
        f"use dn.LM('openai/{rest}', api_base=…)"
    )
