"""Typed values to text and back."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, get_origin

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from dspynb.adapters.lenient_json import json_values, read_json, read_loose
from dspynb.adapters.text_values import bullets, moment, number, truth
from dspynb.errors import ParseError, shorten
from dspynb.signatures.fields import Field

__all__ = ["output_text", "parse_json", "parse_value", "plain", "to_text"]

_FENCE = re.compile(r"```[^\n`]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_UNSEEN = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060"
_NUMBERS = (int, float, Decimal)
_MOMENTS = (date, datetime, time, timedelta)
_SURROGATE = re.compile("[\ud800-\udfff]")
_HALVES = re.compile(r"\\u[dD][89a-fA-F]")


def to_text(field: Field, value: Any) -> str:
    """A value as a model reads it: text as it is, all else as JSON."""
    if isinstance(value, str) and not isinstance(value, Enum):
        return value
    try:
        return field.adapter.dump_json(_ordered(value), warnings=False).decode()
    except Exception:
        return _dumps(plain(field, value))


def output_text(field: Field, value: Any) -> str:
    """A value as ``parse_value`` reads it back: text as it is wherever that is enough, all else as JSON."""
    if isinstance(value, str) and not isinstance(value, Enum) and (field.is_text or _reads_as(field, value)):
        return value
    return _dumps(plain(field, value))


def plain(field: Field, value: Any) -> Any:
    """A value as JSON-able ones; what JSON does not know becomes its text."""
    try:
        return field.adapter.dump_python(_ordered(value), mode="json", by_alias=True, warnings=False)
    except Exception:
        return to_jsonable_python(value, fallback=str)


def _ordered(value: Any) -> Any:
    """A set as a list, in the same order in every process: else its texts are no cached request's."""
    return sorted(value, key=repr) if isinstance(value, set | frozenset) else value


