"""Cache keys for demos: two keys are equal only if the demos are written as the same text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

from dspynb.media.values import Medium

__all__ = ["FrozenRows"]

_BY_TEXT = frozenset({float, complex, Decimal, date, datetime, time, timedelta})
"""Types whose equal values can have different texts: -0.0 and 0.0, 1.0 and 1.00, one instant in two time zones.

Such a value is compared by its repr."""


class FrozenRows:
    """Rows that are hashed and compared by content and type, so that 1, 1.0 and True differ."""

    __slots__ = ("_hash", "_key", "rows")

    def __init__(self, rows: tuple[Mapping[str, Any], ...], key: tuple[Any, ...]) -> None:
        self.rows = rows
        self._key = key
        self._hash = hash(key)

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> FrozenRows | None:
        """Return the rows as a key, or None if a value is of another type: it might change and still compare equal."""
        rows = tuple(rows)
        try:
            return cls(rows, tuple(_key(dict(row)) for row in rows))
        except _NotPlainError:
            return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FrozenRows) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash


class _NotPlainError(Exception):
    """A value is of a type that cannot be part of a key."""


def _key(value: Any) -> Any:
    kind = type(value)
    if kind is str or value is None:
        return value
    if kind in (int, bool, bytes) or isinstance(value, Enum | Medium):
        return kind, value
    if kind in _BY_TEXT:
        return kind, repr(value)
    if kind in (list, tuple):
        return kind, tuple(_key(item) for item in value)
    if kind is dict:
        return kind, tuple((_key(name), _key(item)) for name, item in value.items())
    raise _NotPlainError
