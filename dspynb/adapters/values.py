"""Converts typed values to text, and text back to typed values."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import chain
from typing import Any, get_origin

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from dspynb.adapters.example_turns import NotSupplied
from dspynb.adapters.lenient_json import json_values, read_json, read_loose
from dspynb.adapters.text_values import read_bool, read_bullets, read_number, read_time
from dspynb.errors import ParseError, shorten
from dspynb.signatures.fields import Field
from dspynb.whole_text import whole_text

__all__ = ["output_text", "parse_json", "parse_value", "to_json_value", "to_text", "with_defaults"]

_FENCE = re.compile(r"```[^\n`]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_LITERAL = re.compile(r"(?:typing\.)?Literal\[\s*(?P<quote>['\"]?)(?P<choice>[^'\"\[\]]*)(?P=quote)\s*\]")
"""A choice that is written as its type, as in ``Literal['yes']``."""
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060"
_NUMBER_TYPES = (int, float, Decimal)
_TIME_TYPES = (date, datetime, time, timedelta)
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def to_text(field: Field, value: object) -> str:
    """Return an input value as the model sees it: text unchanged, everything else as JSON."""
    if isinstance(value, str) and not isinstance(value, Enum):
        return value
    try:
        return field.adapter.dump_json(_ordered(value), warnings=False).decode()
    except Exception:
        return _dumps(to_json_value(field, value))


def output_text(field: Field, value: object) -> str:
    """Return an output value as ``parse_value`` reads it: text unchanged if it is read as itself, all else as JSON."""
    if isinstance(value, NotSupplied):
        return str(value)
    if isinstance(value, str) and not isinstance(value, Enum) and (field.is_text or _is_read_unchanged(field, value)):
        return value
    return _dumps(to_json_value(field, value))


def to_json_value(field: Field, value: object) -> Any:
    """Convert a value to JSON types. A value that pydantic cannot convert becomes its text."""
    try:
        return field.adapter.dump_python(_ordered(value), mode="json", by_alias=True, warnings=False)
    except Exception:
        return to_jsonable_python(value, fallback=whole_text)


def _ordered(value: object) -> Any:
    """Sort a set into a list, so that its text, and with it the cache key, is the same in every process."""
    return sorted(value, key=repr) if isinstance(value, set | frozenset) else value


def _dumps(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    if _SURROGATE.search(text):
        return json.dumps(value, separators=(",", ":"), default=str)
    return text


def _is_read_unchanged(field: Field, text: str) -> bool:
    try:
        value = parse_value(field, text, text)
    except ParseError:
        return False
    return type(value) is str and value == text


def with_defaults(fields: Mapping[str, Field], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all fields, in their order. Those that the reply leaves out have their default, or None."""
    return {name: values[name] if name in values else field.default() for name, field in fields.items()}


def parse_value(field: Field, text: str, raw: str) -> Any:
    """Convert the text of one output to the type of its field.

    These readings are tried in order, and the first valid one is used: JSON; the text itself; a value in prose (``yes``
    for true, a choice in another case, the only number or date); JSON with the usual errors of models; JSON in prose;
    bullets as a list. A ``str`` field takes the text unchanged.

    Args:
        field: The output field.
        text: The text of the value.
        raw: The whole reply, for the error.

    Raises:
        ParseError: No reading is valid (stage ``validate``, with pydantic's message for the best one), or the text is
            broken JSON (stage ``decode``).
    """
    if field.is_text:
        return _first_valid(field, [text], raw)
    if field.is_optional_text:
        return _first_valid(field, [_optional_text(text)], raw)
    return _read(field, text, raw, [])


def _read(field: Field, text: str, raw: str, exact: list[str]) -> Any:
    bare = text.strip().strip(_INVISIBLE).strip()
    try:
        return _first_valid(field, chain(exact, _readings(field, bare)), raw)
    except ParseError:
        damage = _json_damage(bare)
        if damage:
            problem = f"the JSON cannot be read: {damage}"
            raise ParseError(problem, raw=raw, stage="decode", field=field.name) from None
        raise


