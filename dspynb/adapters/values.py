"""Typed values to text and back."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from dspynb.errors import ParseError
from dspynb.signatures import Field

__all__ = ["parse_value", "to_text"]

_FENCE = re.compile(r"^```[\w-]*\s*\n(.*?)\n?```$", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|[-+]?\.\d+")


def to_text(field: Field, value: Any) -> str:
    """A value as a model reads it: text as it is, all else as JSON."""
    if isinstance(value, str):
        return value
    try:
        return field.adapter.dump_json(value).decode()
    except Exception:
        return json.dumps(value, default=str, ensure_ascii=False)


def parse_value(field: Field, text: str, raw: str) -> Any:
    """The text of one output as a value of the field's type.

    Tried in order: the text itself, JSON in it, its words (``yes`` for true, a choice in other case, the only number
    in prose). Raises ParseError (stage ``validate``) with what pydantic said of the first try.
    """
    first: ValidationError | None = None
    for candidate in _readings(field, text.strip()):
        try:
            return field.adapter.validate_python(candidate)
        except ValidationError as error:
            first = first or error
    problem = first.errors(include_url=False)[0]["msg"] if first else "the value is empty"
    raise ParseError(f"not a valid {field.type_text}: {problem}", raw=raw, stage="validate", field=field.name)


def _readings(field: Field, text: str) -> Iterator[Any]:
    if field.is_text:
        yield text
        return
    inner = match.group(1).strip() if (match := _FENCE.match(text)) else text
    choices = _choices(field.annotation)
    if choices:
        yield from _chosen(choices, inner)
    with contextlib.suppress(ValueError, RecursionError):
        yield json.loads(inner)
    yield inner
    if field.annotation in (int, float) and len(numbers := _NUMBER.findall(inner)) == 1:
        yield numbers[0].replace(",", "")
    if field.annotation is bool and inner.rstrip(".! ").lower() in ("yes", "no", "true", "false"):
        yield inner.rstrip(".! ").lower() in ("yes", "true")


def _choices(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [member.value for member in annotation]
    return []


def _chosen(choices: list[Any], text: str) -> Iterator[Any]:
    plain: Callable[[Any], str] = lambda value: str(value).strip().strip("\"'`.!").casefold()  # noqa: E731
    yield from (choice for choice in choices if plain(choice) == plain(text))


def jsonable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON-able ones; what JSON does not know becomes its text."""
    return dict(to_jsonable_python(dict(values), fallback=str))
