"""Runs as plain text: lines while a run works, and a short table that is the same every time."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from dspynb.events import (
    AttemptEnded,
    AttemptStarted,
    CandidateProposed,
    CandidateScored,
    Event,
    RolloutEnded,
    RunEnded,
    SpanEnded,
)
from dspynb.running.record import RunRecord
from dspynb.views.state import Row, RunState
from dspynb.views.terminal.progress import Progress
from dspynb.views.texts import number, one_line, text_of, visible

if TYPE_CHECKING:
    from dspynb.running.run import Run

__all__ = ["TextView", "summary", "write_line"]

_MOST_LINES = 30
_SHARE = 0.05
"""Lines about rows come once a second at first, then after each 5 % of the time that has gone by: a log of a run of a
day has as many as fit a page or two."""


def summary(seen: RunRecord | RunState, search: int = 0) -> str:
    """The run in a few lines, without times, ids or counts of tokens."""
    header, rows = (seen if isinstance(seen, RunState) else RunState(seen, search)).snapshot()
    told = ", ".join(filter(None, [header["state"], header["progress"], header["result"]]))
    lines = [f"{one_line(header['name'], 200)}: {told}"]
    cells = [["#", "state", "score", *header["columns"], "error"], *map(_cells, rows[:_MOST_LINES])]
    if rows:
        lines += _aligned(_without_empty(cells))
    if len(rows) > _MOST_LINES:
        lines.append(f"… {len(rows) - _MOST_LINES} more")
    return visible("\n".join(lines))


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
    """Writes a line to stderr for each attempt that ends, now and then for the rows of a batch, for each candidate
    that was evaluated on all rows, and a last line."""

    def __init__(self, run: Run) -> None:
        self._run, self._progress = run, Progress()
        self._attempts: dict[int, AttemptStarted] = {}
        self._origins: dict[str, str] = {}
        self._live = False
        self._began = self._told = time.monotonic()

    def open(self) -> None:
        """Begin to write: the run's events so far were taken."""
        self._live = True

    def emit(self, event: Event) -> None:
        """Take an event; written at once."""
        match event:
            case AttemptStarted():
                self._attempts[event.span] = event
            case AttemptEnded():
                self._tell_attempt(self._attempts.pop(event.span, None), event)
            case SpanEnded() | RolloutEnded():
                self._tell_rows()
            case CandidateProposed():
                self._origins[event.id] = event.origin
            case CandidateScored() if event.full:
                self._write(_candidate_line(event, self._origins.get(event.candidate, "")))
            case RunEnded():
                self._write(summary(self._run.record).splitlines()[0])

    def _tell_attempt(self, began: AttemptStarted | None, ended: AttemptEnded) -> None:
        self._progress.catch_up(self._run.record.events)
        if began is not None and not self._progress.of_rows and not self._progress.candidates:
            self._write(_attempt_line(began, ended))

    def _tell_rows(self) -> None:
        now = time.monotonic()
        if now - self._told < max(1.0, _SHARE * (now - self._began)):
            return
        self._progress.catch_up(self._run.record.events)
        if self._progress.of_rows:
            self._told = now
            done, total, failed = self._progress.rows
            score = self._progress.score()
            self._write(f"{done} of {total or '?'} rows done, {failed} failed{f', {score}' if score else ''}")

    def _write(self, line: str) -> None:
        if self._live:
            write_line(line)


def _attempt_line(began: AttemptStarted, ended: AttemptEnded) -> str:
    score = "–" if ended.score is None else number(ended.score)
    said = [("hint", began.hint), ("feedback", ended.feedback), ("error", ended.error)]
    told = "  ".join(f"{name}: {one_line(text_of(value), 80)}" for name, value in said if value)
    return f"attempt {began.attempt}  {ended.state}  {score}  {told}".rstrip()


def _candidate_line(scored: CandidateScored, origin: str) -> str:
    best = "  best so far" if scored.best == scored.candidate else ""
    made = f"  {one_line(origin)}" if origin else ""
    return f"candidate {one_line(scored.candidate)}{made}  {scored.split} {number(scored.score)}{best}"


def write_line(text: str) -> None:
    """Write to stderr, in whatever encoding that is."""
    stream = sys.stderr
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
    stream.flush()
