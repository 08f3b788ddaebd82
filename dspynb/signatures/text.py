"""Parses the string form of a signature. Types are looked up by their names; nothing in the string is evaluated."""

from __future__ import annotations

import ast
import datetime
import inspect
import typing
from collections import abc
from collections.abc import Mapping
from decimal import Decimal
from types import GenericAlias, UnionType
from typing import Any

from dspynb.conversation import History
from dspynb.errors import SignatureError, nearest
from dspynb.media.values import File, Image

__all__ = ["UNTYPED", "UnknownType", "parse_signature"]


class UNTYPED:
    """The type of a field for which the string names none: text, for which any value may be given."""


class UnknownType(SignatureError):
    """A signature string names a type that is not known."""


_TYPES: dict[str, Any] = {
    **{t.__name__: t for t in (str, int, float, bool, list, dict, tuple, set, frozenset, bytes)},
    "date": datetime.date,
    "datetime": datetime.datetime,
    "time": datetime.time,
    "timedelta": datetime.timedelta,
    "Any": Any,
    "Literal": typing.Literal,
    "Optional": typing.Optional,
    "Union": typing.Union,
    "List": list,
    "Dict": dict,
    "Tuple": tuple,
    "Set": set,
    "FrozenSet": frozenset,
    **{t.__name__: t for t in (abc.Sequence, abc.MutableSequence, abc.Mapping, abc.MutableMapping, abc.Iterable)},
    "None": None,
    **{t.__name__: t for t in (Decimal, Image, File, History)},
}


_MISSING = object()


def parse_signature(text: str, names: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the types of the inputs and of the outputs by name; ``UNTYPED`` where the string names none.

    ``names``: further names of types, which the code around the string knows. Raises UnknownType for a name that is not
    known, and SignatureError for anything else that cannot be read.
    """
    types = _TYPES if names is None else {**names, **_TYPES}
    sides = text.split("->")
    if len(sides) != 2:
        raise SignatureError(f"a signature string has one '->', as in 'question -> answer'; got {text!r}")
    inputs = _fields(sides[0], text, types)
    outputs = _fields(sides[1], text, types)
    if not outputs:
        raise SignatureError(f"the signature {text!r} has no output after '->'")
    common = set(inputs) & set(outputs)
    if common:
        raise SignatureError(f"the signature {text!r} has {min(common)!r} as input and output")
    return inputs, outputs


def _fields(side: str, signature: str, types: Mapping[str, Any]) -> dict[str, Any]:
    """Parse one side of a signature string as the parameters of a Python function."""
    side = side.strip()
    if not side:
        return {}
    try:
        args = ast.parse(f"def f({side}): ...").body[0].args  # type: ignore[attr-defined]
    except SyntaxError:
        raise SignatureError(f"cannot read {side!r} in the signature {signature!r}") from None
    if args.defaults or args.vararg or args.kwarg or args.kwonlyargs or args.posonlyargs:
        raise SignatureError(f"a signature string has names and types only; got {side!r}")
    names = [arg.arg for arg in args.args]
    if len(set(names)) < len(names):
        raise SignatureError(f"a field name is repeated in {side!r}")
    fields: dict[str, Any] = dict.fromkeys(names, UNTYPED)
    for arg in args.args:
        if arg.annotation is not None:
            fields[arg.arg] = _type(arg.annotation, types)
    return fields


def _type(node: ast.expr, types: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Name(id=name):
            return _named_type(name, types)
        case ast.Attribute(value=owner, attr=name):
            return _named_type(name, _names_in(owner, types))
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return typing.Union[_type(left, types), _type(right, types)]  # noqa: UP007  # None | None types are values here
        case ast.Subscript(value=base, slice=index):
            return _subscript(_type(base, types), index, types)
    raise SignatureError(f"cannot read the type {ast.unparse(node)!r}")


def _names_in(owner: ast.expr, types: Mapping[str, Any]) -> Mapping[str, Any]:
    """The names of types in the module or class to which an expression refers; those of ``types`` for another one, such
    as ``typing``."""
    value = types.get(owner.id) if isinstance(owner, ast.Name) else None
    if inspect.ismodule(value) or isinstance(value, type):
        return {**_TYPES, **{name: member for name, member in vars(value).items() if _is_type(member)}}
    return types


def _named_type(name: str, types: Mapping[str, Any]) -> Any:
    named = types.get(name, _MISSING)
    if named is _MISSING or not (name in _TYPES or _is_type(named)):
        raise UnknownType(
            f"unknown type {name!r} in a signature string.{nearest(name, _TYPES)} A type of your own must be "
            "known where the string stands; else write the signature as a class."
        )
    return named


def _is_type(value: object) -> bool:
    """Whether a value of the caller is a type, such as a class, ``list[Person]`` or ``Person | None``."""
    return isinstance(value, type | typing.TypeVar | UnionType | GenericAlias) or typing.get_origin(value) is not None


def _subscript(base: Any, index: ast.expr, types: Mapping[str, Any]) -> Any:
    items = index.elts if isinstance(index, ast.Tuple) else [index]
    if base is typing.Literal:
        if not all(isinstance(item, ast.Constant) for item in items):
            raise SignatureError("Literal takes plain values, as in Literal['yes', 'no']")
        return typing.Literal[tuple(item.value for item in items)]  # type: ignore[attr-defined]
    try:
        if len(items) == 1:
            return base[_type(items[0], types)]
        return base[tuple(... if _is_ellipsis(item) else _type(item, types) for item in items)]
    except TypeError as error:
        raise SignatureError(f"cannot read the type {base}[{ast.unparse(index)}]: {error}") from None


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...
