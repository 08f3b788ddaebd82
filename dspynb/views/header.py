"""The header that views show above a run's rows: progress, result, costs and notes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, TypedDict

from dspynb.data import tokens_text
from dspynb.json_checks import is_real
from dspynb.running.record import RunRecord
from dspynb.running.tables.candidates import candidate_scores, summary_of, winner_of
from dspynb.views.rows import Mode, mean
from dspynb.views.texts import clip, number

__all__ = ["Counts", "Header", "build_header", "mean_of_rows", "score_of_best", "total_of_rows"]

_SECOND_COLUMN = {"attempts": "hint", "rows": "inputs", "candidates": "origin", "calls": "predictor"}
"""Mode → the heading of the second column, where that is not the name of a field."""
_MOST_NOTES = 20


class Header(TypedDict):
    """What is shown above the rows. Texts are ready to show."""

    mode: str
    state: str
    name: str
    kind: str
    progress: str
    done: int
    """Rows that have ended."""
    total: int | None
    """All rows; None where their number is unknown."""
    result: str
    """The best or the mean score."""
    facts: list[str]
    """Costs and models."""
    elapsed: float | None
    """Seconds since the start; None before it."""
    columns: list[str]
    """The headings of the second column and of the outputs."""
    low: float
    """The low end of the score bars."""
    high: float
    """The high end of the score bars."""
    notes: list[str]
    summary: str
    """How an optimizer's run ended; empty for other runs."""


