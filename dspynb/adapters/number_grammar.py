"""Rules in GBNF for numbers, within the limits of a field's JSON schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Any

__all__ = ["number_rule"]

_MOST_DIGITS = 15
"""Digits before the decimal point. Small models seldom end a number by themselves."""
_MOST_DIGITS_OF_STEPS = 6
"""The same, if the number is a multiple of 0.01 or the like: pydantic's test of larger ones is not exact."""
_MOST_DECIMALS = 15
_USUAL_DECIMALS = 4
"""Decimals of a number with limits; more only where no number with four decimals is within the limits."""
_MOST_LISTED = 200
"""Multiples of a number that are written out as alternatives."""
_DECIMAL_STEPS = tuple(Fraction(1, 10**decimals) for decimals in range(1, 7))


def number_rule(schema: Mapping[str, Any], *, is_whole: bool) -> str | None:
    """The rule for a number, or None if no number with the usual number of digits is within the limits.

    ``schema``: the number's JSON schema, whose ``minimum``, ``maximum``, ``exclusiveMinimum``, ``exclusiveMaximum`` and
    ``multipleOf`` hold. ``is_whole``: whether the number has no decimals.
    """
    limits = _Limits.of(schema)
    most_decimals = 0 if is_whole else limits.decimals
    listed = list(limits.multiples(is_whole=is_whole))
    if listed:
        return f"({' | '.join(listed)})"
    whole = f'("0" | [1-9] [0-9]{{0,{limits.digits - 1}}})'
    fraction = f' ("." [0-9]{{1,{most_decimals}}})?' if most_decimals else ""
    if limits.low is None and limits.high is None:
        return f'"-"? {whole}{fraction}'
    if limits.low == 0 and not limits.excludes_low and limits.high is None:
        return f"{whole}{fraction}"
    alternatives: list[str] = []
    for decimals in range(most_decimals + 1):
        if alternatives and decimals > _USUAL_DECIMALS:
            break
        alternatives += _signed_ranges(*limits.scaled(10**decimals), decimals)
    return f"({' | '.join(alternatives)})" if alternatives else None


@dataclass(frozen=True, slots=True)
class _Limits:
    low: Fraction | None
    high: Fraction | None
    excludes_low: bool
    excludes_high: bool
    step: Fraction | None

    @classmethod
    def of(cls, schema: Mapping[str, Any]) -> _Limits:
        low, excludes_low = _stricter(schema, "minimum", "exclusiveMinimum", max)
        high, excludes_high = _stricter(schema, "maximum", "exclusiveMaximum", min)
        step = _exact(schema.get("multipleOf"))
        return cls(low, high, excludes_low, excludes_high, step)

    def scaled(self, factor: Fraction | int) -> tuple[int, int]:
        """The lowest and the highest whole number that is within the limits after division by a positive factor."""
        most = 10**self.digits * ceil(factor) - 1
        low = -most
        high = most
        if self.low is not None:
            low = ceil(self.low * factor)
            low += self.excludes_low and low == self.low * factor
        if self.high is not None:
            high = floor(self.high * factor)
            high -= self.excludes_high and high == self.high * factor
        if self.step in _DECIMAL_STEPS:
            return max(low, -most), min(high, most)
        return low, high

    @property
    def digits(self) -> int:
        """The largest number of digits before the point, where there is no limit."""
        return _MOST_DIGITS_OF_STEPS if self.step in _DECIMAL_STEPS else _MOST_DIGITS

    @property
    def decimals(self) -> int:
        """The largest number of decimals: that of a step such as 0.01."""
        if self.step in _DECIMAL_STEPS:
            return _DECIMAL_STEPS.index(self.step) + 1
        return _MOST_DECIMALS

    def multiples(self, *, is_whole: bool) -> Iterator[str]:
        """The numbers that are written out: all whole numbers within the limits, if they are few, or the multiples of
        a step. Of many multiples, these are the ones around zero or next to a limit."""
        step = self.step
        if step is None and is_whole and self.low is not None and self.high is not None:
            step = Fraction(1)
        if step is None or (step in _DECIMAL_STEPS and not is_whole):
            return
        low, high = self.scaled(1 / step)
        if high - low >= _MOST_LISTED:
            if self.step is None:
                return
            low = min(max(low, -_MOST_LISTED // 2), high - _MOST_LISTED + 1)
            high = low + _MOST_LISTED - 1
        for number in range(low, high + 1):
            value = number * step
            yield f'"{int(value) if value.denominator == 1 else float(value)}"'


def _stricter(schema: Mapping[str, Any], inclusive: str, exclusive: str, choose: Any) -> tuple[Fraction | None, bool]:
    """The stricter one of two limits, and whether it excludes its own value."""
    included = _exact(schema.get(inclusive))
    excluded = _exact(schema.get(exclusive))
    if included is None or excluded is None:
        return included if excluded is None else excluded, excluded is not None
    limit = choose(included, excluded)
    return limit, limit == excluded


def _exact(limit: object) -> Fraction | None:
    """A limit as its decimal digits say, or None for no limit and for infinity."""
    if isinstance(limit, int | float) and limit not in (float("inf"), float("-inf")):
        return Fraction(str(limit))
    return None


def _signed_ranges(low: int, high: int, decimals: int) -> Iterator[str]:
    """The rules for the whole numbers from low to high, with a point before the last ``decimals`` digits."""
    if low < 0:
        negative = list(_ranges(max(1, -high), -low, decimals))
        if negative:
            yield f'"-" ({" | ".join(negative)})'
    if high >= 0:
        yield from _ranges(max(0, low), high, decimals)


def _ranges(low: int, high: int, decimals: int) -> Iterator[str]:
    """One rule for each number of digits."""
    shortest = decimals + 1
    for length in range(max(shortest, len(str(low))), max(shortest, len(str(high))) + 1):
        first = max(low, 0 if length == shortest else 10 ** (length - 1))
        last = min(high, 10**length - 1)
        if first <= last:
            yield _between(f"{first:0{length}}", f"{last:0{length}}", decimals)


def _between(first: str, last: str, decimals: int) -> str:
    """The rule for the digits from first to last, which have the same length."""
    length = len(first)
    if not length:
        return ""
    if first == "0" * length and last == "9" * length:
        return _any_digits(length, decimals)
    point = '"." ' if length == decimals else ""
    if first[0] == last[0]:
        return f'{point}"{first[0]}" {_between(first[1:], last[1:], decimals)}'.strip()
    rest = length - 1
    lowest = first[0]
    highest = last[0]
    parts = []
    if first[1:] != "0" * rest:
        parts.append(f'"{lowest}" {_between(first[1:], "9" * rest, decimals)}'.strip())
        lowest = str(int(lowest) + 1)
    last_part = ""
    if last[1:] != "9" * rest:
        last_part = f'"{highest}" {_between("0" * rest, last[1:], decimals)}'.strip()
        highest = str(int(highest) - 1)
    if lowest <= highest:
        parts.append(f"[{lowest}-{highest}] {_any_digits(rest, decimals)}".strip())
    if last_part:
        parts.append(last_part)
    return f"{point}({' | '.join(parts)})"


def _any_digits(count: int, decimals: int) -> str:
    if not count:
        return ""
    if not decimals or count < decimals:
        return f"[0-9]{{{count}}}"
    whole = f"[0-9]{{{count - decimals}}} " if count > decimals else ""
    return f'{whole}"." [0-9]{{{decimals}}}'
