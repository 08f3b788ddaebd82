"""Show runs as plain text: lines while a run works, and a short table that is the same for every execution."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dspynb.events import CandidateScored
from dspynb.running.record import RunRecord
from dspynb.running.record_changes import Changes
from dspynb.running.record_rows import AttemptRow
from dspynb.views.rows import Row
from dspynb.views.terminal.progress import Progress
from dspynb.views.texts import number, one_line, one_line_or_empty, score_text, text_of, visible
from dspynb.views.view_model import ViewModel

if TYPE_CHECKING:
    from dspynb.running.run import Run

__all__ = ["TextView", "summary", "write_line"]

_MOST_LINES = 30
_SHARE = 0.05
"""Lines about rows are at least one second and 5 % of the elapsed time apart, so that the log of a run that takes a day
is still short."""


def summary(source: RunRecord | ViewModel, search: int = 0) -> str:
    """A run in a few lines of text, without times, ids and numbers of tokens.

    Args:
        source: the run's record, or the view model of a view that has read it.
        search: the span of a search, to show only its attempts; 0: the whole run.
    """
    state = source if isinstance(source, ViewModel) else ViewModel(source, search)
    with state.record.lock:
        header, rows = state.snapshot()
    facts = filter(None, [header["state"], header["progress"], header["result"]])
    lines = [f"{one_line(header['name'], 200)}: {', '.join(facts)}"]
    if rows:
        cells = [["#", "state", "score", *header["columns"], "error"]]
        cells += [_cells(row) for row in rows[:_MOST_LINES]]
        lines += _aligned(_without_empty_columns(cells))
    if len(rows) > _MOST_LINES:
        lines.append(f"… {len(rows) - _MOST_LINES} more")
    return visible("\n".join(lines))


def _cells(row: Row) -> list[str]:
    label = row["label"]
    if row["best"]:
        label += "*"
    about = one_line(row["about"], 40)
    outputs = one_line(row["outputs"], 40)
    return [label, row["state"], score_text(row["score"]), about, outputs, one_line_or_empty(row["error"])]


def _without_empty_columns(cells: list[list[str]]) -> list[list[str]]:
    """The lines without the columns that are empty or a dash below their heading."""
    columns = zip(*cells, strict=True)
    filled = [column for column in columns if _has_text(column[1:])]
    return [list(line) for line in zip(*filled, strict=True)]


def _has_text(cells: Sequence[str]) -> bool:
    return any(cell.strip("–") for cell in cells)


def _aligned(cells: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for line in cells:
        padded = [text.ljust(width) for text, width in zip(line, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return lines


class TextView:
    """Writes the progress of a run to stderr. ``run.watch(view.changed)`` connects it.

    There is a line for each attempt that ends, for each candidate that was evaluated on all rows, from time to time for
    the rows of a batch, and one at the end.
    """

    def __init__(self, run: Run) -> None:
        self._record = run.record
        self._progress = Progress(ViewModel(run.record))
        self._ended_attempts: set[int] = set()  # their spans
        self._milestones_read = 0
        self._live = False
        self._opened_at = time.monotonic()
        self._rows_written_at = self._opened_at

    def open(self) -> None:
        """Begin to write. What a resumed run did earlier is not written again."""
        with self._record.lock:
            for span, attempt in self._record.attempts.items():
                if attempt.state != "running":
                    self._ended_attempts.add(span)
            self._milestones_read = len(self._record.milestones)
            self._live = True

    def changed(self, changes: Changes) -> None:
        """Write what an event changed, at once."""
        self._progress.state.note(changes)
        if not self._live:
            return
        for span in changes.spans:
            self._span_changed(span)
        for milestone in self._record.milestones[self._milestones_read :]:
            self._milestones_read += 1
            if milestone.scored.full:
                write_line(self._candidate_line(milestone.scored))
        if changes.run and self._record.ended is not None:
            write_line(summary(self._progress.state).splitlines()[0])

    def _span_changed(self, span: int) -> None:
        row = self._record.spans.get(span)
        if row is not None and row.done:
            self._write_rows()
        attempt = self._record.attempts.get(span)
        if attempt is not None and attempt.state != "running" and span not in self._ended_attempts:
            self._ended_attempts.add(span)
            self._progress.update()
            if self._progress.state.mode() == "attempts":
                write_line(_attempt_line(attempt))

    def _write_rows(self) -> None:
        now = time.monotonic()
        pause = max(1.0, _SHARE * (now - self._opened_at))
        if now - self._rows_written_at < pause:
            return
        self._progress.update()
        if self._progress.counts_rows:
            self._rows_written_at = now
            done, total, failed = self._progress.row_counts
            line = f"{done} of {total or '?'} rows done, {failed} failed"
            score = self._progress.score_text()
            if score:
                line += f", {score}"
            write_line(line)

    def _candidate_line(self, scored: CandidateScored) -> str:
        candidate = self._record.candidates.get(scored.candidate)
        name = self._record.candidate_names.get(scored.candidate, scored.candidate)
        parts = [f"candidate {one_line(name)}"]
        if candidate is not None and candidate.origin:
            parts.append(one_line(candidate.origin))
        parts.append(f"{scored.split} {number(scored.score)}")
        if scored.best == scored.candidate:
            parts.append("best so far")
        return "  ".join(parts)


def _attempt_line(attempt: AttemptRow) -> str:
    parts = [f"attempt {attempt.attempt}", attempt.state, score_text(attempt.score) or "–"]
    for name, value in (("hint", attempt.hint), ("feedback", attempt.feedback), ("error", attempt.error)):
        if value:
            parts.append(f"{name}: {one_line(text_of(value), 80)}")
    return "  ".join(parts).rstrip()


def write_line(text: str) -> None:
    """Write a line to stderr. Characters that its encoding lacks become ``?``."""
    stream = sys.stderr
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
    stream.flush()
