"""The string form of a signature. Types are read from the syntax tree and looked up; nothing is evaluated."""

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
    """Inputs and outputs, name → type (str where none is given). Raises SignatureError with the part that is wrong."""
    sides = text.split("->")
    if len(sides) != 2:
        raise SignatureError(f"a signature string has one '->', as in 'question -> answer'; got {text!r}")
    inputs, outputs = (_side(side, text) for side in sides)
    if not outputs:
        raise SignatureError(f"the signature {text!r} has no output after '->'")
    both = set(inputs) & set(outputs)
    if both:
        raise SignatureError(f"the signature {text!r} has {min(both)!r} as input and output")
    return inputs, outputs


def _side(side: str, whole: str) -> dict[str, Any]:
    if not side.strip():
        return {}
    # as the parameters of a function, names and annotations are Python's own grammar
    try:
        args = ast.parse(f"def f({side.strip()}): ...").body[0].args  # type: ignore[attr-defined]
    except SyntaxError:
        raise SignatureError(f"cannot read {side.strip()!r} in the signature {whole!r}") from None
    if args.defaults or args.vararg or args.kwarg or args.kwonlyargs or args.posonlyargs:
        raise SignatureError(f"a signature string has names and types only; got {side.strip()!r}")
    names = [arg.arg for arg in args.args]
    if len(set(names)) < len(names):
        raise SignatureError(f"a field stands twice in {side.strip()!r}")
    return {arg.arg: str if arg.annotation is None else _type(arg.annotation) for arg in args.args}


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
        if not all(isinstance(i, ast.Constant) for i in items):
            raise SignatureError("Literal takes plain values, as in Literal['yes', 'no']")
        return typing.Literal[tuple(i.value for i in items)]  # type: ignore[attr-defined]
    try:
        return base[tuple(... if _dots(i) else _type(i) for i in items) if len(items) > 1 else _type(items[0])]
    except TypeError as error:
        raise SignatureError(f"cannot read the type {base}[{ast.unparse(index)}]: {error}") from None


def _dots(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...
