"""Checks of values read from JSON against the types that a dataclass declares, and a reader compiled from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from itertools import chain
from types import UnionType
from typing import Any, TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["check_of", "checks_of", "compile_reader", "is_count", "is_named", "is_real"]

T = TypeVar("T")
Check = Callable[[Any], bool]
_MOST = 2**53  # what every reader of JSON, and a column of a table, holds exactly
_LARGEST = 1e100  # its square is still a number


def is_count(value: Any) -> TypeGuard[int]:
    """Whether a value is a whole number from 0, as counts and numbers of spans are."""
    return type(value) is int and 0 <= value < _MOST


def is_real(value: Any) -> TypeGuard[float]:
    """Whether a value is a number to reckon with: neither bool nor NaN, nor so large that its square is none."""
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST


_STRING = frozenset({str})


def is_named(value: Any) -> bool:
    """Whether a value is a dict with texts as keys."""
    return isinstance(value, dict) and _STRING.issuperset(map(type, value))


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


def compile_reader(
    cls: type[T], own: Mapping[str, Check], quick: Mapping[str, str], convert: Mapping[type, Callable[[Any], Any]]
) -> Callable[[Mapping[str, Any]], T | None]:
    """Compile a function that reads a dataclass from a dict, and returns None where a value fails its check or a field
    is missing. Opening a run file takes 40 % longer with a loop over the fields.

    ``own``: checks of single fields, in place of those of their types; ``quick``: code of tests that nearly all values
    of a field pass, which run before its check; ``convert``: functions that convert values of other types.
    """
    hints = get_type_hints(cls)
    known: dict[str, Any] = {"MISSING": MISSING, "MOST": _MOST, "LARGEST": _LARGEST, "chain": chain, "cls": cls}
    known |= {"STRING": _STRING, "DICT": frozenset({dict})}
    lines = []
    tests = []
    for field in fields(cls):  # type: ignore[arg-type]  # T is a dataclass
        name = field.name
        value = f"value_{name}"
        hint = hints[name]
        known |= {f"default_{name}": field.default, f"factory_{name}": field.default_factory}
        known |= {f"make_{name}": convert.get(hint), f"check_{name}": own.get(name) or check_of(hint)}
        lines.append(f"{value} = get({name!r}, default_{name})")
        new = f"{value} if {value} is not MISSING else factory_{name}()"
        if hint in convert:
            new = f"make_{name}({value}) if {value} is not MISSING else factory_{name}()"
        if field.default_factory is not MISSING:
            lines.append(f"{value} = {new}")
        elif field.default is MISSING:
            tests.append(f"{value} is not MISSING")
        if hint not in convert:
            general = f"check_{name}({value})"
            before = f"{quick[name].format(value)} or " if name in quick else ""
            tests.append(f"({before}{general})" if name in own else _quick_test(hint, value, general))
        if get_origin(hint) is tuple:
            lines.append(f"if type({value}) is list: {value} = tuple({value})")
    named = ", ".join(f"{field.name}=value_{field.name}" for field in fields(cls))  # type: ignore[arg-type]
    body = "\n    ".join(["get = body.get", *lines, f"return cls({named}) if {' and '.join(tests)} else None"])
    exec(f"def read(body):\n    {body}", known)  # noqa: S102  # of names of fields alone, as above
    reader: Callable[[Mapping[str, Any]], T | None] = known["read"]
    return reader


def _quick_test(annotation: Any, value: str, general: str) -> str:
    """The code of a check, for the types that most fields have; ``general`` for others."""
    options = get_args(annotation) if get_origin(annotation) in (UnionType, Union) else (annotation,)
    tests = []
    for option in options:
        if option is type(None):
            tests.append(f"{value} is None")
        elif option in (str, bool):
            tests.append(f"type({value}) is {option.__name__}")
        elif option is int:
            tests.append(f"type({value}) is int and 0 <= {value} < MOST")
        elif option is float:
            tests.append(f"type({value}) is float and -LARGEST <= {value} <= LARGEST or {general}")
        elif option == Mapping[str, Any]:
            tests.append(f"type({value}) is dict and STRING.issuperset(map(type, {value}))")
        elif option == Mapping[str, float]:
            tests.append(f"type({value}) is dict and (not {value} or {general})")
        elif option == tuple[Mapping[str, Any], ...]:
            are_dicts = f"type({value}) is tuple and DICT.issuperset(map(type, {value}))"
            tests.append(f"{are_dicts} and STRING.issuperset(map(type, chain.from_iterable({value}))) or {general}")
        else:
            tests.append(general)
    return "(" + " or ".join(tests) + ")"
