"""Reads a value out of prose: the only number, the only date, yes or no, a bulleted list. Returns None if ambiguous."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any

__all__ = ["read_bool", "read_bullets", "read_number", "read_time"]

_CLUSTER = re.compile(r"(?:(?P<sign>[-−])|\+)?(?P<body>\.?\d++(?:[.,]\d++)*+(?:[eE][-+]?\d++)?)")
_PLAIN = re.compile(r"\d++(?:\.\d++)?(?:[eE][-+]?\d++)?|\.\d++")
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d++)?")
_CONTINENTAL = re.compile(r"\d{1,3}(?:\.\d{3})+,\d++|\d{1,3}(?:\.\d{3}){2,}")
_UNIT_AFTER = re.compile(r"\s?(?:(?P<percent>%|percent\b|per cent\b)|(?P<factor>thousand|million|billion|trillion)\b)")
_SHORT = re.compile(r"(?:[kKMBT]|bn|mn)(?!\w)")  # 5k, 5M: thousand or kelvin, million or metres
_FACTORS = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_MAX_DIGITS = 400  # longest number that is read from prose


def read_number(text: str, *, share: bool) -> str | None:
    """Return the only number in the text in plain digits, or None. ``share``: a percentage is a fraction of 1."""
    matches = list(islice(_CLUSTER.finditer(text), 2))
    if len(matches) != 1 or len(matches[0][0]) > _MAX_DIGITS:
        return None
    match = matches[0]
    before = text[: match.start()][-1:]
    after = text[match.end() :]
    digits = _plain_digits(match["body"])
    if digits is None or before.isalnum() or before == "_" or _SHORT.match(after):
        return None
    sign = "-" if match["sign"] else ""
    unit = _UNIT_AFTER.match(after)
    if unit is None or not (unit["factor"] or share):
        return sign + digits
    if "e" in digits.lower():
        return None
    factor = Decimal(_FACTORS[unit["factor"]]) if unit["factor"] else Decimal("0.01")
    return f"{sign}{Decimal(digits) * factor:f}"


def _plain_digits(body: str) -> str | None:
    if _PLAIN.fullmatch(body):
        return body
    if _GROUPED.fullmatch(body):
        return body.replace(",", "")
    if _CONTINENTAL.fullmatch(body):
        return body.replace(".", "").replace(",", ".")
    return None


_TRUTH = re.compile(r"(yes|no|true|false)\b(?=\s*(?:[.,;:!)–—-]|$))", re.IGNORECASE)
_OPPOSED = {"yes": {"no", "false"}, "true": {"no", "false"}, "no": {"yes", "true"}, "false": {"yes", "true"}}


def read_bool(text: str) -> bool | None:
    """Read yes, no, true or false at the beginning of the text. None if there is none or the text contradicts it."""
    match = _TRUTH.match(text)
    if match is None:
        return None
    word = match[1].lower()
    words = set(re.findall(r"\w+", text.lower()))
    if words & _OPPOSED[word]:
        return None
    return word in ("yes", "true")


_MONTHS = ["january", "february", "march", "april", "may", "june"]
_MONTHS += ["july", "august", "september", "october", "november", "december"]
_MONTH = "|".join(f"{m[:3]}(?:{m[3:]})?" if len(m) > 3 else m for m in _MONTHS)
_ISO = re.compile(r"(?<!\d)\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?(?!\d)")
_DAY_FIRST = re.compile(rf"(?<!\d)(\d{{1,2}})(?:st|nd|rd|th)?(?: of)? ({_MONTH})\.?,? (\d{{4}})(?!\d)", re.IGNORECASE)
_MONTH_FIRST = re.compile(rf"\b({_MONTH})\.? (\d{{1,2}})(?:st|nd|rd|th)?,? (\d{{4}})(?!\d)", re.IGNORECASE)
_CLOCK = re.compile(r"(?<![\d:])(\d{1,2}):(\d\d)(:\d\d(?:\.\d{1,6})?)?(?![\d:])(?:\s?([ap])\.?m\b)?", re.IGNORECASE)
_SPAN = re.compile(
    r"(?<![\d.])(\d{1,9}(?:\.\d{1,9})?)\s?(w|d|h|m|s)(?:eeks?|ays?|ours?|rs?|in(?:ute)?s?|ec(?:ond)?s?)?\b"
)
_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def read_time(kind: object, text: str) -> Any:
    """Return the only date, time or duration in the text, in a form that pydantic reads, or None."""
    if kind is timedelta:
        return _duration(text)
    matches: list[str] = []
    if kind is time:
        matches = list(_times(text))
    elif kind in (date, datetime):
        matches = list(_dates(text))
    return matches[0] if len(matches) == 1 else None


def _dates(text: str) -> Iterator[str]:
    yield from _ISO.findall(text)
    for day, month, year in _DAY_FIRST.findall(text):
        yield _iso(year, month, day)
    for month, day, year in _MONTH_FIRST.findall(text):
        yield _iso(year, month, day)


def _iso(year: str, month: str, day: str) -> str:
    abbreviations = [name[:3] for name in _MONTHS]
    number = abbreviations.index(month[:3].lower()) + 1
    return f"{year}-{number:02}-{int(day):02}"


def _times(text: str) -> Iterator[str]:
    for hour_text, minute, seconds, half in _CLOCK.findall(text):
        hour = int(hour_text)
        if half:
            hour %= 12
            if half.lower() == "p":
                hour += 12
        yield f"{hour:02}:{minute}{seconds}"


def _duration(text: str) -> timedelta | None:
    parts = _SPAN.findall(text.lower())
    if not parts or re.search(r"\d", _SPAN.sub("", text.lower())):
        return None
    total = timedelta()
    for amount, unit in parts:
        total += timedelta(**{_UNITS[unit]: float(amount)})
    return total


_BULLET = re.compile(r"[ \t]*(?:[-*•–]|\d{1,4}[.)])[ \t]+(\S.*)")


def read_bullets(text: str) -> list[str] | None:
    """Return the items of a bulleted or numbered list, or None. One heading that ends with a colon may precede it."""
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and lines[0].rstrip().endswith(":") and not _BULLET.fullmatch(lines[0]):
        lines = lines[1:]
    items = []
    for line in lines:
        match = _BULLET.fullmatch(line)
        if match is None:
            return None
        items.append(match[1].strip())
    return items or None
