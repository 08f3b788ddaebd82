"""Types of settings: annotations of keyword parameters that carry bounds, and say how run files record the setting.

A parameter is declared once, in the signature of its function: ``def __init__(self, *, n: PositiveInt = 3)``. The
decorator ``dspynb.keywords.configurable`` checks calls against these types. Messages and run files use them too.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin

from dspynb.errors import ConfigurationError
from dspynb.score import as_float

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

__all__ = [
    "NOT_RECORDED",
    "Absent",
    "Bool",
    "Check",
    "Concurrency",
    "Float",
    "FloatOrInf",
    "Instance",
    "Int",
    "NonNegativeInt",
    "NotRecorded",
    "Number",
    "Option",
    "PositiveFloat",
    "PositiveInt",
    "Recorded",
    "Seconds",
    "Whole",
    "is_checked",
    "literals",
    "metadata",
    "requirement",
    "type_text",
]


class Option:
    """Base of the checks that a type carries: ``Annotated[int, Whole(1)]``."""

    __slots__ = ()

    @property
    def requirement(self) -> str:
        """What a value must be, for errors: "{name} must be {requirement}"."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Whole(Option):
    """An int from ``least`` to ``most``, but not a bool."""

    least: int | None = None
    most: int | None = None

    @property
    def requirement(self) -> str:
        return f"a whole number{_range(self.least, self.most)}"

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.int_schema(strict=True, ge=self.least, le=self.most)


@dataclass(frozen=True, slots=True)
class Number(Option):
    """An int or float, but not a bool and not NaN. Scores, Decimals and numbers of numpy are converted to floats.

    ``least``, ``most``: inclusive bounds. ``above``, ``below``: exclusive bounds. ``finite``: whether infinity is
    refused. ``unit``: the unit in messages, such as ``seconds``.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    finite: bool = True
    unit: str = ""

    @property
    def requirement(self) -> str:
        kind = f"a number of {self.unit}" if self.unit else "a number"
        if self.above is not None:
            upper_bound = ""
            if self.below is not None:
                upper_bound = f" and below {self.below:g}"
            elif self.most is not None:
                upper_bound = f" and at most {self.most:g}"
            return f"{kind} above {self.above:g}{upper_bound}"
        if self.finite and self.most is None:
            kind = kind.replace("number", "finite number")
        return f"{kind}{_range(self.least, self.most)}"

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self._read)

    def _read(self, value: object) -> Any:
        number = as_float(value)
        if isinstance(number, bool) or not isinstance(number, int | float) or not self._is_within_bounds(number):
            raise ValueError
        try:
            float(number)
        except OverflowError:  # an int beyond all floats
            raise ValueError from None
        return number

    def _is_within_bounds(self, number: float) -> bool:
        if self.finite and number in (float("inf"), float("-inf")):
            return False
        if self.above is not None and not number > self.above:
            return False
        if self.below is not None and not number < self.below:
            return False
        if self.least is not None and not number >= self.least:
            return False
        if self.most is not None and not number <= self.most:
            return False
        return number == number  # noqa: PLR0124  # NaN is not equal to itself


class _Bool(Option):
    __slots__ = ()

    @property
    def requirement(self) -> str:
        return "True or False"

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.bool_schema(strict=True)


@dataclass(frozen=True, slots=True)
class Instance(Option):
    """An object of the annotated class, which errors call ``name``."""

    name: str

    @property
    def requirement(self) -> str:
        return self.name

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(source)


@dataclass(frozen=True, slots=True)
class Check(Option):
    """A check by a function, which returns the value to use, or raises ConfigurationError with a whole sentence.

    ``name``: what a value must be, for documentation.
    """

    function: Callable[[Any], Any]
    name: str

    @property
    def requirement(self) -> str:
        return self.name

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self._read)

    def _read(self, value: object) -> Any:
        from pydantic_core import PydanticCustomError

        try:
            return self.function(value)
        except ConfigurationError as error:
            raise PydanticCustomError("sentence", "{text}", {"text": str(error)}) from None


class NotRecorded:
    """Marks a setting that does not change results, so that a resumed run may have another value."""

    __slots__ = ()


class Absent(NamedTuple):
    """Marks a setting that older run files do not have. ``value``: the value that such a file stands for. Without this
    mark it is the default."""

    value: Any


class Recorded(NamedTuple):
    """How run files record a setting; by default its value under its own name.

    ``name``: the name in the file. ``value``: a function that converts a value, except None, to that in the file.
    """

    name: str | None = None
    value: Callable[[Any], Any] | None = None

    def to_file(self, value: object) -> Any:
        """The value in the file for a value of the setting."""
        if value is None or self.value is None:
            return value
        return self.value(value)


NOT_RECORDED = NotRecorded()

PositiveInt: TypeAlias = Annotated[int, Whole(1)]
"""A whole number of at least 1."""
NonNegativeInt: TypeAlias = Annotated[int, Whole(0)]
"""A whole number of at least 0."""
Int: TypeAlias = Annotated[int, Whole()]
"""A whole number."""
Float: TypeAlias = Annotated[float, Number()]
"""A finite number."""
FloatOrInf: TypeAlias = Annotated[float, Number(finite=False)]
"""A number or infinity."""
PositiveFloat: TypeAlias = Annotated[float, Number(above=0)]
"""A finite number above 0."""
Seconds: TypeAlias = Annotated[float, Number(above=0, finite=False, unit="seconds")]
"""A number of seconds above 0, or infinity."""
Bool: TypeAlias = Annotated[bool, _Bool()]
"""True or False."""
Concurrency: TypeAlias = Annotated[PositiveInt | None, NOT_RECORDED]
"""How many rows or steps run at the same time; None means the setting of ``configure``."""


def metadata(annotation: object) -> tuple[Any, ...]:
    """The metadata that a type has in ``Annotated``, including that of the types in a union."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *items = get_args(annotation)
        return (*items, *metadata(inner))
    if origin not in (Union, types.UnionType):
        return ()
    all_items: list[Any] = []
    for member in get_args(annotation):
        all_items += metadata(member)
    return tuple(all_items)


