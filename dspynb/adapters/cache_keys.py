"""Demos as a key: equal only where what is written for them is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

from dspynb.media.values import Medium

__all__ = ["Frozen"]

_BY_TEXT = frozenset({float, complex, Decimal, date, datetime, time, timedelta})
"""Equal values of these can be written differently: -0.0 and 0.0, 1.0 and 1.00, one moment in two time zones."""


class Frozen:
    """Rows with a hash by content and type, so that 1, 1.0 and True differ; ``rows`` are the rows themselves."""

    __slots__ = ("_hash", "_key", "rows")

    def __init__(self, rows: tuple[Mapping[str, Any], ...], key: tuple[Any, ...]) -> None:
        self.rows, self._key, self._hash = rows, key, hash(key)

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Frozen | None:
        """None where a value is not a plain one: its equality may not tell when it was changed."""
        rows = tuple(rows)
        try:
            return cls(rows, tuple(_key(dict(row)) for row in rows))
        except _NotPlainError:
            return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash


class _NotPlainError(Exception):
    """A value whose equality is not known."""


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
