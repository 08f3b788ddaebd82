"""Steps that all adapters share when they read a reply: removing a thinking block, and matching field names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dspynb.errors import ParseError

__all__ = ["FieldNames", "clean_reply", "without_blank_ends"]

_INVISIBLE = "\ufeff\u200b\u200e\u200f\u2060"
_SURROGATE = re.compile("[\ud800-\udfff]")
_THINKING = re.compile(r"<(think|thinking|thought)>", re.IGNORECASE)


def clean_reply(reply: str) -> str:
    """Remove a thinking block and byte order marks from the beginning of a reply, and replace lone surrogates.

    Raises ParseError for an empty reply, and for a reply that ends inside its thinking block.
    """
    text = reply
    if not text.isascii() and _SURROGATE.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    start = text.lstrip(_INVISIBLE + " \t\r\n")
    match = _THINKING.match(start)
    if match:
        _, end, start = start.partition(f"</{match[1]}>")
        if not end:
            raise ParseError("the reply ends within its thinking", raw=reply, stage="locate")
        text = start
    elif start is not text and text[:1] in _INVISIBLE:
        text = start
    if not start.strip(_INVISIBLE + " \t\r\n"):
        raise ParseError("the reply is empty", raw=reply, stage="locate")
    return text


def without_blank_ends(text: str) -> str:
    """Remove blank lines at the beginning and end of a text."""
    inner = text.strip("\n")
    if not inner or not (inner[0].isspace() or inner[-1].isspace()):
        return inner
    start = len(text) - len(text.lstrip())
    end = len(text.rstrip())
    if start >= end:
        return ""
    first_line = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", end)
    if line_end < 0:
        return text[first_line:]
    return text[first_line:line_end].removesuffix("\r")


class FieldNames:
    """Finds the field that a model means by a name, ignoring case, blanks, hyphens and underscores."""

    def __init__(self, names: Iterable[str]) -> None:
        self._exact = frozenset(names)
        self._by_letters: dict[str, list[str]] = {}
        for name in self._exact:
            self._by_letters.setdefault(_letters(name), []).append(name)

    def find(self, written: str) -> str | None:
        """Return the name of the field, or None if no field, or more than one, fits."""
        if written in self._exact:
            return written
        similar = self._by_letters.get(_letters(written), [])
        return similar[0] if len(similar) == 1 else None


def _letters(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()
