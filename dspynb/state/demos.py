"""Converting demos to values that JSON can represent and back, by the types of a signature's fields."""

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
    coerce_numbers_to_str=True,  # a number in a text field is written as text
    ser_json_inf_nan="strings",
    ser_json_bytes="base64",
    val_json_bytes="base64",
)


def _all_fields(signature: type[Signature]) -> dict[str, Field]:
    return {**signature.input_fields, **signature.output_fields}


@lru_cache(maxsize=256)
def _adapter(signature: type[Signature]) -> TypeAdapter[list[dict[str, Any]]]:
    # Types only: a demo shows the expected output and need not pass the checks of a reply.
    make: Any = TypedDict
    annotations = {name: field.annotation for name, field in _all_fields(signature).items()}
    demo: Any = make("Demo", annotations, total=False)
    demo.__pydantic_config__ = _CONFIG  # for reading values
    rows: Any = list.__class_getitem__(demo)
    return TypeAdapter(rows, config=_CONFIG)  # for writing values: pydantic reads the config of the outermost type only


def dump_demos(signature: type[Signature], demos: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Convert demos to values that JSON can represent, with the signature's fields by name. Other values of a demo
    never reach a prompt and are left out.

    Raises StateError, which names the demo, for a value that has not the field's type or that JSON cannot represent.
    """
    adapter = _adapter(signature)
    fields = _all_fields(signature)
    dumped = []
    for i, demo in enumerate(demos):
        known_values = _known_values(fields, signature.by_name(demo))
        try:
            rows = adapter.validate_python([known_values])
            body = adapter.dump_json(rows, context={"whole": True}, fallback=_medium_text)
        except ValidationError as error:
            raise StateError(f"demo {i} {_problem(error)}") from None
        except Exception as error:
            raise StateError(f"demo {i} cannot be written as JSON: {shorten(error, 200)}") from None
        dumped += json.loads(body)
    return dumped


def _medium_text(value: object) -> str:
    """The JSON text of an image or file inside a value whose type does not declare it, such as a past turn."""
    if isinstance(value, Medium):
        return value.whole()
    raise TypeError(f"{type(value).__name__} is not known to JSON")


def load_demo(signature: type[Signature], demo: Mapping[str, Any], *, foreign: bool = False) -> dict[str, Any]:
    """The typed values of one dumped demo. ``foreign``: the demo was written by DSPy, which adds other keys, and may
    write values as text.

    Raises StateError.
    """
    fields = _all_fields(signature)
    unknown_names = [name for name in demo if name not in fields]
    if unknown_names and not foreign:
        unknown = unknown_names[0]
        raise StateError(f"has {unknown!r}, which is not a field.{nearest(unknown, fields)}")
    known_values = _known_values(fields, demo)
    try:
        return _adapter(signature).validate_json(json.dumps([known_values]))[0]
    except ValidationError as error:
        texts = {n: v for n, v in known_values.items() if isinstance(v, str) and not fields[n].is_text}
        if not (foreign and texts):
            raise StateError(_problem(error)) from None
    try:
        parsed = {name: parse_value(fields[name], text, text) for name, text in texts.items()}
    except ParseError as error:
        raise StateError(f"field {error.field!r}: {error.problem}") from None
    others = {name: value for name, value in known_values.items() if name not in parsed}
    return {**load_demo(signature, others), **parsed}


def _known_values(fields: Mapping[str, Field], demo: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the signature's fields, without None in fields that do not allow it."""
    return {name: value for name, value in demo.items() if name in fields and _is_value(fields[name], value)}


def _is_value(field: Field, value: object) -> bool:
    if value is not None:
        return True
    return field.annotation in (Any, None, NoneType) or NoneType in get_args(field.annotation)


def _problem(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"][1:]))
    return f"field {where!r}: {first['msg']}, got {shorten(repr(first['input']), 80)}"
