"""Checks of the ``forward`` that users write: of its definition, and of the value that it returns."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from dspynb.data import Prediction
from dspynb.errors import ConfigurationError, InputError

__all__ = ["as_prediction", "check_forward", "checked_awaitable", "recorded_outputs", "with_outputs"]


def check_forward(cls: type[Any]) -> None:
    """Raise ConfigurationError for a ``forward`` without ``async``. A decorated ``forward`` is not checked here, since
    the decorator may make it awaitable."""
    forward = cls.__dict__.get("forward")
    if not inspect.isfunction(forward) or forward.__code__.co_name != "forward" or hasattr(forward, "__wrapped__"):
        return
    if inspect.isasyncgenfunction(forward):
        raise ConfigurationError(f"{cls.__name__}.forward has a `yield`; return the Prediction or a dict instead")
    if not inspect.iscoroutinefunction(forward):
        raise ConfigurationError(
            f"{cls.__name__}.forward is a plain function; write `async def forward` and await the predictors it calls"
        )


def checked_awaitable(module: object, value: object) -> Any:
    if inspect.isawaitable(value):
        return value
    raise ConfigurationError(
        f"{type(module).__name__}.forward returned {type(value).__name__}, which cannot be awaited; "
        "write `async def forward`"
    )


def with_outputs(value: object) -> Any:
    """What callers get of the value that ``forward`` returned: a mapping as a Prediction, all else unchanged."""
    if isinstance(value, Mapping) and not isinstance(value, Prediction):
        return Prediction(value)
    return value


def recorded_outputs(value: object) -> dict[str, Any]:
    """The outputs of a program as events record them. A value that is no Prediction is recorded as ``output``."""
    return value.to_dict() if isinstance(value, Prediction) else {"output": value}


def as_prediction(value: object, name: str) -> Prediction:
    """Convert the value that the function ``name`` has returned. Raises InputError."""
    if isinstance(value, Prediction):
        return value
    if isinstance(value, Mapping):
        return Prediction(value)
    raise InputError(f"{name} returned {type(value).__name__}; return a Prediction or a dict of outputs")
