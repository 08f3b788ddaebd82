"""Values as text: of limited length, safe to encode, and the same for every execution."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "Named",
    "amount",
    "clip",
    "counted",
    "named",
    "number",
    "one_line",
    "one_line_or_empty",
    "score_text",
    "signed",
    "text_of",
    "visible",
]

MOST_CHARACTERS = 2_000
"""Characters of a cell; a longer text ends with the number of characters that were cut."""

Named = list[list[str]]
"""Pairs of a name and a text. The name is empty where it is obvious. The pairs are lists, as they are in JSON."""


def text_of(value: object) -> str:
    """The value itself if it is a string, else its repr. If the repr raises, a text that says so."""
    if isinstance(value, str):
        return value
    try:
        return repr(value)
    except Exception:  # any class may have any repr
        return f"<{type(value).__name__} without a repr>"


def clip(value: object, most: int = MOST_CHARACTERS) -> str:
    """The first ``most`` characters of the value's text, and how many were cut. Lone surrogates become ``?``."""
    text = text_of(value)
    if len(text) <= most and text.isascii():
        return text
    start = text[:most].encode("utf-8", "replace").decode()
    if len(text) <= most:
        return start
    return f"{start} … [{len(text) - most:,} more characters]"


def named(values: Mapping[str, Any] | None, most: int = MOST_CHARACTERS) -> Named:
    """The name and the clipped text of each value."""
    return [[clip(name, 200), clip(value, most)] for name, value in (values or {}).items()]


def number(value: float) -> str:
    """A score with four significant digits, without trailing zeros."""
    return f"{value:.4g}"


def amount(value: float) -> str:
    """A cost: whole numbers in full (``12,000``), others with three significant digits."""
    return f"{int(value):,}" if value == int(value) else f"{value:,.3g}"


def score_text(score: float | None) -> str:
    """A score as a number; empty if there is none."""
    return "" if score is None else number(score)


def counted(n: int, unit: str) -> str:
    """A number with its unit: ``1 call``, ``2,000 calls``."""
    return f"{n:,} {unit}" if n == 1 else f"{n:,} {unit}s"


def signed(value: float) -> str:
    """A change of a score with its sign."""
    if abs(value) < 1e-9:
        return "±0"
    return f"{value:+.3g}".replace("-", "−")


def visible(text: str) -> str:
    """The text without characters that a terminal or a reader could mistake for something else.

    Control characters (with which escape sequences begin) and invalid ones become U+FFFD, and all kinds of spaces a
    space. Characters that change the direction of writing or are invisible are removed. Line breaks, tabs and joiners,
    which scripts and emoji need, stay.
    """
    return text if text.isascii() and text.isprintable() else text.translate(_REPLACEMENTS)


class _Replacements(dict[int, "str | int | None"]):
    """The table of ``str.translate``: code point → its replacement, computed when the character first occurs."""

    def __missing__(self, code: int) -> str | int | None:
        replacement = _replacement(code)
        self[code] = replacement
        return replacement


def _replacement(code: int) -> str | int | None:
    """The code point itself, another text, or None to remove the character."""
    character = chr(code)
    category = unicodedata.category(character)
    is_ordinary = category[0] not in "CZ" or category == "Cn"  # Cn: not assigned yet
    if is_ordinary or character in "\n\t\u200c\u200d":
        return code
    if category == "Cf":
        return None
    return " " if category[0] == "Z" else "\ufffd"


_REPLACEMENTS = _Replacements()


def one_line(parts: Iterable[Iterable[str]] | str, most: int = 60) -> str:
    """A text, or named texts, on one line of at most ``most`` characters; a dash if there is no text."""
    if isinstance(parts, str):
        text = parts
    else:
        text = "; ".join(f"{name}: {value}" if name else value for name, value in parts)
    text = visible(" ".join(text.split()))
    if len(text) > most:
        return f"{text[: most - 1]}…"
    return text or "–"


def one_line_or_empty(parts: Named | str, most: int = 60) -> str:
    """As ``one_line``, but empty if there are no parts."""
    return one_line(parts, most) if parts else ""
