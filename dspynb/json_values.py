"""Conversion of Python values to JSON values, for run files, requests and fingerprints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from dspynb.conversation import History
from dspynb.data import Usage
from dspynb.exits import is_exit
from dspynb.media.describe import describe_url

__all__ = ["SCALARS", "is_plain", "plain"]

SCALARS = frozenset({type(None), bool, int, float})
_USAGE = tuple(f.name for f in fields(Usage))
_STRING = frozenset({str})


def plain(value: object) -> Any:
    """Convert a value to the JSON value that a run file contains. NaN and infinity stay floats."""
    try:
        return _convert_json_types(value)
    except Exception:  # another type, or nested too deeply
        if isinstance(value, int):
            return value
        return _convert_any_type(value)


def is_plain(value: Any) -> bool:
    """Whether a value consists of JSON types only."""
    kind = type(value)
    if kind is str or kind in SCALARS:
        return True
    if kind is dict:
        return _STRING.issuperset(map(type, value)) and all(map(is_plain, value.values()))
    return (kind is list or kind is tuple) and all(map(is_plain, value))


def _convert_json_types(value: Any) -> Any:
    """Convert a value of the most frequent types, in a third of the time. Raises TypeError for any other type."""
    kind = type(value)
    if kind in SCALARS:
        return value
    if kind is str:
        return _text(value)
    if kind is dict and _STRING.issuperset(map(type, value)):
        return {key: _convert_json_types(item) for key, item in value.items()}
    if kind is tuple or kind is list:
        return [_convert_json_types(item) for item in value]
    if kind is Usage:
        return {name: getattr(value, name) for name in _USAGE}
    raise TypeError


def _convert_any_type(value: object) -> Any:
    from pydantic_core import to_jsonable_python

    try:
        prepared = _prepare(value)
        return to_jsonable_python(prepared, fallback=_number_or_repr, inf_nan_mode="constants", bytes_mode="base64")
    except Exception:  # circular, nested too deeply, or an object whose repr fails
        if isinstance(value, Mapping):  # the other values of the dict can still be converted
            return {str(key): plain(item) for key, item in value.items()}
        return _repr(value)


def _prepare(value: object) -> Any:
    """A copy of a value with iterators replaced by their repr, since writing would exhaust them; with data URLs
    replaced by descriptions; and with sets as sorted lists."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {key: _prepare(item) for key, item in value.items()}
    if isinstance(value, History):
        return [_prepare(turn) for turn in value.to_list()]
    if isinstance(value, set | frozenset):
        value = sorted(value, key=repr)  # the order of a set differs from process to process
    if isinstance(value, list | tuple):
        return [_prepare(item) for item in value]
    if hasattr(value, "__next__"):
        return _repr(value)
    return value


def _number_or_repr(value: Any) -> Any:
    if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
        return value.item()
    return _repr(value)


def _repr(value: object) -> str:
    try:
        return repr(value)[:10_000]
    except BaseException as error:
        if not isinstance(error, Exception) and not is_exit(error):
            raise
        return f"<{type(value).__name__} that cannot be shown>"


def _text(text: str) -> str:
    """The text itself, or the description of a data URL."""
    return describe_url(text) if text[:5] == "data:" and ";base64," in text[:200] else text
