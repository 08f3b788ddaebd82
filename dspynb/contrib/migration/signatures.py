"""A dspy.Signature class as a dn.Signature class."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Collection
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic_core import PydanticUndefined

from dspynb.contrib.migration.names import dspy_class
from dspynb.conversation import History
from dspynb.errors import SignatureError
from dspynb.media.values import File, Image
from dspynb.signatures.fields import Input, Output
from dspynb.signatures.kinds import classes_in
from dspynb.signatures.signature import Signature, build

__all__ = ["is_signature", "signature_of"]

_TYPES: dict[str, Any] = {"Image": Image, "File": File, "History": History, "Reasoning": str}


def is_signature(thing: Any) -> bool:
    """Whether it is a dspy.Signature class."""
    bases = thing.__mro__ if isinstance(thing, type) else ()
    return any(base is dspy_class(base) and base.__name__ == "Signature" for base in bases)


def signature_of(theirs: Any, without: Collection[str] = ()) -> type[Signature]:
    """Fields in their order, with types, constraints, defaults and descriptions; and the instruction.

    ``without``: names of fields to leave out. Raises SignatureError for a type of DSPy's that has no counterpart.
    """
    listed = [(n, f, Input) for n, f in theirs.input_fields.items() if n not in without]
    listed += [(n, f, Output) for n, f in theirs.output_fields.items() if n not in without]
    labels = _labels({name: field for name, field, _ in listed})
    definitions = {n: _definition(theirs, n, field, declare, labels.get(n)) for n, field, declare in listed}
    name = "Signature" if theirs.__name__ == "StringSignature" else theirs.__name__
    made = build(name, None, definitions)
    return made if made.instruction == theirs.instructions else build(name, theirs.instructions, definitions)


def _definition(theirs: Any, name: str, field: Any, declare: Any, label: str | None) -> tuple[Any, Any]:
    annotation = _type(field.annotation, f"{theirs.__name__}: the field {name!r}")
    if field.metadata:
        annotation = Annotated[(annotation, *field.metadata)]
    desc = field.json_schema_extra.get("desc")
    more: dict[str, Any] = {} if label is None else {"alias": label}
    if field.default_factory is not None:
        more["default_factory"] = field.default_factory
    elif field.default is not PydanticUndefined:
        more["default"] = field.default
    own = None if desc in ("", f"${{{name}}}") else desc  # what DSPy writes where nobody described the field
    return annotation, declare(desc=own, **more)


def _labels(fields: dict[str, Any]) -> dict[str, str]:
    """The prefixes that somebody wrote, as aliases: DSPy puts them into no prompt, but compares saved programs by them.
    One that would name two fields is left out."""
    prefixes = {n: str(f.json_schema_extra.get("prefix") or "").partition(":")[0].strip() for n, f in fields.items()}
    own = {name: prefix for name, prefix in prefixes.items() if _letters(prefix) != _letters(name)}
    taken = [*fields, *own.values()]
    return {name: label for name, label in own.items() if label and taken.count(label) == 1}


def _letters(text: str) -> str:
    return re.sub(r"\W|_", "", text).casefold()


def _type(annotation: Any, where: str) -> Any:
    """The type with DSPy's own replaced, however deep. Raises SignatureError."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return annotation
    if not args:
        return _class(annotation, where) if isinstance(annotation, type) else annotation
    if origin is Annotated:
        return Annotated[(_type(args[0], where), *args[1:])]
    inner = tuple(arg if arg is ... or isinstance(arg, list) else _type(arg, where) for arg in args)
    if inner == args:
        return annotation
    if origin in (Union, UnionType):
        return functools.reduce(operator.or_, inner)
    return origin[inner]


def _class(kind: type, where: str) -> Any:
    theirs = next((found for found in classes_in(kind) if dspy_class(found) is not None), None)
    if theirs is None:
        return kind
    name = getattr(dspy_class(theirs), "__name__", "")
    if theirs is kind and name in _TYPES:
        return _TYPES[name]
    inside = "" if theirs is kind else f" inside {kind.__name__}"
    raise SignatureError(
        f"{where} has the type {theirs.__name__} of DSPy{inside}, which has no counterpart here. Use a type that "
        f"pydantic knows, or, for a field, its list or with None: {', '.join(f'dspy.{known}' for known in _TYPES)}"
    )
