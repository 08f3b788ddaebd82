"""Runs as plain text: lines while a run works, and a short table that is the same every time."""

from __future__ import annotations

import sys
import time

from dspynb.events import AttemptEnded, CandidateScored, Event, RolloutEnded, RunEnded, SpanEnded
from dspynb.results import AttemptRow, Fold
from dspynb.views.state import Row, RunState
from dspynb.views.texts import number, one_line, text_of

__all__ = ["TextView", "summary"]

_MOST_LINES = 30
_OF_ROWS = ("batch", "evaluate", "compare", "grid")


def summary(seen: Fold | RunState, search: int = 0) -> str:
    """The run in a few lines, without times, ids or counts of tokens."""
    header, rows = (seen if isinstance(seen, RunState) else RunState(seen, search)).snapshot()
    lines = [f"{header['name']}: {', '.join(filter(None, [header['state'], header['progress'], header['result']]))}"]
    cells = [["#", "state", "score", *header["columns"], "error"], *map(_cells, rows[:_MOST_LINES])]
    if rows:
        lines += _aligned(_without_empty(cells))
    if len(rows) > _MOST_LINES:
        lines.append(f"… {len(rows) - _MOST_LINES} more")
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    score = "" if row["score"] is None else number(row["score"])
    error = one_line(row["error"]) if row["error"] else ""
    return [f"{row['label']}{'*' if row['best'] else ''}", row["state"], score, one_line(row["about"], 40),
            one_line(row["outputs"], 40), error]  # fmt: skip


def _without_empty(cells: list[list[str]]) -> list[list[str]]:
    """The columns that have something below their heading."""
    kept = [i for i in range(len(cells[0])) if any(line[i].strip("–") for line in cells[1:])]
    return [[line[i] for i in kept] for line in cells]


def _aligned(cells: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]


class TextView:
    """Writes a line to stderr for each attempt that ends, once a second for the rows of a batch, for each candidate
    that was evaluated on all rows, and a last line."""

    def __init__(self) -> None:
        self._fold = Fold()
        self._rows = self._failed = 0
        self._told = time.monotonic()

    def emit(self, event: Event) -> None:
        """Take an event; written at once."""
        self._fold.add(event)
        match event:
            case AttemptEnded() if not self._is_batch and not self._fold.candidates:
                if row := self._fold.attempts.get(event.span):
                    _write(_attempt_line(row))
            case SpanEnded() | RolloutEnded() if self._is_batch and self._is_row(event.span):
                self._rows, self._failed = self._rows + 1, self._failed + (event.error is not None)
                self._tell_rows()
            case CandidateScored() if event.full:
                _write(_candidate_line(self._fold, event))
            case RunEnded():
                _write(summary(self._fold).splitlines()[0])

    @property
    def _is_batch(self) -> bool:
        return self._fold.started is not None and self._fold.started.kind in _OF_ROWS

    def _is_row(self, span: int) -> bool:
        found = self._fold.spans.get(span)
        return found is not None and found.kind == "row"

    def _tell_rows(self) -> None:
        if time.monotonic() - self._told >= 1:
            self._told = time.monotonic()
            started = self._fold.started
            total = started.inputs.get("rows", "?") if started else "?"
            _write(f"{self._rows} of {total} rows done, {self._failed} failed")


def _attempt_line(row: AttemptRow) -> str:
    score = "–" if row.score is None else number(row.score)
    said = [("hint", row.hint), ("feedback", row.feedback), ("error", row.error)]
    told = "  ".join(f"{name}: {one_line(text_of(value), 80)}" for name, value in said if value)
    return f"attempt {row.attempt}  {row.state}  {score}  {told}".rstrip()


def _candidate_line(fold: Fold, scored: CandidateScored) -> str:
    made = fold.candidates.get(scored.candidate)
    best = "  best so far" if scored.best == scored.candidate else ""
    return f"candidate {scored.candidate}  {made.origin if made else ''}  {scored.split} {number(scored.score)}{best}"


def _write(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