def is_checked(annotation: object) -> bool:
    """Whether calls are checked against a type: whether it has an Option as metadata, or is or contains a Literal."""
    if get_origin(annotation) is Literal:
        return True
    if any(isinstance(item, Option) for item in metadata(annotation)):
        return True
    return any(is_checked(member) for member in _members(annotation))


def requirement(annotation: object) -> str:
    """What a value of a type must be, for errors: ``a whole number of at least 1, or None``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *items = get_args(annotation)
        options = [item for item in items if isinstance(item, Option)]
        return options[0].requirement if options else requirement(inner)
    if origin is Literal:
        return f"one of {', '.join(map(str, get_args(annotation)))}"
    if origin is Callable:
        return "a function"
    members = _members(annotation)
    if members:
        return ", or ".join(requirement(member) for member in members)
    if annotation in (None, type(None)):
        return "None"
    return str(getattr(annotation, "__name__", annotation))


def type_text(annotation: object) -> str:
    """A type without its metadata, as signatures show it: ``int | None``."""
    if annotation in (None, type(None)):
        return "None"
    origin = get_origin(annotation)
    if origin is Annotated:
        return type_text(get_args(annotation)[0])
    members = _members(annotation)
    if members:
        return " | ".join(type_text(member) for member in members)
    if isinstance(annotation, type) and origin is None:
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("collections.abc.", "")


def literals(annotation: object) -> tuple[str, ...]:
    """The texts that the Literals in a type allow."""
    if get_origin(annotation) is Literal:
        return tuple(value for value in get_args(annotation) if isinstance(value, str))
    texts: list[str] = []
    for member in _members(annotation):
        texts += literals(member)
    return tuple(texts)


def _members(annotation: object) -> tuple[Any, ...]:
    """The types in a union; empty for any other type."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return get_args(annotation)
    return ()


def _range(least: float | None, most: float | None) -> str:
    if least is None and most is None:
        return ""
    if most is None:
        return f" of at least {least:g}"
    if least is None:
        return f" of at most {most:g}"
    return f" from {least:g} to {most:g}"
