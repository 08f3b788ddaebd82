"""Names of spans, operations and providers in the conventions."""

from __future__ import annotations

__all__ = ["error_class", "model_of", "operation_of", "provider_of", "span_name", "without_surrogates"]

_OPERATIONS = {
    "call": "chat",
    "module": "invoke_agent",
    "search": "invoke_agent",
    "run": "invoke_workflow",
    "tool": "execute_tool",
}
_PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex_ai": "gcp.vertex_ai",
    "vertex_ai_beta": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""litellm's name of a provider → its name in the conventions, where they differ."""
OWN_PROVIDER = "dspynb"
"""The provider of modules that have called no model, and of models without a name."""


def operation_of(kind: str) -> str | None:
    """The operation of a kind of span; None for kinds that the conventions do not have, such as rows and attempts."""
    return _OPERATIONS.get(kind)


def span_name(kind: str, name: str) -> str:
    """The name of a span. ``name``: that of the model, module, tool or run; of other spans, their own."""
    operation = _OPERATIONS.get(kind)
    if operation is None:
        return without_surrogates(name)
    return without_surrogates(f"{operation} {name}")


def provider_of(model: str) -> str:
    """The provider in the name of a model, as the conventions call it."""
    provider = model.partition("/")[0] or OWN_PROVIDER
    return _PROVIDERS.get(provider, provider)


def model_of(model: str) -> str:
    """The name of a model without its provider."""
    return model.partition("/")[2] or model


def error_class(error: str) -> str:
    """The class of an error, which events have as ``Class: text``. The text is content: a model may have written it."""
    name = error.partition(":")[0]
    if name.isidentifier():
        return name
    return "_OTHER"


def without_surrogates(text: str) -> str:
    """The text with lone surrogates replaced, since they cannot be sent."""
    return text.encode("utf-8", "replace").decode()
