"""A pandas table as a notebook shows it: texts to the left and not squeezed, numbers short, empty cells empty."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from dspynb.errors import shorten

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame_html"]

_MOST = 200
_LEFT = "text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere"
_WHOLE = "white-space:nowrap;vertical-align:top"


def frame_html(frame: pd.DataFrame) -> str:
    """The frame as HTML, everything escaped, texts cut at 200 characters. Columns without a value are left out."""
    cells = {column: [_empty_or(value) for value in frame[column]] for column in frame.columns}
    kept = {column: values for column, values in cells.items() if any(value is not None for value in values)}
    names = "".join(f"<th style='{_side(values)};{_WHOLE}'>{_text(name)}</th>" for name, values in kept.items())
    rows = [
        f"<tr><th style='{_LEFT};{_WHOLE}'>{_text(label)}</th>{''.join(_cell(v[i], v) for v in kept.values())}</tr>"
        for i, label in enumerate(frame.index)
    ]
    head = f"<tr><th style='{_LEFT};{_WHOLE}'>{_text(frame.index.name or '')}</th>{names}</tr>"
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _empty_or(value: Any) -> Any:
    """The value; None for what pandas takes for none."""
    try:
        return None if value is None or bool(value != value) else value  # noqa: PLR0124  # as NaN does
    except Exception:  # an array, or a class that compares in its own way
        return value


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not hasattr(value, "__len__")


def _side(values: list[Any]) -> str:
    return "text-align:right" if all(value is None or _is_number(value) for value in values) else _LEFT


def _cell(value: Any, column: list[Any]) -> str:
    longest = max(len(_told(v)) for v in column)
    width = f"min-width:{min(22, 0.6 * longest):.3g}em"  # else long words, which may be broken, squeeze it to nothing
    return f"<td style='{_side(column)};vertical-align:top;{width}'>{_text(value)}</td>"


def _told(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, bool) and _is_number(value):
        number = float(value)
        return f"{int(number):,}" if number.is_integer() else f"{number:.4g}"
    return shorten(value, _MOST).encode("utf-8", "replace").decode()


def _text(value: Any) -> str:
    return escape(_told(value))
