"""Demos to JSON-able values and back, through the types of a signature's fields."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import NoneType
from typing import Any, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from dspynb.adapters.values import parse_value
from dspynb.errors import ParseError, StateError, nearest, shorten
from dspynb.media.values import Medium
from dspynb.signatures.fields import Field
from dspynb.signatures.signature import Signature

__all__ = ["dump_demos", "load_demo"]

_CONFIG = ConfigDict(
    arbitrary_types_allowed=True,
    coerce_numbers_to_str=True,  # a number where text is wanted is written like that text
    ser_json_inf_nan="strings",
    ser_json_bytes="base64",
    val_json_bytes="base64",
)


def _fields(signature: type[Signature]) -> dict[str, Field]:
    return {**signature.input_fields, **signature.output_fields}


@lru_cache(maxsize=256)
def _adapter(signature: type[Signature]) -> TypeAdapter[list[dict[str, Any]]]:
    # Types only: a demo shows what is wanted and need not pass the checks that a reply has to.
    make: Any = TypedDict
    demo: Any = make("Demo", {n: f.annotation for n, f in _fields(signature).items()}, total=False)
    demo.__pydantic_config__ = _CONFIG  # how values are read
    rows: Any = list.__class_getitem__(demo)
    return TypeAdapter(rows, config=_CONFIG)  # how they are written is taken from the outermost type only


def dump_demos(signature: type[Signature], demos: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Demos as JSON-able values: the signature's fields, by name. What else a row holds never reaches a prompt and is
    left out. Raises StateError naming a demo whose value has not the field's type, or that JSON cannot hold."""
    adapter, fields = _adapter(signature), _fields(signature)
    dumped = []
    for i, demo in enumerate(demos):
        known = {n: v for n, v in signature.by_name(demo).items() if n in fields and _is_given(fields[n], v)}
        try:
            body = adapter.dump_json(adapter.validate_python([known]), context={"whole": True}, fallback=_whole)
        except ValidationError as error:
            raise StateError(f"demo {i} {_told(error)}") from None
        except Exception as error:
            raise StateError(f"demo {i} cannot be written as JSON: {shorten(error, 200)}") from None
        dumped += json.loads(body)
    return dumped


def _whole(value: Any) -> str:
    """An image or file inside a value whose type does not tell of it, such as a past turn."""
    if isinstance(value, Medium):
        return value.whole()
    raise TypeError(f"{type(value).__name__} is not known to JSON")


def load_demo(signature: type[Signature], demo: Mapping[str, Any], *, foreign: bool = False) -> dict[str, Any]:
    """Typed values of one dumped demo. ``foreign``: written by DSPy, which puts other keys in, and texts for values.

    Raises StateError.
    """
    fields = _fields(signature)
    unknown = [name for name in demo if name not in fields]
    if unknown and not foreign:
        raise StateError(f"has {unknown[0]!r}, which is no field.{nearest(unknown[0], fields)}")
    known = {n: v for n, v in demo.items() if n in fields and _is_given(fields[n], v)}
    try:
        return _adapter(signature).validate_json(json.dumps([known]))[0]
    except ValidationError as error:
        texts = {n: v for n, v in known.items() if isinstance(v, str) and not fields[n].is_text}
        if not (foreign and texts):
            raise StateError(_told(error)) from None
    try:
        read = {name: parse_value(fields[name], text, text) for name, text in texts.items()}
        return {**load_demo(signature, {n: v for n, v in known.items() if n not in read}), **read}
    except ParseError as error:
        raise StateError(f"field {error.field!r}: {error.problem}") from None


def _is_given(field: Field, value: Any) -> bool:
    return value is not None or field.annotation in (Any, None, NoneType) or NoneType in get_args(field.annotation)


def _told(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"][1:]))
    return f"field {where!r}: {first['msg']}, got {shorten(repr(first['input']), 80)}"