def _json_damage(text: str) -> str | None:
    """Return what is wrong with a text that begins like JSON, or None if it is valid or no JSON at all."""
    body = _unfenced(text)
    if body[:1] not in ("{", "["):
        return None
    try:
        read_loose(body)
    except ValueError as error:
        return str(error)
    return None


def _unfenced(text: str) -> str:
    """Remove a code fence around the text."""
    match = _FENCE.fullmatch(text)
    return match[1].strip() if match else text


def parse_json(field: Field, value: object, raw: str) -> Any:
    """Convert a decoded JSON value to the type of the field. Strings are read as by ``parse_value``.

    Raises ParseError.
    """
    if field.is_text:
        if isinstance(value, bool | int | float | list | dict):
            value = json.dumps(value, ensure_ascii=False)
        return _first_valid(field, [value], raw)
    if not isinstance(value, str):
        return _first_valid(field, _acceptable(field, value), raw)
    exact = [] if _is_digits_for_date(field, value.strip()) else [value]
    if field.is_optional_text:
        return _first_valid(field, exact, raw)
    return _read(field, value, raw, exact)


def _is_digits_for_date(field: Field, text: str) -> bool:
    """Whether pydantic would read the digits, such as a year, as seconds since 1970."""
    return field.core in (date, datetime) and text.isdigit()


def _first_valid(field: Field, readings: Iterable[Any], raw: str) -> Any:
    best_error: ValidationError | None = None
    has_surrogates = "\\u" in raw and _ESCAPED_SURROGATE.search(raw) is not None
    try:
        for reading in readings:
            try:
                return _validated(field, _without_surrogates(reading) if has_surrogates else reading)
            except ValidationError as error:
                if best_error is None or _progress(error) > _progress(best_error):
                    best_error = error
    except (RecursionError, OverflowError):
        raise ParseError("the value is nested too deeply", raw=raw, stage="decode", field=field.name) from None
    problem = _problem(best_error) if best_error else "nothing of that type is in it"
    raise ParseError(f"not a valid {field.type_text}: {problem}", raw=raw, stage="validate", field=field.name)


def _validated(field: Field, reading: object) -> Any:
    """Convert a reading to the type of the field. Raises ValidationError."""
    try:
        return field.adapter.validate_python(reading)
    except ValidationError:
        # A strict model accepts the JSON form of a date only from JSON.
        if isinstance(reading, list | dict | str):
            with contextlib.suppress(ValueError):
                return field.adapter.validate_json(json.dumps(reading))
        raise


