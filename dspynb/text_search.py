"""Searches in long texts that let other threads run.

One call of ``re`` holds the interpreter's lock until it ends, so that a search of megabytes in a thread would stop the
event loop. These functions search one block after another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["find_all", "search"]

BLOCK = 2**16
"""Characters of a block."""


def search(pattern: re.Pattern[str], text: str, position: int = 0, *, longest: int) -> re.Match[str] | None:
    """The first match of a pattern in a text, from a position on; None if there is none.

    ``longest``: the largest number of characters of a match, with what the pattern looks ahead at.
    """
    while position + BLOCK + longest < len(text):
        match = pattern.search(text, position, position + BLOCK + longest)
        if match is not None and match.start() < position + BLOCK:
            return match
        position += BLOCK
    return pattern.search(text, position)


def find_all(pattern: re.Pattern[str], text: str, *, longest: int) -> Iterator[re.Match[str]]:
    """All matches of a pattern in a text, which do not overlap. No match may be empty. ``longest``: see ``search``."""
    match = search(pattern, text, longest=longest)
    while match is not None:
        yield match
        match = search(pattern, text, match.end(), longest=longest)
