"""Python values as JSON values: what run files, requests and fingerprints hold of them."""

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


def plain(value: Any) -> Any:
    """The value as a run file holds it: what JSON knows, numbers that are none (NaN) included."""
    try:
        return _plain_of_json_types(value)
    except Exception:  # of another type, or too deep
        return value if isinstance(value, int) else _plain_of_any_type(value)


def is_plain(value: Any) -> bool:
    """Whether a value is made of what JSON knows and of nothing else."""
    kind = type(value)
    if kind is str or kind in SCALARS:
        return True
    if kind is dict:
        return _STRING.issuperset(map(type, value)) and all(map(is_plain, value.values()))
    return (kind is list or kind is tuple) and all(map(is_plain, value))


def _plain_of_json_types(value: Any) -> Any:
    """What most values are, in a third of the time. Raises TypeError for any other type."""
    kind = type(value)
    if kind in SCALARS:
        return value
    if kind is str:
        return _text(value)
    if kind is dict and _STRING.issuperset(map(type, value)):
        return {key: _plain_of_json_types(item) for key, item in value.items()}
    if kind is tuple or kind is list:
        return [_plain_of_json_types(item) for item in value]
    if kind is Usage:
        return {name: getattr(value, name) for name in _USAGE}
    raise TypeError


def _plain_of_any_type(value: Any) -> Any:
    from pydantic_core import to_jsonable_python

    try:
        still = _writable(value)
        return to_jsonable_python(still, fallback=_number_or_repr, inf_nan_mode="constants", bytes_mode="base64")
    except Exception:  # circular, too deep, or of a type that fails to show itself: the other values are kept
        return {str(k): plain(v) for k, v in value.items()} if isinstance(value, Mapping) else _shown(value)


def _writable(value: Any) -> Any:
    """The value with iterators replaced by their text (to write them out would use them up), and data URLs too."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {key: _writable(item) for key, item in value.items()}
    if isinstance(value, History):
        return [_writable(turn) for turn in value.to_list()]
    if isinstance(value, set | frozenset):
        value = sorted(value, key=repr)  # its own order is another in every process
    if isinstance(value, list | tuple):
        return [_writable(item) for item in value]
    return _shown(value) if hasattr(value, "__next__") else value


def _number_or_repr(value: Any) -> Any:
    if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
        return value.item()
    return _shown(value)


def _shown(value: Any) -> str:
    try:
        return repr(value)[:10_000]
    except BaseException as error:
        if not isinstance(error, Exception) and not is_exit(error):
            raise
        return f"<{type(value).__name__} that cannot be shown>"


def _text(text: str) -> str:
    """The text; of a data URL, what it is."""
    return describe_url(text) if text[:5] == "data:" and ";base64," in text[:200] else text
