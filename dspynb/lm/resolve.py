"""Models from the values of settings: a name, or a model."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, TypeAlias, cast

from dspynb.errors import ConfigurationError, NoModelError, of_dspy
from dspynb.lm.client import LM
from dspynb.lm.protocol import LMProtocol
from dspynb.options import Check

__all__ = ["Model", "check_lm", "resolve_lm"]


@lru_cache(maxsize=64)
def _shared_lm(model: str) -> LM:
    return LM(model)


def check_lm(choice: object) -> Any:
    """Return ``choice`` unchanged if it is a model, the name of one, or None. Raises ConfigurationError otherwise."""
    if choice is not None:
        resolve_lm(choice)
    return choice


Model: TypeAlias = Annotated[
    LMProtocol | str | None, Check(check_lm, "'provider/model', or an object with `async complete(request)`")
]
"""The type of settings that choose a model: ``"provider/model"``, a model, or None for the default."""


def resolve_lm(choice: object) -> LMProtocol:
    """Return the model of a setting: itself, or the shared LM of a name such as ``"openai/gpt-4.1-mini"``.

    Raises NoModelError for None, ConfigurationError for any other value.
    """
    if choice is None:
        raise NoModelError
    if isinstance(choice, str):
        return _shared_lm(choice)
    if not hasattr(choice, "complete"):
        received = f"{type(choice).__name__}.{of_dspy(choice)}"
        raise ConfigurationError(f"a model is 'provider/model' or has `async complete(request)`, got {received}")
    return cast("LMProtocol", choice)
