"""Values as text: capped, safe to encode, and the same every time."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["Named", "clip", "named", "number", "one_line", "signed", "text_of", "visible"]

MOST_CHARACTERS = 2_000
"""Of a cell or a changed stretch of a prompt; what is cut is counted in the text."""

Named = list[list[str]]
"""Pairs of a name (empty where it goes without saying) and a text; lists, since that is what JSON gives back."""


def text_of(value: Any) -> str:
    """The value as text: itself, or its repr. A repr that raises does not hurt the view."""
    if isinstance(value, str):
        return value
    try:
        return repr(value)
    except Exception:  # any class may have any repr
        return f"<{type(value).__name__} without a repr>"


def clip(value: Any, most: int = MOST_CHARACTERS) -> str:
    """At most ``most`` characters of the value's text, and how many were left out. Lone surrogates become ``?``."""
    text = text_of(value)
    if len(text) <= most and text.isascii():
        return text
    kept = text[:most].encode("utf-8", "replace").decode()
    return kept if len(text) <= most else f"{kept} … [{len(text) - most:,} more characters]"


def named(values: Mapping[str, Any] | None, most: int = MOST_CHARACTERS) -> Named:
    """Name and clipped text of each value."""
    return [[clip(name, 200), clip(value, most)] for name, value in (values or {}).items()]


def number(value: float) -> str:
    """A score as shown: four digits, no trailing zeros."""
    return f"{value:.4g}"


def signed(value: float) -> str:
    """A change of score with its sign."""
    return "±0" if abs(value) < 1e-9 else f"{value:+.3g}".replace("-", "−")


def visible(text: str) -> str:
    """The text without what a terminal or a reader would take for something else than text: control characters
    (escape sequences begin with one) and broken ones become U+FFFD, other spaces a space, and what turns the direction
    of writing or shows nothing goes. Line breaks, tabs and joiners stay, which scripts and emoji need."""
    return text if text.isascii() and text.isprintable() else text.translate(_UNSEEN)


class _Unseen(dict[int, "str | int | None"]):
    """What ``str.translate`` puts for each character; found out when it first comes."""

    def __missing__(self, code: int) -> str | int | None:
        kind = unicodedata.category(chr(code))
        kept = chr(code) in "\n\t\u200c\u200d" or kind[0] not in "CZ" or kind == "Cn"
        self[code] = code if kept else None if kind == "Cf" else " " if kind[0] == "Z" else "\ufffd"
        return self[code]


_UNSEEN = _Unseen()


def one_line(parts: Iterable[Iterable[str]] | str, most: int = 60) -> str:
    """Named texts, or a text, on one line of at most ``most`` characters; a dash for nothing."""
    pairs = [["", parts]] if isinstance(parts, str) else parts
    text = "; ".join(f"{name}: {value}" if name else value for name, value in pairs)
    text = visible(" ".join(text.split()))
    return (text if len(text) <= most else f"{text[: most - 1]}…") or "–"
