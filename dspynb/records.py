"""Frozen dataclasses that are made in half the time, for what is made several times a model call; and checks of what is
read from a file into them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from functools import wraps
from types import UnionType
from typing import Any, TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["check_of", "checks_of", "is_count", "is_named", "is_real", "quickly_made"]

T = TypeVar("T")


def quickly_made(cls: type[T]) -> type[T]:
    """Let the ``__init__`` of a frozen dataclass set each slot itself: ``object.__setattr__``, which it calls
    otherwise, looks for each by its name. All else stays as ``@dataclass(frozen=True, slots=True)`` made it.

    >>> from dataclasses import dataclass
    >>> from dspynb.records import quickly_made
    >>> @quickly_made
    ... @dataclass(frozen=True, slots=True)
    ... class Point:
    ...     x: int
    ...     y: int = 0
    >>> Point(1)
    Point(x=1, y=0)
    """
    listed = fields(cls)  # type: ignore[arg-type]  # which any frozen dataclass is
    known: dict[str, Any] = {"MISSING": MISSING}
    for field in listed:
        known[f"set_{field.name}"] = getattr(cls, field.name).__set__
        known[f"default_{field.name}"], known[f"make_{field.name}"] = field.default, field.default_factory
    by_place = [_parameter(field) for field in listed if not field.kw_only]
    by_name = [_parameter(field) for field in listed if field.kw_only]
    parameters = ", ".join(["self", *by_place, *(["*", *by_name] if by_name else [])])
    body = "\n".join(f"    set_{field.name}(self, {_value(field)})" for field in listed)
    exec(f"def __init__({parameters}):\n{body}", known)  # noqa: S102  # of names of fields alone, as dataclasses do it
    made: Callable[..., None] = known["__init__"]
    type.__setattr__(cls, "__init__", wraps(cls.__init__)(made))
    return cls


def _parameter(field: Field[Any]) -> str:
    if field.default_factory is not MISSING:
        return f"{field.name}=MISSING"
    return field.name if field.default is MISSING else f"{field.name}=default_{field.name}"


def _value(field: Field[Any]) -> str:
    if field.default_factory is MISSING:
        return field.name
    return f"make_{field.name}() if {field.name} is MISSING else {field.name}"


# ── values that were read from a file ─────────────────────────────────────────────────────────────────────────────────
Check = Callable[[Any], bool]
_MOST = 2**53  # what every reader of JSON, and a column of a table, holds exactly
_LARGEST = 1e100  # its square is still a number


def is_count(value: Any) -> TypeGuard[int]:
    """Whether a value is a whole number from 0, as counts and numbers of spans are."""
    return type(value) is int and 0 <= value < _MOST


def is_real(value: Any) -> TypeGuard[float]:
    """Whether a value is a number to reckon with: neither bool nor NaN, nor so large that its square is none."""
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST


def is_named(value: Any) -> bool:
    """Whether a value is a dict with texts as keys."""
    return isinstance(value, dict) and all(type(key) is str for key in value)


_CHECKS: dict[Any, Check] = {
    Any: lambda _: True,
    type(None): lambda value: value is None,
    str: lambda value: type(value) is str,
    bool: lambda value: type(value) is bool,
    int: is_count,
    float: is_real,
}


def check_of(annotation: Any) -> Check:
    """A function that says whether a value read from JSON has this type, as records of this package declare it."""
    if annotation in _CHECKS:
        return _CHECKS[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (UnionType, Union):
        options = [check_of(option) for option in inner]
        return lambda value: any(option(value) for option in options)
    if origin is not None and issubclass(origin, Mapping):
        of_value = check_of(inner[1])
        return lambda value: is_named(value) and all(map(of_value, value.values()))
    if origin is tuple:
        of_item = check_of(inner[0])
        return lambda value: isinstance(value, list | tuple) and all(map(of_item, value))
    return lambda value: isinstance(value, annotation)


def checks_of(cls: type) -> dict[str, Check]:
    """Of each field of a dataclass, the check of its type."""
    hints = get_type_hints(cls)
    return {field.name: check_of(hints[field.name]) for field in fields(cls)}
