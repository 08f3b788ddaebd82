"""What changed between two prompts, word by word."""

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
_MOST_WORD_PAIRS = 250_000
"""Above this, telling which words moved takes longer than reading them."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text that is in both prompts, only in the first (gone) or only in the second (new)."""

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
    """Word-level difference: pieces whose same and gone texts join to ``before``, same and new to ``after``.

    Lines are compared first and words only inside lines that changed, since comparing all words of a long prompt takes
    seconds. Where thousands of words changed at once, they are one gone and one new piece.
    """
    a, b = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return tuple(_merged(_pieces(a, b, _changed_words)))


def _changed_words(before: str, after: str) -> Iterator[Piece]:
    a, b = _WORD.findall(before), _WORD.findall(after)
    head = _common(a, b)
    tail = _common(a[head:][::-1], b[head:][::-1])
    middle_a, middle_b = a[head : len(a) - tail], b[head : len(b) - tail]
    yield Piece("same", "".join(a[:head]))
    if len(middle_a) * len(middle_b) > _MOST_WORD_PAIRS:
        yield from _replaced("".join(middle_a), "".join(middle_b))
    else:
        yield from _pieces(middle_a, middle_b, _replaced)
    yield Piece("same", "".join(a[len(a) - tail :]))


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """How many items the two have in common at their start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _replaced(before: str, after: str) -> Iterator[Piece]:
    yield Piece("gone", before)
    yield Piece("new", after)


def _pieces(a: Sequence[str], b: Sequence[str], inside: Callable[[str, str], Iterator[Piece]]) -> Iterator[Piece]:
    for tag, i, j, k, m in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag == "equal":
            yield Piece("same", "".join(a[i:j]))
        else:
            yield from inside("".join(a[i:j]), "".join(b[k:m]))


def _merged(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Each stretch of changes as one gone and one new piece, without empty pieces."""
    same, gone, new = "", "", ""
    for piece in (p for p in pieces if p.text):
        if piece.kind == "same":
            same += piece.text
            continue
        if same and (not (gone or new) or not _slight(same)):
            yield from _change(gone, new)
            yield Piece("same", same)
            gone, new = "", ""
        elif same:
            gone, new = gone + same, new + same
        same = ""
        gone, new = gone + piece.text * (piece.kind == "gone"), new + piece.text * (piece.kind == "new")
    yield from _change(gone, new)
    if same:
        yield Piece("same", same)


def _slight(text: str) -> bool:
    """Whether what stands unchanged between two changes is less than two words: reading goes easier without it."""
    return "\n" not in text and len(text.split()) < 2


def _change(gone: str, new: str) -> Iterator[Piece]:
    if gone:
        yield Piece("gone", gone)
    if new:
        yield Piece("new", new)


@dataclass(frozen=True, slots=True)
class PromptDiff:
    """The word-level difference of two prompts; shows itself as text and, in a notebook, in colour."""

    title: str
    messages: tuple[MessageDiff, ...]

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return any(message.changed for message in self.messages)

    def __repr__(self) -> str:
        mark = {"same": "{}", "gone": "[-{}-]", "new": "{{+{}+}}"}
        lines = [self.title]
        for message in self.messages:
            if message.changed:
                lines += [f"── {message.heading}", "".join(mark[p.kind].format(p.text) for p in message.pieces)]
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
    body = "".join(
        f"<{_TAG[p.kind]} style='{_STYLE[p.kind]}'>{escape(p.text)}</{_TAG[p.kind]}>" for p in message.pieces
    )
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
    left, right = list(_flat(before)), list(_flat(after))
    headings = list(dict.fromkeys([*(h for h, _ in left), *(h for h, _ in right)]))
    old, new = dict(left), dict(right)
    return PromptDiff(title, tuple(MessageDiff(h, diff_words(old.get(h, ""), new.get(h, ""))) for h in headings))


def _flat(calls: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> Iterator[tuple[str, str]]:
    seen: dict[str, int] = {}
    for name, messages in calls:
        seen[name] = turn = seen.get(name, 0) + 1
        for i, message in enumerate(messages):
            again = f" (call {turn})" if turn > 1 else ""
            yield f"{name}{again} · {message.get('role', '?')} {i + 1}", content_text(message.get("content"))
