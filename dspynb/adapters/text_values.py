"""Values that stand in words: the one number, the one date, yes or no, bullets. What is ambiguous is not read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

__all__ = ["bullets", "moment", "number", "truth"]

_CLUSTER = re.compile(r"(?:(?P<sign>[-−])|\+)?(?P<body>\.?\d++(?:[.,]\d++)*+(?:[eE][-+]?\d++)?)")
_PLAIN = re.compile(r"\d++(?:\.\d++)?(?:[eE][-+]?\d++)?|\.\d++")
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d++)?")
_CONTINENTAL = re.compile(r"\d{1,3}(?:\.\d{3})+,\d++|\d{1,3}(?:\.\d{3}){2,}")
_AFTER = re.compile(r"\s?(?:(?P<percent>%|percent\b|per cent\b)|(?P<times>thousand|million|billion|trillion)\b)")
_SHORT = re.compile(r"(?:[kKMBT]|bn|mn)(?!\w)")  # 5k, 5M: thousand or kelvin, million or metres
_TIMES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_LONGEST = 400  # digits of a number in prose


def number(text: str, *, share: bool) -> str | None:
    """The only number in the text, in plain digits, or None. ``share``: a percentage is a part of 1."""
    found = [match for _, match in zip(range(2), _CLUSTER.finditer(text), strict=False)]
    if len(found) != 1 or len(found[0][0]) > _LONGEST:
        return None
    match = found[0]
    before, behind = text[: match.start()][-1:], text[match.end() :]
    value = _plain(match["body"])
    if value is None or before.isalnum() or before == "_" or _SHORT.match(behind):
        return None
    after = _AFTER.match(behind)
    sign = "-" if match["sign"] else ""
    if after is None or not (after["times"] or share):
        return sign + value
    if "e" in value.lower():
        return None
    factor = Decimal(_TIMES[after["times"]]) if after["times"] else Decimal("0.01")
    return f"{sign}{Decimal(value) * factor:f}"


def _plain(body: str) -> str | None:
    if _PLAIN.fullmatch(body):
        return body
    if _GROUPED.fullmatch(body):
        return body.replace(",", "")
    return body.replace(".", "").replace(",", ".") if _CONTINENTAL.fullmatch(body) else None


_TRUTH = re.compile(r"(yes|no|true|false)\b(?=\s*(?:[.,;:!)–—-]|$))", re.IGNORECASE)
_OPPOSED = {"yes": {"no", "false"}, "true": {"no", "false"}, "no": {"yes", "true"}, "false": {"yes", "true"}}


def truth(text: str) -> bool | None:
    """True or False where the text begins with yes, no, true or false and never says the opposite."""
    match = _TRUTH.match(text)
    if match is None:
        return None
    word = match[1].lower()
    said = set(re.findall(r"\w+", text.lower()))
    return None if said & _OPPOSED[word] else word in ("yes", "true")


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


def moment(kind: Any, text: str) -> Any:
    """The only date, time or length of time in the text, in a form that pydantic reads, or None."""
    if kind is timedelta:
        return _length(text)
    found = list(_clock(text) if kind is time else _dates(text) if kind in (date, datetime) else [])
    return found[0] if len(found) == 1 else None


def _dates(text: str) -> Iterator[str]:
    yield from _ISO.findall(text)
    for day, month, year in _DAY_FIRST.findall(text):
        yield _iso(year, month, day)
    for month, day, year in _MONTH_FIRST.findall(text):
        yield _iso(year, month, day)


def _iso(year: str, month: str, day: str) -> str:
    number = next(i for i, name in enumerate(_MONTHS, 1) if name.startswith(month[:3].lower()))
    return f"{year}-{number:02}-{int(day):02}"


def _clock(text: str) -> Iterator[str]:
    for hour, minute, rest, half in _CLOCK.findall(text):
        hours = int(hour) % 12 + 12 * (half.lower() == "p") if half else int(hour)
        yield f"{hours:02}:{minute}{rest}"


def _length(text: str) -> timedelta | None:
    parts = _SPAN.findall(text.lower())
    if not parts or re.search(r"\d", _SPAN.sub("", text.lower())):
        return None
    return sum((timedelta(**{_UNITS[unit]: float(n)}) for n, unit in parts), timedelta())


_BULLET = re.compile(r"[ \t]*(?:[-*•–]|\d{1,4}[.)])[ \t]+(\S.*)")


def bullets(text: str) -> list[str] | None:
    """The items of a bulleted or numbered list, one a line, after at most one line that ends with a colon."""
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and lines[0].rstrip().endswith(":") and not _BULLET.fullmatch(lines[0]):
        lines = lines[1:]
    items = [match[1].strip() for line in lines if (match := _BULLET.fullmatch(line))]
    return items if items and len(items) == len(lines) else None
