"""What can be unfolded below a row: the prompt against the previous attempt's, or the texts themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypedDict

from dspynb.events import PredictorCalled
from dspynb.results import AttemptRow, diff_messages
from dspynb.results.diffs import MessageDiff, Piece
from dspynb.views.texts import clip, named, number, text_of

__all__ = ["Block", "attempts_detail", "call_detail", "changes", "prompt_detail", "text_block"]

_NEAR_LINES, _NEAR_CHARACTERS = 3, 400
"""Of the unchanged text of a changed prompt, this much is shown on each side of a change."""


class Block(TypedDict):
    """A text under a heading. ``pieces``: pairs of kind (same, gone, new, cut) and text."""

    heading: str
    note: str
    pieces: list[list[str]]


def prompt_detail(row: AttemptRow, previous: AttemptRow | None) -> list[Block]:
    """The words that differ from the previous attempt's prompt; without a previous one, the messages sent."""
    after = _sent(row.calls)
    if previous is None or not previous.calls:
        return [_whole(message) for message in diff_messages([], after).messages]
    return [changes(message) for message in diff_messages(_sent(previous.calls), after).messages]


def call_detail(call: PredictorCalled) -> list[Block]:
    """The messages that one call sent, and the reply."""
    blocks = [_whole(message) for message in diff_messages([], _sent([call])).messages]
    if call.reply is not None:
        blocks.append(_block("reply", [["same", call.reply]]))
    return blocks


def attempts_detail(attempts: Iterable[AttemptRow]) -> list[Block]:
    """The attempts that were made for one row of a batch."""
    return [_block(_attempt_heading(row), list(_attempt_lines(row))) for row in attempts]


def _attempt_heading(row: AttemptRow) -> str:
    score = "" if row.score is None else f" · {number(row.score)}"
    return f"attempt {row.attempt} · {row.state}{score}{' ★' if row.best else ''}"


def _attempt_lines(row: AttemptRow) -> Iterator[list[str]]:
    if row.hint:
        yield ["same", f"hint: {clip(text_of(row.hint), 500)}\n"]
    yield from (["same", f"{name}: {value}\n"] for name, value in named(row.outputs))
    if row.error:
        yield ["same", row.error]


def _sent(calls: Sequence[PredictorCalled]) -> list[tuple[str, Sequence[dict[str, object]]]]:
    return [(call.predictor, [dict(message) for message in call.messages]) for call in calls]


def _block(heading: str, pieces: list[list[str]], note: str = "") -> Block:
    return {"heading": clip(heading, 200), "note": note, "pieces": [[kind, clip(text)] for kind, text in pieces]}


def text_block(heading: str, text: str) -> Block:
    """A text as it is."""
    return _block(heading, [["same", text]])


def _whole(message: MessageDiff) -> Block:
    return _block(message.heading, [["same", "".join(piece.text for piece in message.pieces)]])


def changes(message: MessageDiff) -> Block:
    """The words that changed in a text, with what stands near them."""
    if not message.changed:
        return _block(message.heading, [], "unchanged")
    gone, new = (sum(len(p.text.split()) for p in message.pieces if p.kind == kind) for kind in ("gone", "new"))
    last = len(message.pieces) - 1
    pieces = [part for i, piece in enumerate(message.pieces) for part in _shortened(piece, i == 0, i == last)]
    return _block(message.heading, pieces, f"+{new} −{gone} words")


def _shortened(piece: Piece, first: bool, last: bool) -> Iterator[list[str]]:
    """The piece as shown: of unchanged text only what is next to a change; ``first`` and ``last`` have one side of it.

    Line breaks before changed words are told apart, so that the sign of the change stands where the words do.
    """
    if piece.kind == "same":
        yield from _near(piece.text, first, last)
        return
    words = piece.text.lstrip()
    before = piece.text[: len(piece.text) - len(words)]
    if words and "\n" in before:
        yield ["same", before]
        yield [piece.kind, words]
    else:
        yield [piece.kind, piece.text]


def _near(text: str, first: bool, last: bool) -> Iterator[list[str]]:
    head = "" if first else "".join(text.splitlines(keepends=True)[:_NEAR_LINES])[:_NEAR_CHARACTERS]
    tail = "" if last else "".join(text.splitlines(keepends=True)[-_NEAR_LINES:])[-_NEAR_CHARACTERS:]
    cut = text[len(head) : len(text) - len(tail)]
    if cut.count("\n") < _NEAR_LINES and len(cut) < _NEAR_CHARACTERS:
        yield ["same", text]
        return
    lines = cut.count("\n")
    size = f"{lines} lines" if lines > 1 else f"{len(cut):,} characters"
    yield ["same", head]
    yield ["cut", f"… {size} unchanged …" + ("\n" if tail else "")]
    yield ["same", tail]