def _dumps(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return json.dumps(value, separators=(",", ":"), default=str) if _SURROGATE.search(text) else text


def _reads_as(field: Field, text: str) -> bool:
    try:
        read = parse_value(field, text, text)
    except ParseError:
        return False
    return type(read) is str and read == text


def parse_value(field: Field, text: str, raw: str) -> Any:
    """The text of one output as a value of the field's type.

    Tried in order: JSON, the text itself, its words (``yes`` for true, a choice in other case, the only number or date
    in prose), JSON as models write it, JSON in prose, bullets for a list. A ``str`` is taken exactly as it stands.
    Raises ParseError (stage ``validate``) with what pydantic said of the reading that came furthest.
    """
    if field.is_text:
        return _first_valid(field, [text], raw)
    if field.is_optional_text:
        return _first_valid(field, [_optional_text(text)], raw)
    return _read(field, text, raw, [])


def _read(field: Field, text: str, raw: str, exact: list[str]) -> Any:
    bare = text.strip().strip(_UNSEEN).strip()
    try:
        return _first_valid(field, _chain(exact, _readings(field, bare)), raw)
    except ParseError:
        if damage := _damage(bare):
            said = f"the JSON cannot be read: {damage}"
            raise ParseError(said, raw=raw, stage="decode", field=field.name) from None
        raise


def _damage(text: str) -> str | None:
    """What is wrong with a text that begins as JSON, where it is no JSON."""
    inner = match[1].strip() if (match := _FENCE.fullmatch(text)) else text
    if inner[:1] not in ("{", "["):
        return None
    try:
        read_loose(inner)
    except ValueError as error:
        return str(error)
    return None


def parse_json(field: Field, given: Any, raw: str) -> Any:
    """A decoded JSON value as a value of the field's type; a text in it is read as by ``parse_value``.

    Raises ParseError.
    """
    if field.is_text:
        scalar = isinstance(given, bool | int | float | list | dict)
        return _first_valid(field, [json.dumps(given, ensure_ascii=False) if scalar else given], raw)
    if not isinstance(given, str):
        return _first_valid(field, _fitting(field, given), raw)
    exact = [] if field.core in (date, datetime) and given.strip().isdigit() else [given]
    if field.is_optional_text:
        return _first_valid(field, exact, raw)
    return _read(field, given, raw, exact)


def _chain(*sources: Iterable[Any]) -> Iterator[Any]:
    for source in sources:
        yield from source


def _first_valid(field: Field, readings: Iterable[Any], raw: str) -> Any:
    worst: ValidationError | None = None
    halves = "\\u" in raw and _HALVES.search(raw) is not None
    try:
        for reading in readings:
            try:
                return _validated(field, _mended(reading) if halves else reading)
            except ValidationError as error:
                worst = error if worst is None or _telling(error) > _telling(worst) else worst
    except (RecursionError, OverflowError):
        raise ParseError("the value is nested too deeply", raw=raw, stage="decode", field=field.name) from None
    problem = _problem(worst) if worst else "nothing of that type is in it"
    raise ParseError(f"not a valid {field.type_text}: {problem}", raw=raw, stage="validate", field=field.name)


def _validated(field: Field, reading: Any) -> Any:
    """The reading as the field's type. Raises ValidationError."""
    try:
        return field.adapter.validate_python(reading)
    except ValidationError:
        # A strict model takes a date in its JSON form only as JSON.
        if isinstance(reading, list | dict | str):
            with contextlib.suppress(ValueError):
                return field.adapter.validate_json(json.dumps(reading))
        raise


_CONSTRAINTS = frozenset(
    {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of", "finite_number"}
    | {"too_short", "too_long", "string_too_short", "string_too_long", "string_pattern_mismatch"}
    | {"decimal_max_digits", "decimal_max_places", "decimal_whole_digits", "value_error", "assertion_error"}
)


def _telling(error: ValidationError) -> int:
    """How far a reading came: a broken constraint tells more than a wrong part, and that more than a wrong type."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return 2 if all(e["type"] in _CONSTRAINTS for e in found) else 1 if any(e["loc"] for e in found) else 0


def _mended(value: Any) -> Any:
    """The value with halves of surrogate pairs, which no file or screen takes, replaced."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    return [_mended(item) for item in value] if isinstance(value, list) else value


def _problem(error: ValidationError) -> str:
    told = []
    for item in error.errors(include_url=False, include_context=False)[:3]:
        at = ".".join(map(str, item["loc"]))
        told.append(f"{at}: " * bool(at) + f"{item['msg']}, got {shorten(repr(item['input'])[:2000], 80)}")
    return "; ".join(told)


def _readings(field: Field, text: str) -> Iterator[Any]:
    inner = match[1].strip() if (match := _FENCE.fullmatch(text)) else text
    if field.takes_none and inner.strip(". ").casefold() in ("null", "none", "n/a"):
        yield None
    if field.core is Decimal:  # before JSON makes a float of it
        yield inner
    with contextlib.suppress(ValueError):
        yield from _fitting(field, read_json(inner))
    if choices := field.choices:
        yield from _chosen(choices, inner)
    if not (field.core in (date, datetime) and inner.isdigit()):
        yield inner
    yield from _in_words(field, inner.strip("*`\"'_ "))
    yield from _in_json(field, inner)


def _fitting(field: Field, value: Any) -> Iterator[Any]:
    """The JSON value, unless pydantic would read something else out of it: 1 out of true, 1970 out of 2024."""
    if isinstance(value, bool) and field.core in _NUMBERS:
        return
    if isinstance(value, int) and field.core in (date, datetime) and abs(value) < 10**8:
        return
    choices = field.choices
    if not choices or value is None:
        yield value
    yield from (takes for written, takes in choices if type(value) is type(written) and value == written)


def _optional_text(text: str) -> str | None:
    """Text as it is, but ``null`` for None; and quoted where the text itself reads ``null``, or is such a quotation."""
    bare = text.strip()
    if bare in _NULLS:
        return None
    return str(json.loads(bare, strict=False)) if _quotes_null(bare) else text


_NULLS = ("null", "None")


def _quotes_null(text: str) -> bool:
    try:
        while text.startswith('"') and isinstance(inner := json.loads(text, strict=False), str):
            text = inner.strip()
            if text in _NULLS:
                return True
    except ValueError:
        pass
    return False


def _in_words(field: Field, text: str) -> Iterator[Any]:
    if field.core in _NUMBERS and (found := number(text, share=_is_share(field))) is not None:
        yield found
    elif field.core is bool and (sure := truth(text)) is not None:
        yield sure
    elif field.core in _MOMENTS and (when := moment(field.core, text)) is not None:
        yield when


def _is_share(field: Field) -> bool:
    bounds = [getattr(m, side, None) for m in field.info.metadata for side in ("le", "lt")]
    return any(isinstance(bound, int | float | Decimal) and bound <= 1 for bound in bounds)


def _in_json(field: Field, text: str) -> Iterator[Any]:
    """JSON as models write it; the only JSON value in prose; bullets."""
    with contextlib.suppress(ValueError):
        yield from _fitting(field, read_loose(text))
    if field.core in (*_NUMBERS, *_MOMENTS, bool) or field.choices:
        return
    fitting: list[Any] = []
    with contextlib.suppress(ValueError):
        fitting = [value for value in json_values(text, "{[") if _fits(field, value)]
    if fitting and all(value == fitting[0] for value in fitting):
        yield fitting[0]
    if get_origin(field.core) in (list, tuple, set, frozenset) and (items := bullets(text)):
        yield items


def _fits(field: Field, value: Any) -> bool:
    try:
        _validated(field, value)
    except ValidationError:
        return False
    return True


def _chosen(choices: tuple[tuple[Any, Any], ...], text: str) -> Iterator[Any]:
    """The choice the text is; else the only one it is in another case or in quotes; else the member of that name."""
    folded = _folded(text)
    alike = [takes for written, takes in choices if str(written) == text]
    alike = alike or [takes for written, takes in choices if _folded(written) == folded]
    alike = alike or [takes for _, takes in choices if isinstance(takes, Enum) and _folded(takes.name) == folded]
    yield from alike if len(alike) == 1 else ()


def _folded(value: Any) -> str:
    return str(value).strip().strip("\"'`.!*").strip().casefold()