class Counts:
    """The states and scores of the outermost rows, counted row by row. A row can have any key."""

    def __init__(self) -> None:
        self.sum = 0.0
        self.scored = 0
        self.low = 0.0
        self.high = 0.0
        self._rows: dict[int | str, tuple[str, float | None]] = {}
        self._states: dict[str, int] = {}
        self._best: float | None = None
        self._inputs: set[str] = set()
        self._outputs: set[str] = set()

    @property
    def all(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    @property
    def ended(self) -> int:
        """How many rows have ended."""
        return self.all - self.in_state("running")

    def in_state(self, state: str) -> int:
        """How many rows are in this state."""
        return self._states.get(state, 0)

    @property
    def best(self) -> float:
        """The highest score; 0 if there is none. Cached until the row with this score changes."""
        if self._best is None:
            scores = [score for _, score in self._rows.values() if score is not None]
            self._best = max(scores, default=0.0)
        return self._best

    def items(self) -> Iterator[tuple[int | str, str, float | None]]:
        """The key, state and score of each row."""
        for key, (state, score) in self._rows.items():
            yield key, state, score

    def keys(self, *states: str) -> list[int | str]:
        """The keys of the rows in these states."""
        return [key for key, (state, _) in self._rows.items() if state in states]

    def put(self, key: int | str, state: str, score: float | None) -> None:
        """Count a row with its present state and score. Scores of cancelled and failed rows do not count."""
        counted = None if state in ("cancelled", "failed") else score
        row = (state, counted)
        before = self._rows.get(key)
        if before == row:
            return
        if before is not None:
            self.remove(key)
        self._rows[key] = row
        self._states[state] = self._states.get(state, 0) + 1
        if counted is None:
            return
        self.sum += counted
        self.scored += 1
        self.low = min(self.low, counted)
        self.high = max(self.high, counted)
        if self.scored == 1:
            self._best = counted
        elif self._best is not None:
            self._best = max(self._best, counted)

    def remove(self, key: int | str) -> None:
        """Stop counting a row."""
        state, score = self._rows.pop(key, (None, None))
        if state is not None:
            self._states[state] -= 1
        if score is not None:
            self.sum -= score
            self.scored -= 1
            if score == self._best:
                self._best = None

    def put_fields(self, inputs: Iterable[str], outputs: Iterable[str]) -> None:
        """Add the names of a row's input and output fields, for ``columns``."""
        self._inputs.update(inputs)
        self._outputs.update(outputs)

    def columns(self, mode: Mode) -> list[str]:
        """The headings of the second column and of the outputs.

        Where all rows have the same single field, the heading is the field's name.
        """
        second = _SECOND_COLUMN[mode]
        if len(self._inputs) == 1:
            second = next(iter(self._inputs))
        outputs = "instruction" if mode == "candidates" else "outputs"
        if len(self._outputs) == 1:
            outputs = next(iter(self._outputs))
        return [second, outputs]


def build_header(record: RunRecord, mode: Mode, counts: Counts, searches: int) -> Header:
    """The present header of a run.

    Args:
        record: the run's record.
        mode: what the outermost rows are.
        counts: the counts of the outermost rows.
        searches: the number of searches that the outermost attempts belong to.
    """
    started = record.started
    summary = ""
    if mode == "candidates" and record.ended:
        summary = clip(summary_of(record), 1000)
    done, total = _done(record, mode, counts, searches)
    return {
        "mode": mode,
        "state": record.status,
        "name": clip(started.name if started else "", 200),
        "kind": started.kind if started else "",
        "progress": _progress(record, mode, counts, searches, total),
        "done": done,
        "total": total,
        "result": _result(record, mode, counts),
        "facts": _costs(record),
        "elapsed": _elapsed(record),
        "columns": counts.columns(mode),
        "low": min(0.0, counts.low),
        "high": max(1.0, counts.high),
        "notes": _notes(record),
        "summary": summary,
    }


def _done(record: RunRecord, mode: Mode, counts: Counts, searches: int) -> tuple[int, int | None]:
    """How many rows have ended, and how many there are in total; None if unknown."""
    if mode == "rows":
        total = total_of_rows(record)
        if total is None:
            total = counts.all
        return counts.ended - counts.in_state("cancelled"), total
    limit: Any = record.started.settings.get("n") if record.started else None
    if mode == "attempts" and isinstance(limit, int) and searches <= 1:
        return counts.ended, limit
    return counts.ended, None


def total_of_rows(record: RunRecord) -> int | None:
    """The total number of rows of a batch or evaluation; None if unknown."""
    rows: Any = record.started.inputs.get("rows") if record.started else None
    return rows if isinstance(rows, int) else None


def _progress(record: RunRecord, mode: Mode, counts: Counts, searches: int, total: int | None) -> str:
    match mode:
        case "rows":
            return _progress_of_rows(counts, total)
        case "calls":
            return "" if record.ended else "calling"
        case "candidates":
            return _progress_of_candidates(record, counts)
        case "attempts":
            return _progress_of_attempts(record, counts, searches, total)


def _progress_of_rows(counts: Counts, total: int | None) -> str:
    done = counts.ended - counts.in_state("cancelled")
    failed = counts.in_state("failed")
    progress = f"{done:,} of {total:,} rows"
    return f"{progress}, {failed:,} failed" if failed else progress


def _progress_of_candidates(record: RunRecord, counts: Counts) -> str:
    progress = f"{_count(counts.all, 'candidate')}, {_count(len(record.rollouts), 'rollout')}"
    failed = sum(proposal.error is not None for proposal in record.proposals)
    return f"{progress}, {_count(failed, 'failed proposal')}" if failed else progress


def _progress_of_attempts(record: RunRecord, counts: Counts, searches: int, total: int | None) -> str:
    attempts = counts.all
    if searches > 1:
        return f"{_count(attempts, 'attempt')} in {searches:,} searches"
    of_total = "" if total is None else f" of {total}"
    if record.ended is None:
        return f"attempt {attempts}{of_total}"
    plural_of = attempts if total is None else total
    return f"{attempts}{of_total} {'attempt' if plural_of == 1 else 'attempts'}"


def _result(record: RunRecord, mode: Mode, counts: Counts) -> str:
    if mode == "rows":
        score = mean_of_rows(record, counts)
        return "" if score is None else f"mean {number(score)}"
    score = score_of_best(record, mode, counts)
    return "" if score is None else f"best {number(score)}"


def mean_of_rows(record: RunRecord, counts: Counts) -> float | None:
    """The mean score so far; None without scores. In an evaluation, a failed row counts as the ``failure_score``."""
    failure_score: Any = record.started.settings.get("failure_score") if record.started else None
    total = counts.sum
    rows = counts.scored
    if is_real(failure_score):
        failed = counts.in_state("failed")
        total += failed * failure_score
        rows += failed
    return total / rows if rows else None


def score_of_best(record: RunRecord, mode: Mode, counts: Counts) -> float | None:
    """The score of the best candidate, or the best score of the attempts; None without scores."""
    if mode == "candidates":
        winner = winner_of(record)
        return None if winner is None else mean(candidate_scores(record, winner))
    return counts.best if counts.scored else None


def _costs(record: RunRecord) -> list[str]:
    usage = record.usage
    calls = _count(len(record.calls), "call")
    if record.cached:
        calls += f" ({record.cached:,} cached)"
    facts = [calls]
    tokens = tokens_text(usage.tokens)
    if tokens:
        facts.append(tokens)
    if usage.usd:
        facts.append(f"{usage.usd:.4f} USD")
    facts += [clip(model, 60) for model in record.models[:2]]
    return facts


def _notes(record: RunRecord) -> list[str]:
    failures = record.hint_failures[:_MOST_NOTES]
    notes = [
        clip(f"wave {failure.wave} had no new hint: the advisor failed: {failure.error}", 500) for failure in failures
    ]
    if notes:
        notes.append("a reward that returns dn.Score(value, feedback=...) needs no advisor")
    if record.ended and record.ended.error:
        notes.append(clip(record.ended.error))
    return notes


def _elapsed(record: RunRecord) -> float | None:
    if record.started is None:
        return None
    end = record.ended.at if record.ended else time.time()
    return max(0.0, end - record.started.at)


def _count(n: int, unit: str) -> str:
    return f"{n:,} {unit}" if n == 1 else f"{n:,} {unit}s"
