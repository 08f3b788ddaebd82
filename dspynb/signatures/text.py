"""Parses the string form of a signature. Types are looked up by their names; nothing in the string is evaluated."""

from __future__ import annotations

import ast
import datetime
import typing
from decimal import Decimal
from typing import Any

from dspynb.conversation import History
from dspynb.errors import SignatureError, nearest
from dspynb.media.values import File, Image

__all__ = ["parse_signature"]

_TYPES: dict[str, Any] = {
    **{t.__name__: t for t in (str, int, float, bool, list, dict, tuple, set, bytes)},
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
    "None": None,
    **{t.__name__: t for t in (Decimal, Image, File, History)},
}


def parse_signature(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the types of the inputs and of the outputs by name; the default type is ``str``. Raises SignatureError."""
    sides = text.split("->")
    if len(sides) != 2:
        raise SignatureError(f"a signature string has one '->', as in 'question -> answer'; got {text!r}")
    inputs = _fields(sides[0], text)
    outputs = _fields(sides[1], text)
    if not outputs:
        raise SignatureError(f"the signature {text!r} has no output after '->'")
    common = set(inputs) & set(outputs)
    if common:
        raise SignatureError(f"the signature {text!r} has {min(common)!r} as input and output")
    return inputs, outputs


def _fields(side: str, signature: str) -> dict[str, Any]:
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
    fields: dict[str, Any] = dict.fromkeys(names, str)
    for arg in args.args:
        if arg.annotation is not None:
            fields[arg.arg] = _type(arg.annotation)
    return fields


def _type(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Name(id=name):
            if name not in _TYPES:
                raise SignatureError(
                    f"unknown type {name!r} in a signature string.{nearest(name, _TYPES)} "
                    "For your own types, write the signature as a class."
                )
            return _TYPES[name]
        case ast.Attribute(attr=name):
            return _type(ast.Name(id=name))
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return typing.Union[_type(left), _type(right)]  # noqa: UP007  # None | None types are values here
        case ast.Subscript(value=base, slice=index):
            return _subscript(_type(base), index)
    raise SignatureError(f"cannot read the type {ast.unparse(node)!r}")


def _subscript(base: Any, index: ast.expr) -> Any:
    items = index.elts if isinstance(index, ast.Tuple) else [index]
    if base is typing.Literal:
        if not all(isinstance(item, ast.Constant) for item in items):
            raise SignatureError("Literal takes plain values, as in Literal['yes', 'no']")
        return typing.Literal[tuple(item.value for item in items)]  # type: ignore[attr-defined]
    try:
        if len(items) == 1:
            return base[_type(items[0])]
        return base[tuple(... if _is_ellipsis(item) else _type(item) for item in items)]
    except TypeError as error:
        raise SignatureError(f"cannot read the type {base}[{ast.unparse(index)}]: {error}") from None


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...
