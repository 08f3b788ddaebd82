"""Steps that all adapters share when they read a reply: separating thinking, and matching field names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable

from dspynb.errors import ParseError
from dspynb.thinking import (
    ALL_TAGS,
    BLANK,
    INVISIBLE,
    SplitReply,
    Tags,
    closing_tags,
    may_have_tags,
    split_opened,
    tags_beside,
    unopened_tag,
    without_end,
)

__all__ = ["FieldNames", "clean_reply", "separate_thinking", "without_blank_ends"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_JSON = json.JSONDecoder(strict=False)
_MOST_TAGS = 8
"""The number of closing tags, from the end of a reply, that may end its thinking."""


def clean_reply(reply: str, outputs: Iterable[str] = ()) -> str:
    """Remove thinking and byte order marks from the beginning of a reply, and replace lone surrogates.

    ``outputs``: names of outputs that the reply may begin with; a tag with one of these names is no thinking.
    Raises ParseError for an empty reply, and for a reply that ends within its thinking.
    """
    text = reply
    if not text.isascii() and _SURROGATE.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if may_have_tags(text):
        split = split_opened(text, tags_beside(outputs))
        if not split.is_finished:
            raise ParseError("the reply ends within its thinking", raw=reply, stage="locate")
        text = split.text
    start = text.lstrip(BLANK)
    if start is not text and text[:1] in INVISIBLE:
        text = start
    if not start:
        raise ParseError("the reply is empty", raw=reply, stage="locate")
    return text


def separate_thinking(
    reply: str, is_reply: Callable[[str], bool], *, names_outputs: bool, thinking_tags: Tags = ALL_TAGS
) -> SplitReply:
    """Split the thinking off a reply, also where its opening tag is missing. See ``Adapter.split_thinking``.

    ``is_reply``: whether a text is a reply with all outputs. Of several closing tags, the last one counts whose rest is
    a reply. If ``names_outputs`` is false, so that other text may be a reply, the first tag at the end of a line or at
    the beginning counts, if no opening tag is before it.
    """
    if not may_have_tags(reply):
        return SplitReply("", reply)
    split = split_opened(reply, thinking_tags)
    text = split.text
    tags = []
    if names_outputs:
        tags = _possible_ends(text, thinking_tags)
    elif not split.thinking:
        tag = unopened_tag(text, thinking_tags)
        tags = [] if tag is None else [tag]
    for tag in tags:
        rest = text[tag.end() :]
        if is_reply(rest):
            if not tag[0].startswith("<") or "|" in tag[0]:
                rest = without_end(rest)
            return SplitReply(split.thinking + text[: tag.start()], rest)
    return split


def _possible_ends(text: str, thinking_tags: Tags) -> list[re.Match[str]]:
    """The closing tags that may end the thinking in a text, the last one first."""
    tags = closing_tags(text, _MOST_TAGS, thinking_tags)
    if not tags:
        return []
    json_start, json_end = _json_span(text)
    return [tag for tag in reversed(tags) if not json_start < tag.start() < json_end]


def _json_span(text: str) -> tuple[int, int]:
    """The start and end of the first JSON object in a text; (-1, -1) if the first brace begins none. A tag in an object
    is a part of a value."""
    start = text.find("{")
    if start < 0:
        return -1, -1
    try:
        return start, _JSON.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return -1, -1


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
