"""Conversion of a dspy.LM to a dn.LM."""

from __future__ import annotations

import re
from typing import Any

from dspynb.contrib.migration.names import describe_type, kind_of, overrides
from dspynb.errors import ConfigurationError
from dspynb.lm.client import LM
from dspynb.lm.providers.wire_formats import OPENAI_RESPONSES

__all__ = ["convert_model", "sampling_settings"]

_OPENAI_NAMES = re.compile(r"(ft:)?(gpt-(?!oss)|chatgpt-|o\d)")
_DROPPED_SETTINGS = ("rollout_id", "prompt_cache")  # dspynb numbers rollouts itself, and takes no such cache setting


def convert_model(dspy_lm: Any) -> LM:
    """A dn.LM with the model, address, settings and key of a dspy.LM. The key is copied to the dn.LM only.

    Raises ConfigurationError if the object is not a plain dspy.LM of a chat API, or if its provider is unknown.
    """
    _check(dspy_lm)
    settings = sampling_settings(dspy_lm.kwargs)
    base_url = settings.pop("base_url", None)
    settings.setdefault("api_base", base_url)
    engine = getattr(dspy_lm, "engine", "auto")  # DSPy before 3.4 has no such attribute
    name = dspy_lm.model
    if "/" not in name:
        name = _with_provider(name, settings["api_base"])
    if dspy_lm.model_type == "responses":
        settings["profile"] = {"wire_format": OPENAI_RESPONSES}
    return LM(
        name,
        engine="litellm" if engine == "litellm" else "auto",
        cache=bool(dspy_lm.cache),
        retries=dspy_lm.num_retries,
        **settings,
    )


def _with_provider(name: str, api_base: str | None) -> str:
    """The name of a model with OpenAI as its provider.

    Raises ConfigurationError if the model may be another provider's. DSPy knows the providers of some names, and a key
    must not be sent to the wrong one.
    """
    if api_base is None and not _OPENAI_NAMES.match(name):
        raise ConfigurationError(
            f"{name}: whose model is it? Name its provider in DSPy too: dspy.LM('provider/{name}')"
        )
    return f"openai/{name}"


def sampling_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of requests that dspynb sends too, without those that are None."""
    return {name: value for name, value in settings.items() if value is not None and name not in _DROPPED_SETTINGS}


def _check(dspy_lm: Any) -> None:
    has_own_methods = overrides(dspy_lm, "forward", "aforward", "__call__", "acall")
    has_own_engine = not isinstance(getattr(dspy_lm, "engine", ""), str)
    if kind_of(dspy_lm) != "LM" or has_own_methods or has_own_engine:
        raise ConfigurationError(
            f"{describe_type(dspy_lm)} is a model with code of its own, which cannot be translated: write any object "
            "with `async def complete(request)` that returns dn.LMReply(text), or, in tests, use dn.FunctionLM"
        )
    if dspy_lm.model_type not in ("chat", "responses"):
        raise ConfigurationError(
            f"{dspy_lm.model}: model_type={dspy_lm.model_type!r} has no counterpart; dn.LM asks chat APIs only"
        )
