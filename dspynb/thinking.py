"""Thinking in the text of a reply: finding its tags, and separating it from the answer.

Models write their thinking between ``<think>`` and ``</think>``, or a tag of another name. Some chat templates write
the opening tag themselves, so that only the closing tag is in the reply. A prompt may ask for a tag of the same name,
such as ``<reasoning>``, so each function takes the ``Tags`` that are thinking. All functions take time linear in the
length of the text.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

__all__ = [
    "ALL_TAGS",
    "BLANK",
    "SERVER_TAGS",
    "SplitReply",
    "Tags",
    "closing_tags",
    "may_have_tags",
    "split_opened",
    "tags_beside",
    "unopened_tag",
    "visible_text",
]

INVISIBLE = "\ufeff\u200b\u200e\u200f\u2060"
"""Byte order marks and other characters that are not visible, which may come before a reply."""
BLANK = f"{INVISIBLE} \t\r\n"
"""Characters that are dropped at the ends of thinking, and before the text after it."""
_BLANK = rf"[\s{INVISIBLE}]*+"
_NAMES = ("think", "thinking", "thought", "reasoning")
_NEVER = "(?!)"
"""A pattern that matches nothing."""
_LINE_END = re.compile(r"[ \t\r]*+\n")
_START_OF_TAG = re.compile(rf"{_BLANK}<[ \t]{{0,4}}/?[ \t]{{0,4}}[a-zA-Z]{{0,9}}[ \t]{{0,4}}\Z")


class Tags:
    """The tags that are thinking.

    ``names``: the names of the tags that begin thinking, in lower case. ``closing_names``: those of the tags that may
    end it.
    """

    __slots__ = ("any_closing", "any_tag", "closing", "leading_closing", "opening")

    def __init__(self, names: Sequence[str], closing_names: Sequence[str]) -> None:
        closing_name = "|".join(closing_names) or _NEVER
        any_closing = rf"<[ \t]{{0,4}}/[ \t]{{0,4}}(?:{closing_name})[ \t]{{0,4}}>"
        any_tag = rf"<[ \t]{{0,4}}(?P<slash>/?)[ \t]{{0,4}}(?:{closing_name})[ \t]{{0,4}}>"
        opening = rf"{_BLANK}<[ \t]{{0,4}}({'|'.join(names) or _NEVER})[ \t]{{0,4}}>"
        self.opening = re.compile(opening, re.IGNORECASE)
        self.any_tag = re.compile(any_tag, re.IGNORECASE)
        self.any_closing = re.compile(any_closing, re.IGNORECASE)
        self.leading_closing = re.compile(rf"{_BLANK}(?:{any_closing})", re.IGNORECASE)
        self.closing = {}
        for name in names:
            closing = rf"<[ \t]{{0,4}}/[ \t]{{0,4}}{name}[ \t]{{0,4}}>"
            self.closing[name] = re.compile(closing, re.IGNORECASE)


ALL_TAGS = Tags(_NAMES, _NAMES)
"""The tags of all names that models use for thinking."""
SERVER_TAGS = Tags(_NAMES[:1], _NAMES)
"""The tag that servers leave in a reply, ``<think>``, which another closing tag may end. A tag of another name may be
what a prompt asks for."""


def tags_beside(outputs: Iterable[str]) -> Tags:
    """The tags that are thinking in a reply with outputs of these names: a tag with the name of an output is none."""
    output_names = {name.lower() for name in outputs}
    return _tags_of(tuple([name for name in _NAMES if name not in output_names]))


@lru_cache(maxsize=16)
def _tags_of(names: tuple[str, ...]) -> Tags:
    return Tags(names, names)


class SplitReply(NamedTuple):
    """The two parts of a reply's text. Together they are the text without the tags.

    ``is_finished``: False if the reply ends within its thinking.
    """

    thinking: str
    text: str
    is_finished: bool = True


def may_have_tags(text: str) -> bool:
    """Whether a text may contain tags. Nearly every reply has none, and needs no further search."""
    return "<" in text


def split_opened(text: str, tags: Tags = ALL_TAGS) -> SplitReply:
    """Split off the thinking at the beginning of a text: one or more blocks that begin with an opening tag.

    A block ends with the closing tag of the same name; if there is none, with the first closing tag of another name; if
    there is none, with the text.
    """
    opening = tags.opening.match(text)
    if opening is None:
        return SplitReply("", text)
    thinking = []
    position = 0
    missing: set[str] = set()  # the names without a closing tag after this position, which are searched once
    while opening is not None:
        thinking.append(text[position : opening.start(1)].rpartition("<")[0])
        closing = _closing_tag(text, opening, missing, tags)
        if closing is None:
            thinking.append(text[opening.end() :])
            return SplitReply("".join(thinking), "", is_finished=False)
        thinking.append(text[opening.end() : closing.start()])
        position = closing.end()
        opening = tags.opening.match(text, position)
    return SplitReply("".join(thinking), text[position:])


def _closing_tag(text: str, opening: re.Match[str], missing: set[str], tags: Tags) -> re.Match[str] | None:
    name = opening[1].lower()
    if name not in missing:
        closing = tags.closing[name].search(text, opening.end())
        if closing is not None:
            return closing
        missing.add(name)
    return tags.any_closing.search(text, opening.end())


def closing_tags(text: str, most: int, tags: Tags = ALL_TAGS) -> list[re.Match[str]]:
    """The last closing tags of a text, at most ``most``, in order."""
    if "<" not in text or "/" not in text:
        return []
    last_tags: deque[re.Match[str]] = deque(maxlen=most)
    for tag in tags.any_closing.finditer(text):  # a loop lets other threads run, and deque(finditer) does not
        last_tags.append(tag)
    return list(last_tags)


def unopened_tag(text: str, tags: Tags = ALL_TAGS) -> re.Match[str] | None:
    """The first closing tag that ends its line, with another line after it, or that is the beginning of the text. None
    if an opening tag is before it."""
    if tags.leading_closing.match(text):
        return tags.any_closing.search(text)
    for tag in tags.any_tag.finditer(text):
        if not tag["slash"]:
            return None
        if _LINE_END.match(text, tag.end()):
            return tag
    return None


def visible_text(text: str, tags: Tags = ALL_TAGS) -> str:
    """The part of a growing text that is no thinking: what comes after the thinking at its beginning.

    Empty while the thinking goes on, and while the text may be the beginning of a tag.
    """
    if not may_have_tags(text):
        return text
    rest = split_opened(text, tags).text
    closing = tags.leading_closing.match(rest)
    if closing is not None:
        rest = rest[closing.end() :]
    return "" if _START_OF_TAG.match(rest) else rest
