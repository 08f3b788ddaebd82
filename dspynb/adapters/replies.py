"""What every adapter does with a reply before it reads the fields, and how it finds a field's name in it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dspynb.errors import ParseError

__all__ = ["Names", "bare_reply", "without_blank_ends"]

_UNSEEN = "\ufeff\u200b\u200e\u200f\u2060"
_SURROGATE = re.compile("[\ud800-\udfff]")
_THINKING = re.compile(r"<(think|thinking|thought)>", re.IGNORECASE)


def bare_reply(reply: str) -> str:
    """The reply without a thinking block and byte order marks before it; halves of surrogate pairs replaced.

    Raises ParseError for an empty reply, and for one that ends within its thinking.
    """
    text = reply
    if not text.isascii() and _SURROGATE.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    start = text.lstrip(_UNSEEN + " \t\r\n")
    if match := _THINKING.match(start):
        _, end, start = start.partition(f"</{match[1]}>")
        if not end:
            raise ParseError("the reply ends within its thinking", raw=reply, stage="locate")
        text = start
    elif start is not text and text[:1] in _UNSEEN:
        text = start
    if not start.strip(_UNSEEN + " \t\r\n"):
        raise ParseError("the reply is empty", raw=reply, stage="locate")
    return text


def without_blank_ends(text: str) -> str:
    """The text without blank lines before and after it."""
    inner = text.strip("\n")
    if not inner or not (inner[0].isspace() or inner[-1].isspace()):
        return inner
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    if start >= end:
        return ""
    following = text.find("\n", end)
    kept = text[text.rfind("\n", 0, start) + 1 : following if following >= 0 else len(text)]
    return kept.removesuffix("\r") if following >= 0 else kept


class Names:
    """The names of fields as models write them: exact, or the only one alike in letters and digits."""

    def __init__(self, names: Iterable[str]) -> None:
        self._exact = frozenset(names)
        self._alike: dict[str, list[str]] = {}
        for name in self._exact:
            self._alike.setdefault(_letters(name), []).append(name)

    def find(self, written: str) -> str | None:
        """The field that is meant, or None."""
        if written in self._exact:
            return written
        alike = self._alike.get(_letters(written), [])
        return alike[0] if len(alike) == 1 else None


def _letters(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()
