"""Runs as plain text: lines while a run works, and a short table that is the same every time."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from dspynb.events import CandidateScored
from dspynb.running.record import RunRecord
from dspynb.running.record_changes import Changes
from dspynb.running.record_rows import AttemptRow
from dspynb.views.rows import Row
from dspynb.views.terminal.progress import Progress
from dspynb.views.texts import number, one_line, text_of, visible
from dspynb.views.view_model import ViewModel

if TYPE_CHECKING:
    from dspynb.running.run import Run

__all__ = ["TextView", "summary", "write_line"]

_MOST_LINES = 30
_SHARE = 0.05
"""Lines about rows come once a second at first, then after each 5 % of the time that has gone by: a log of a run of a
day has as many as fit a page or two."""


def summary(seen: RunRecord | ViewModel, search: int = 0) -> str:
    """The run in a few lines, without times, ids or counts of tokens."""
    state = seen if isinstance(seen, ViewModel) else ViewModel(seen, search)
    with state.record.lock:
        header, rows = state.snapshot()
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
    that was evaluated on all rows, and a last line. ``run.watch(view.changed)`` connects it."""

    def __init__(self, run: Run) -> None:
        self._record = run.record
        self._progress = Progress(ViewModel(run.record))
        self._ended: set[int] = set()  # attempts that have ended
        self._milestones = 0
        self._live = False
        self._began = self._written = time.monotonic()

    def open(self) -> None:
        """Begin to write. What a run did before it was resumed is not written again."""
        with self._record.lock:
            self._ended.update(span for span, row in self._record.attempts.items() if row.state != "running")
            self._milestones = len(self._record.milestones)
            self._live = True

    def changed(self, changes: Changes) -> None:
        """Write what an event changed, at once."""
        self._progress.state.note(changes)
        if not self._live:
            return
        for span in changes.spans:
            self._span_changed(span)
        for milestone in self._record.milestones[self._milestones :]:
            self._milestones += 1
            if milestone.scored.full:
                write_line(self._candidate_line(milestone.scored))
        if changes.run and self._record.ended is not None:
            write_line(summary(self._progress.state).splitlines()[0])

    def _span_changed(self, span: int) -> None:
        row = self._record.spans.get(span)
        if row is not None and row.done:
            self._write_rows()
        attempt = self._record.attempts.get(span)
        if attempt is not None and attempt.state != "running" and span not in self._ended:
            self._ended.add(span)
            self._progress.update()
            if self._progress.state.mode() == "attempts":
                write_line(_attempt_line(attempt))

    def _write_rows(self) -> None:
        now = time.monotonic()
        if now - self._written < max(1.0, _SHARE * (now - self._began)):
            return
        self._progress.update()
        if self._progress.of_rows:
            self._written = now
            done, total, failed = self._progress.rows
            score = self._progress.score()
            write_line(f"{done} of {total or '?'} rows done, {failed} failed{f', {score}' if score else ''}")

    def _candidate_line(self, scored: CandidateScored) -> str:
        candidate = self._record.candidates.get(scored.candidate)
        origin = f"  {one_line(candidate.origin)}" if candidate is not None and candidate.origin else ""
        best = "  best so far" if scored.best == scored.candidate else ""
        return f"candidate {one_line(scored.candidate)}{origin}  {scored.split} {number(scored.score)}{best}"


def _attempt_line(attempt: AttemptRow) -> str:
    score = "–" if attempt.score is None else number(attempt.score)
    texts = [("hint", attempt.hint), ("feedback", attempt.feedback), ("error", attempt.error)]
    shown = "  ".join(f"{name}: {one_line(text_of(value), 80)}" for name, value in texts if value)
    return f"attempt {attempt.attempt}  {attempt.state}  {score}  {shown}".rstrip()


def write_line(text: str) -> None:
    """Write to stderr, in whatever encoding that is."""
    stream = sys.stderr
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
    stream.flush()
