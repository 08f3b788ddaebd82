"""The difference between two prompts, word by word."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape
from typing import Any, Literal

from dspynb.media.describe import content_text

__all__ = ["MessageDiff", "Piece", "PromptDiff", "diff_messages", "diff_words"]

Kind = Literal["same", "gone", "new"]
_WORD = re.compile(r"\s+|\w+|[^\w\s]")
_MAX_WORD_PAIRS = 250_000  # above this, comparing the words takes too long


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text that is in both prompts (same), only in the first (gone) or only in the second (new)."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class MessageDiff:
    """The pieces of one message, under a heading such as ``answer · system``."""

    heading: str
    pieces: tuple[Piece, ...]

    @property
    def changed(self) -> bool:
        """Whether the two messages differ."""
        return any(piece.kind != "same" for piece in self.pieces)


def diff_words(before: str, after: str) -> tuple[Piece, ...]:
    """Word-level difference: the same and gone texts of the pieces join to ``before``, the same and new ones to
    ``after``.

    Lines are compared first, and words only inside lines that changed, since comparing all words of a long prompt takes
    seconds. Where thousands of words changed at once, they become one gone and one new piece.
    """
    old_lines = before.splitlines(keepends=True)
    new_lines = after.splitlines(keepends=True)
    return tuple(_merged(_pieces(old_lines, new_lines, _changed_words)))


def _changed_words(before: str, after: str) -> Iterator[Piece]:
    old = _WORD.findall(before)
    new = _WORD.findall(after)
    head = _common_prefix(old, new)
    tail = _common_prefix(old[head:][::-1], new[head:][::-1])
    old_middle = old[head : len(old) - tail]
    new_middle = new[head : len(new) - tail]
    yield Piece("same", "".join(old[:head]))
    if len(old_middle) * len(new_middle) > _MAX_WORD_PAIRS:
        yield from _change("".join(old_middle), "".join(new_middle))
    else:
        yield from _pieces(old_middle, new_middle, _change)
    yield Piece("same", "".join(old[len(old) - tail :]))


def _common_prefix(old: Sequence[str], new: Sequence[str]) -> int:
    """The number of items that both have in common at their start."""
    length = min(len(old), len(new))
    for i in range(length):
        if old[i] != new[i]:
            return i
    return length


def _pieces(
    old: Sequence[str], new: Sequence[str], compare_changed: Callable[[str, str], Iterator[Piece]]
) -> Iterator[Piece]:
    """The pieces of two lists of texts. ``compare_changed`` gives those of a stretch in which they differ."""
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            yield Piece("same", "".join(old[i:j]))
        else:
            yield from compare_changed("".join(old[i:j]), "".join(new[k:m]))


def _merged(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Join each stretch of changes into one gone and one new piece, and leave out empty pieces."""
    same = gone = new = ""
    for piece in pieces:
        if piece.kind == "same":
            same += piece.text
            continue
        if not piece.text:
            continue
        between_changes = bool(gone or new)
        if same and between_changes and _is_short(same):
            gone += same
            new += same
        elif same:
            yield from _change(gone, new)
            yield Piece("same", same)
            gone = new = ""
        same = ""
        if piece.kind == "gone":
            gone += piece.text
        else:
            new += piece.text
    yield from _change(gone, new)
    if same:
        yield Piece("same", same)


def _is_short(text: str) -> bool:
    """Whether a text has fewer than two words and no line break. Such a text between two changes only makes the diff
    harder to read."""
    return "\n" not in text and len(text.split()) < 2


def _change(gone: str, new: str) -> Iterator[Piece]:
    if gone:
        yield Piece("gone", gone)
    if new:
        yield Piece("new", new)


@dataclass(frozen=True, slots=True)
class PromptDiff:
    """The word-level difference of two prompts. Its repr is text; a notebook shows it in colour."""

    title: str
    messages: tuple[MessageDiff, ...]

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return any(message.changed for message in self.messages)

    def __repr__(self) -> str:
        marks = {"same": "{}", "gone": "[-{}-]", "new": "{{+{}+}}"}
        lines = [self.title]
        for message in self.messages:
            if message.changed:
                lines.append(f"── {message.heading}")
                lines.append("".join(marks[piece.kind].format(piece.text) for piece in message.pieces))
            else:
                lines.append(f"── {message.heading}: unchanged")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        blocks = "".join(map(_message_html, self.messages))
        return f"<div class='dspynb-diff'><div style='font-weight:600'>{escape(self.title)}</div>{blocks}</div>"


_STYLE = {
    "same": "",
    "gone": "background:rgba(215,58,73,.18);text-decoration:line-through",
    "new": "background:rgba(40,167,69,.22);text-decoration:none;font-weight:600",
}
_TAG = {"same": "span", "gone": "del", "new": "ins"}


def _message_html(message: MessageDiff) -> str:
    heading = escape(message.heading)
    body = ""
    for piece in message.pieces:
        tag = _TAG[piece.kind]
        body += f"<{tag} style='{_STYLE[piece.kind]}'>{escape(piece.text)}</{tag}>"
    if not message.changed:
        return (
            f"<details><summary>{heading}: unchanged</summary><pre style='white-space:pre-wrap'>{body}</pre></details>"
        )
    return f"<div style='opacity:.7;margin-top:4px'>{heading}</div><pre style='white-space:pre-wrap'>{body}</pre>"


def diff_messages(
    before: Sequence[tuple[str, Sequence[Mapping[str, Any]]]],
    after: Sequence[tuple[str, Sequence[Mapping[str, Any]]]],
    title: str = "prompt diff",
) -> PromptDiff:
    """The difference of two lists of calls, each (predictor, messages); calls and messages are paired in order."""
    old = _texts_by_heading(before)
    new = _texts_by_heading(after)
    messages = [MessageDiff(heading, diff_words(old.get(heading, ""), new.get(heading, ""))) for heading in old | new]
    return PromptDiff(title, tuple(messages))


def _texts_by_heading(calls: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> dict[str, str]:
    """Heading → text of each message. The heading numbers messages, and the calls of a predictor after its first."""
    texts = {}
    calls_by_predictor: dict[str, int] = {}
    for predictor, messages in calls:
        number = calls_by_predictor.get(predictor, 0) + 1
        calls_by_predictor[predictor] = number
        title = predictor if number == 1 else f"{predictor} (call {number})"
        for i, message in enumerate(messages, 1):
            texts[f"{title} · {message.get('role', '?')} {i}"] = content_text(message.get("content"))
    return texts
