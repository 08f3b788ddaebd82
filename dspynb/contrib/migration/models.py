"""A dspy.LM as a dn.LM."""

from __future__ import annotations

import re
from typing import Any

from dspynb.contrib.migration.names import kind_of, overrides, shown
from dspynb.errors import ConfigurationError
from dspynb.lm.client import LM

__all__ = ["model_of", "sampling_of"]

_OF_OPENAI = re.compile(r"(ft:)?(gpt-(?!oss)|chatgpt-|o\d)")
_LEFT_OUT = ("rollout_id", "prompt_cache")  # which sample is meant, which the scope says here; and where a price is


def model_of(theirs: Any) -> LM:
    """The same model at the same place with the same settings. Its key goes from the one to the other and nowhere else.

    Raises ConfigurationError for a model that is no plain dspy.LM of a chat API, or whose provider is not told.
    """
    _check(theirs)
    settings = sampling_of(theirs.kwargs)
    base = settings.pop("base_url", None)
    settings.setdefault("api_base", base)
    engine = getattr(theirs, "engine", "auto")  # DSPy before 3.4 has no choice
    return LM(
        theirs.model if "/" in theirs.model else _with_provider(theirs.model, settings["api_base"]),
        engine="litellm" if engine == "litellm" else "auto",
        cache=bool(theirs.cache),
        retries=theirs.num_retries,
        **settings,
    )


def _with_provider(name: str, api_base: str | None) -> str:
    """The whole name of a model that was named alone. Raises ConfigurationError where it may not be OpenAI's: DSPy
    knows whose some names are, and a key must not go to another provider."""
    if api_base is None and not _OF_OPENAI.match(name):
        raise ConfigurationError(
            f"{name}: whose model is it? Name its provider in DSPy too: dspy.LM('provider/{name}')"
        )
    return f"openai/{name}"


def sampling_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of requests: those that have a value and are sent."""
    return {name: value for name, value in settings.items() if value is not None and name not in _LEFT_OUT}


def _check(theirs: Any) -> None:
    methods = ("forward", "aforward", "__call__", "acall")
    if kind_of(theirs) != "LM" or overrides(theirs, *methods) or not isinstance(getattr(theirs, "engine", ""), str):
        raise ConfigurationError(
            f"{shown(theirs)} is a model with code of its own, which cannot be translated: write any object with "
            "`async def complete(request)` that returns dn.LMReply(text), or, in tests, use dn.FunctionLM"
        )
    if theirs.model_type != "chat":
        raise ConfigurationError(
            f"{theirs.model}: model_type={theirs.model_type!r} has no counterpart; dn.LM asks chat APIs only"
        )
