"""Checks of JSON values against the declared types of a dataclass, and readers that are compiled from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from itertools import chain
from types import UnionType
from typing import Any, TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["check_of", "checks_of", "compile_reader", "is_count", "is_named", "is_real"]

T = TypeVar("T")
Check = Callable[[Any], bool]
_MAX_COUNT = 2**53
"""Integers below it are exact in every JSON parser and in the columns of a table."""
_LARGEST = 1e100
"""Maximum size of a float, so that its square is still finite."""


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value is an integer of at least 0, such as a count or the number of a span."""
    return type(value) is int and 0 <= value < _MAX_COUNT


def is_real(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite number that can be squared: no bool, NaN or infinity."""
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST


_STRING = frozenset({str})


def is_named(value: object) -> bool:
    """Whether a value is a dict whose keys are texts."""
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
    """A function that checks whether a JSON value has a type. It supports the types in dspynb's own dataclasses."""
    if annotation in _CHECKS:
        return _CHECKS[annotation]
    origin = get_origin(annotation)
    inner = get_args(annotation)
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
    """The check of the type of each field of a dataclass, by the field's name."""
    hints = get_type_hints(cls)
    return {field.name: check_of(hints[field.name]) for field in fields(cls)}


def compile_reader(
    cls: type[T], own: Mapping[str, Check], quick: Mapping[str, str], convert: Mapping[type, Callable[[Any], Any]]
) -> Callable[[Mapping[str, Any]], T | None]:
    """Compile a function that reads a dataclass from a dict. It returns None if a value fails its check or a required
    field is missing. (With a loop over the fields, opening a run file takes 40 % longer.)

    ``own``: checks of fields by name, which replace the checks of their types. ``quick``: the source of fast tests of
    fields by name, with ``{}`` for the value; the check runs only if the test fails. ``convert``: functions that make
    values of a type from JSON values.
    """
    hints = get_type_hints(cls)
    namespace: dict[str, Any] = {
        "MISSING": MISSING,
        "MAX_COUNT": _MAX_COUNT,
        "LARGEST": _LARGEST,
        "STRING": _STRING,
        "DICT": frozenset({dict}),
        "chain": chain,
        "cls": cls,
    }
    lines = ["get = body.get"]
    tests = []
    arguments = []
    for field in fields(cls):  # type: ignore[arg-type]  # T is a dataclass
        name = field.name
        hint = hints[name]
        namespace[f"default_{name}"] = field.default
        namespace[f"factory_{name}"] = field.default_factory
        namespace[f"make_{name}"] = convert.get(hint)
        namespace[f"check_{name}"] = own.get(name) or check_of(hint)
        lines += _assignments(field, hint, is_converted=hint in convert)
        if field.default is MISSING and field.default_factory is MISSING:
            tests.append(f"value_{name} is not MISSING")
        if hint not in convert:
            check = f"check_{name}(value_{name})"
            if name not in own:
                check = _quick_test(hint, f"value_{name}", check)
            elif name in quick:
                check = f"({quick[name].format(f'value_{name}')} or {check})"
            if field.default is not MISSING:
                check = f"(value_{name} is default_{name} or {check})"  # most fields of most events have their default
            tests.append(check)
        arguments.append(f"{name}=value_{name}")
    lines.append(f"return cls({', '.join(arguments)}) if {' and '.join(tests)} else None")
    body = "\n    ".join(lines)
    exec(f"def read(body):\n    {body}", namespace)  # noqa: S102  # the source contains names of fields only
    reader: Callable[[Mapping[str, Any]], T | None] = namespace["read"]
    return reader


def _assignments(field: Field[Any], hint: object, *, is_converted: bool) -> list[str]:
    """The source of the lines that read the value of a field from the dict."""
    name = field.name
    value = f"value_{name}"
    lines = [f"{value} = get({name!r}, default_{name})"]
    if field.default_factory is not MISSING:
        converted = f"make_{name}({value})" if is_converted else value
        lines.append(f"{value} = {converted} if {value} is not MISSING else factory_{name}()")
    if get_origin(hint) is tuple:
        lines.append(f"if type({value}) is list: {value} = tuple({value})")
    return lines


def _quick_test(annotation: object, value: str, check: str) -> str:
    """The source of a fast test for the types of most fields. ``check``: the source of the check, for other types."""
    options = (annotation,)
    if get_origin(annotation) in (UnionType, Union):
        options = get_args(annotation)
    tests = []
    for option in options:
        if option is type(None):
            tests.append(f"{value} is None")
        elif option in (str, bool):
            tests.append(f"type({value}) is {option.__name__}")
        elif option is int:
            tests.append(f"type({value}) is int and 0 <= {value} < MAX_COUNT")
        elif option is float:
            tests.append(f"type({value}) is float and -LARGEST <= {value} <= LARGEST or {check}")
        elif option == Mapping[str, Any]:
            tests.append(f"type({value}) is dict and STRING.issuperset(map(type, {value}))")
        elif option == Mapping[str, float]:
            tests.append(f"type({value}) is dict and (not {value} or {check})")
        elif option == tuple[Mapping[str, Any], ...]:
            are_dicts = f"type({value}) is tuple and DICT.issuperset(map(type, {value}))"
            tests.append(f"{are_dicts} and STRING.issuperset(map(type, chain.from_iterable({value}))) or {check}")
        else:
            tests.append(check)
    return "(" + " or ".join(tests) + ")"
