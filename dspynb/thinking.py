"""Thinking in the text of a reply: finding its tags, and separating it from the answer.

Models write their thinking between ``<think>`` and ``</think>``, or a tag of another name. Some chat templates write
the opening tag themselves, so that only the closing tag is in the reply. All functions take time linear in the length
of the text.
"""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

__all__ = ["BLANK", "SplitReply", "closing_tags", "may_have_tags", "split_opened", "unopened_tag", "visible_text"]

INVISIBLE = "\ufeff\u200b\u200e\u200f\u2060"
"""Byte order marks and other characters that are not visible, which may come before a reply."""
BLANK = f"{INVISIBLE} \t\r\n"
"""Characters that are dropped at the ends of thinking, and before the text after it."""
_BLANK = rf"[\s{INVISIBLE}]*+"
_NAMES = ("think", "thinking", "thought", "reasoning")
_NAME = "|".join(_NAMES)
_OPENING = re.compile(rf"{_BLANK}<[ \t]{{0,4}}({_NAME})[ \t]{{0,4}}>", re.IGNORECASE)
_ANY_TAG = re.compile(rf"<[ \t]{{0,4}}(?P<slash>/?)[ \t]{{0,4}}(?:{_NAME})[ \t]{{0,4}}>", re.IGNORECASE)
_ANY_CLOSING = re.compile(rf"<[ \t]{{0,4}}/[ \t]{{0,4}}(?:{_NAME})[ \t]{{0,4}}>", re.IGNORECASE)
_CLOSING = {name: re.compile(rf"<[ \t]{{0,4}}/[ \t]{{0,4}}{name}[ \t]{{0,4}}>", re.IGNORECASE) for name in _NAMES}
_LINE_END = re.compile(r"[ \t\r]*+\n")
_LEADING_CLOSING = re.compile(rf"{_BLANK}(?:{_ANY_CLOSING.pattern})", re.IGNORECASE)
_START_OF_TAG = re.compile(rf"{_BLANK}<[ \t]{{0,4}}/?[ \t]{{0,4}}[a-zA-Z]{{0,9}}[ \t]{{0,4}}\Z")


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


def split_opened(text: str) -> SplitReply:
    """Split off the thinking at the beginning of a text: one or more blocks that begin with an opening tag.

    A block ends with the closing tag of the same name; if there is none, with the first closing tag of another name; if
    there is none, with the text.
    """
    opening = _OPENING.match(text)
    if opening is None:
        return SplitReply("", text)
    thinking = []
    position = 0
    missing: set[str] = set()  # the names without a closing tag after this position, which are searched once
    while opening is not None:
        thinking.append(text[position : opening.start(1)].rpartition("<")[0])
        closing = _closing_tag(text, opening, missing)
        if closing is None:
            thinking.append(text[opening.end() :])
            return SplitReply("".join(thinking), "", is_finished=False)
        thinking.append(text[opening.end() : closing.start()])
        position = closing.end()
        opening = _OPENING.match(text, position)
    return SplitReply("".join(thinking), text[position:])


def _closing_tag(text: str, opening: re.Match[str], missing: set[str]) -> re.Match[str] | None:
    name = opening[1].lower()
    if name not in missing:
        closing = _CLOSING[name].search(text, opening.end())
        if closing is not None:
            return closing
        missing.add(name)
    return _ANY_CLOSING.search(text, opening.end())


def closing_tags(text: str, most: int) -> list[re.Match[str]]:
    """The last closing tags of a text, at most ``most``, in order."""
    if "<" not in text or "/" not in text:
        return []
    tags: deque[re.Match[str]] = deque(maxlen=most)
    for tag in _ANY_CLOSING.finditer(text):  # a loop lets other threads run, and deque(finditer) does not
        tags.append(tag)
    return list(tags)


def unopened_tag(text: str) -> re.Match[str] | None:
    """The first closing tag that ends its line, with another line after it, or that is the beginning of the text. None
    if an opening tag is before it."""
    if _LEADING_CLOSING.match(text):
        return _ANY_CLOSING.search(text)
    for tag in _ANY_TAG.finditer(text):
        if not tag["slash"]:
            return None
        if _LINE_END.match(text, tag.end()):
            return tag
    return None


def visible_text(text: str) -> str:
    """The part of a growing text that is no thinking: what comes after the thinking at its beginning.

    Empty while the thinking goes on, and while the text may be the beginning of a tag.
    """
    if not may_have_tags(text):
        return text
    rest = split_opened(text).text
    closing = _LEADING_CLOSING.match(rest)
    if closing is not None:
        rest = rest[closing.end() :]
    return "" if _START_OF_TAG.match(rest) else rest
