"""HTML of a pandas table for a notebook: texts left-aligned and not squeezed, numbers short, missing values empty."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from dspynb.errors import shorten

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame_html"]

_MAX_TEXT = 200
_LEFT = "text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere"
_RIGHT = "text-align:right"
_UNBROKEN = "white-space:nowrap;vertical-align:top"


def frame_html(frame: pd.DataFrame) -> str:
    """The frame as HTML, everything escaped, texts cut at 200 characters. Columns without a value are left out."""
    columns = {}
    for name in frame.columns:
        values = [_none_if_missing(value) for value in frame[name]]
        if any(value is not None for value in values):
            columns[name] = values
    head = _heading(frame.index.name or "", _LEFT)
    for name, values in columns.items():
        head += _heading(name, _side(values))
    rows = []
    for number, label in enumerate(frame.index):
        cells = "".join(_cell(values[number], values) for values in columns.values())
        rows.append(f"<tr>{_heading(label, _LEFT)}{cells}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _heading(value: object, side: str) -> str:
    return f"<th style='{side};{_UNBROKEN}'>{escape(_text(value))}</th>"


def _none_if_missing(value: object) -> Any:
    """The value, or None for NaN and similar values, which do not equal themselves."""
    try:
        missing = value is None or bool(value != value)  # noqa: PLR0124
    except Exception:  # an array, or a class that compares in its own way
        missing = False
    return None if missing else value


def _is_number(value: object) -> bool:
    return hasattr(value, "__float__") and not hasattr(value, "__len__")


def _side(values: list[Any]) -> str:
    return _RIGHT if all(value is None or _is_number(value) for value in values) else _LEFT


def _cell(value: object, column: list[Any]) -> str:
    longest = max(len(_text(other)) for other in column)
    # Without a minimum, columns of long words squeeze this one to nothing, since its words may be broken anywhere.
    width = f"min-width:{min(22, 0.6 * longest):.3g}em"
    return f"<td style='{_side(column)};vertical-align:top;{width}'>{escape(_text(value))}</td>"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, bool) and _is_number(value):
        number = float(value)
        if number.is_integer():
            return f"{int(number):,}"
        return f"{number:.4g}"
    return shorten(value, _MAX_TEXT).encode("utf-8", "replace").decode()
