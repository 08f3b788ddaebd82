"""Copies of programs. What cannot be copied, such as a lock or an open connection, is shared with the original."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import MutableMapping
from typing import Any, TypeVar

from dspynb.exits import is_exit

__all__ = ["copied", "copied_instance"]

T = TypeVar("T")


def copied(value: T, memo: dict[int, Any]) -> T:
    """A deep copy of ``value``; the parts of it that cannot be copied, and models, are shared.

    ``memo``: that of ``copy.deepcopy``. Containers in which predictors are looked for (lists, tuples, mappings,
    dataclasses) are always copied, so that no predictor is shared because of its neighbour. Raises what the copy
    protocol of a module raises.
    """
    if id(value) in memo:
        known: T = memo[id(value)]
        return known
    if _is_model(value):
        return value
    trial = dict(memo)  # a copy that fails half-way must leave nothing behind
    trial.pop(id(memo), None)
    try:
        new = copy.deepcopy(value, trial)
    except BaseException as error:
        if not isinstance(error, Exception) and not is_exit(error):
            raise
        if hasattr(type(value), "submodules"):  # shared, its predictors would be the original's
            raise
        parts: T = _copied_by_parts(value, memo)
        return parts
    alive = trial.pop(id(trial), [])
    memo.update(trial)
    memo.setdefault(id(memo), []).extend(alive)  # as deepcopy does: an id must not be used again meanwhile
    return new


def copied_instance(value: T, memo: dict[int, Any]) -> T:
    """A new instance of the same class, each attribute ``copied``; for ``__deepcopy__``."""
    new: T = type(value).__new__(type(value))
    memo[id(value)] = new
    state: Any = value.__getstate__()
    if hasattr(new, "__setstate__"):
        new.__setstate__(copied(state, memo))
        return new
    in_dict, in_slots = state if isinstance(state, tuple) else (state, None)
    for name, attribute in {**(in_dict or {}), **(in_slots or {})}.items():
        object.__setattr__(new, name, copied(attribute, memo))
    return new


def _is_model(value: Any) -> bool:
    """Whether it is a language model: it holds connections and limits, and two copies would each have their own."""
    return callable(getattr(type(value), "complete", None)) and not hasattr(type(value), "named_predictors")


def _copied_by_parts(value: Any, memo: dict[int, Any]) -> Any:
    """A copy of a container with each item ``copied``; anything else is shared."""
    memo.setdefault(id(memo), []).append(value)
    if type(value) is tuple:
        memo[id(value)] = new = tuple(copied(item, memo) for item in value)
        return new
    memo[id(value)] = new = _copied_top(value)  # before its items, which may hold it
    if new is value:
        return value
    if isinstance(value, list):
        new[:] = [copied(item, memo) for item in value]
    elif isinstance(value, MutableMapping):
        for key, item in value.items():
            new[key] = copied(item, memo)
    else:
        for field in dataclasses.fields(value):
            object.__setattr__(new, field.name, copied(getattr(value, field.name, None), memo))
    return new


def _copied_top(value: Any) -> Any:
    """A shallow copy of a container; itself where it is none, or cannot be copied at all."""
    is_dataclass = dataclasses.is_dataclass(value) and not isinstance(value, type)
    if not is_dataclass and not isinstance(value, list | MutableMapping):
        return value
    try:
        return copy.copy(value)
    except Exception:
        return value
