"""From what users write as a model to the model itself."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, TypeAlias, cast

from dspynb.errors import ConfigurationError, NoModelError, of_dspy
from dspynb.lm.client import LM
from dspynb.lm.protocol import LMProtocol
from dspynb.options import Check

__all__ = ["Model", "check_lm", "resolve_lm"]


@lru_cache(maxsize=64)
def _named(model: str) -> LM:
    return LM(model)


def check_lm(choice: Any) -> Any:
    """The same object. Raises ConfigurationError for what is no model; None stands for another one."""
    if choice is not None:
        resolve_lm(choice)
    return choice


Model: TypeAlias = Annotated[
    LMProtocol | str | None, Check(check_lm, "'provider/model', or an object with `async complete(request)`")
]
"""A model, as settings name it: ``"provider/model"``, a model, or None for another setting's."""


def resolve_lm(choice: Any) -> LMProtocol:
    """A model from its name or itself. Raises NoModelError for None, ConfigurationError for what is no model."""
    if choice is None:
        raise NoModelError
    if isinstance(choice, str):
        return _named(choice)
    if not hasattr(choice, "complete"):
        got = f"{type(choice).__name__}.{of_dspy(choice)}"
        raise ConfigurationError(f"a model is 'provider/model' or has `async complete(request)`, got {got}")
    return cast("LMProtocol", choice)
