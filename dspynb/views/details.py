"""What can be unfolded below a row: the prompt against the previous attempt's, or the texts themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypedDict

from dspynb.events import PredictorCalled
from dspynb.results import AttemptRow, diff_messages
from dspynb.results.diffs import MessageDiff, Piece
from dspynb.views.texts import clip, named, number, text_of

__all__ = ["Block", "attempts_detail", "call_detail", "prompt_detail"]

_SAME_ENDS = 200
"""Of an unchanged stretch of a changed prompt, this much is shown at each end."""


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
    return [_changes(message) for message in diff_messages(_sent(previous.calls), after).messages]


def call_detail(call: PredictorCalled) -> list[Block]:
    """The messages that one call sent, and the reply."""
    blocks = [_whole(message) for message in diff_messages([], _sent([call])).messages]
    if call.reply is not None:
        blocks.append(_block("reply", [["same", clip(call.reply)]]))
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
        yield ["same", clip(row.error)]


def _sent(calls: Sequence[PredictorCalled]) -> list[tuple[str, Sequence[dict[str, object]]]]:
    return [(call.predictor, [dict(message) for message in call.messages]) for call in calls]


def _block(heading: str, pieces: list[list[str]], note: str = "") -> Block:
    return {"heading": clip(heading, 200), "note": note, "pieces": pieces}


def _whole(message: MessageDiff) -> Block:
    return _block(message.heading, [["same", clip("".join(piece.text for piece in message.pieces))]])


def _changes(message: MessageDiff) -> Block:
    if not message.changed:
        return _block(message.heading, [], "unchanged")
    gone, new = (sum(len(p.text.split()) for p in message.pieces if p.kind == kind) for kind in ("gone", "new"))
    last = len(message.pieces) - 1
    pieces = [part for i, piece in enumerate(message.pieces) for part in _shortened(piece, i == 0, i == last)]
    return _block(message.heading, pieces, f"+{new} −{gone} words")


def _shortened(piece: Piece, first: bool, last: bool) -> Iterator[list[str]]:
    """A piece with the middle of a long unchanged stretch, or its end away from any change, left out."""
    text = piece.text
    if piece.kind != "same" or len(text) <= 3 * _SAME_ENDS:
        yield [piece.kind, clip(text)]
        return
    head, tail = (0 if first else _SAME_ENDS), (0 if last else _SAME_ENDS)
    cut = len(text) - head - tail
    yield ["same", clip(text[:head])]
    yield ["cut", f"… {cut:,} characters unchanged …\n" if first else f"\n… {cut:,} characters unchanged …"]
    yield ["same", clip(text[len(text) - tail :])]