_CONSTRAINTS = frozenset(
    {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of", "finite_number"}
    | {"too_short", "too_long", "string_too_short", "string_too_long", "string_pattern_mismatch"}
    | {"decimal_max_digits", "decimal_max_places", "decimal_whole_digits", "value_error", "assertion_error"}
)


def _progress(error: ValidationError) -> int:
    """How far a reading came: 2 if only a constraint is broken, 1 if a part has a wrong type, 0 if the whole has."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    if all(detail["type"] in _CONSTRAINTS for detail in details):
        return 2
    if any(detail["loc"] for detail in details):
        return 1
    return 0


def _without_surrogates(value: object) -> Any:
    """Replace lone surrogates, which cannot be written to a file or a screen."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value


def _problem(error: ValidationError) -> str:
    problems = []
    for detail in error.errors(include_url=False, include_context=False)[:3]:
        problem = f"{detail['msg']}, got {shorten(repr(detail['input'])[:2000], 80)}"
        location = ".".join(map(str, detail["loc"]))
        problems.append(f"{location}: {problem}" if location else problem)
    return "; ".join(problems)


def _readings(field: Field, text: str) -> Iterator[Any]:
    """Yield what the text may mean, the most literal reading first."""
    body = _unfenced(text)
    if field.takes_none and body.strip(". ").casefold() in ("null", "none", "n/a"):
        yield None
    if field.core is Decimal:  # before JSON turns it into a float
        yield body
    with contextlib.suppress(ValueError):
        yield from _acceptable(field, read_json(body))
    choices = field.choices
    if choices:
        yield from _matching_choice(choices, body)
        as_type = _LITERAL.fullmatch(body)
        if as_type:
            yield from _matching_choice(choices, as_type["choice"])
    if not _is_digits_for_date(field, body):
        yield body
    yield from _value_in_words(field, body.strip("*`\"'_ "))
    yield from _json_in_prose(field, body)


def _acceptable(field: Field, value: object) -> Iterator[Any]:
    """Yield a JSON value unless pydantic would convert it to another meaning: true to 1, or 2024 to a date in 1970.

    For a field with choices, also yield the choice that is written as the value.
    """
    if isinstance(value, bool) and field.core in _NUMBER_TYPES:
        return
    if isinstance(value, int) and field.core in (date, datetime) and abs(value) < 10**8:
        return
    choices = field.choices
    if not choices or value is None:
        yield value
    for written, choice in choices:
        if type(value) is type(written) and value == written:
            yield choice


def _optional_text(text: str) -> str | None:
    """Return None for ``null``, and other text unchanged. The text "null" itself is quoted; the quotes are removed."""
    bare = text.strip()
    if bare in _NULLS:
        return None
    return str(json.loads(bare, strict=False)) if _quotes_null(bare) else text


_NULLS = ("null", "None")


def _quotes_null(text: str) -> bool:
    """Whether the text is ``null`` as a JSON string, or such a string quoted again, any number of times."""
    try:
        while text.startswith('"'):
            inner = json.loads(text, strict=False)
            if not isinstance(inner, str):
                return False
            text = inner.strip()
            if text in _NULLS:
                return True
    except ValueError:
        pass
    return False


def _value_in_words(field: Field, text: str) -> Iterator[Any]:
    value: Any = None
    if field.core in _NUMBER_TYPES:
        value = read_number(text, share=_is_share(field))
    elif field.core is bool:
        value = read_bool(text)
    elif field.core in _TIME_TYPES:
        value = read_time(field.core, text)
    if value is not None:
        yield value


def _is_share(field: Field) -> bool:
    """Whether the field's upper bound is 1 or less, so that a percentage means a fraction of 1."""
    for constraint in field.info.metadata:
        for side in ("le", "lt"):
            bound = getattr(constraint, side, None)
            if isinstance(bound, int | float | Decimal) and bound <= 1:
                return True
    return False


def _json_in_prose(field: Field, text: str) -> Iterator[Any]:
    """Yield the text as loose JSON, then the only valid JSON value in it, then its bullets as a list."""
    with contextlib.suppress(ValueError):
        yield from _acceptable(field, read_loose(text))
    if field.core in (*_NUMBER_TYPES, *_TIME_TYPES, bool) or field.choices:
        return
    values: list[Any] = []
    with contextlib.suppress(ValueError):
        values = [value for value in json_values(text, "{[") if _is_valid(field, value)]
    if values and all(value == values[0] for value in values):
        yield values[0]
    if get_origin(field.core) in (list, tuple, set, frozenset):
        items = read_bullets(text)
        if items:
            yield items


def _is_valid(field: Field, value: object) -> bool:
    try:
        _validated(field, value)
    except ValidationError:
        return False
    return True


def _matching_choice(choices: tuple[tuple[Any, Any], ...], text: str) -> Iterator[Any]:
    """Yield the choice that equals the text, or the only one that equals it without case and quotes.

    If there is no such choice, yield the enum member whose name is the text.
    """
    folded = _folded(text)
    matches = [choice for written, choice in choices if str(written) == text]
    if not matches:
        matches = [choice for written, choice in choices if _folded(written) == folded]
    if not matches:
        matches = [choice for _, choice in choices if isinstance(choice, Enum) and _folded(choice.name) == folded]
    if len(matches) == 1:
        yield matches[0]


def _folded(value: object) -> str:
    return str(value).strip().strip("\"'`.!*").strip().casefold()
