"""What a view says above a run's rows: how far it is, its result, what it cost, and notes."""

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

__all__ = ["Counts", "Header", "header_of", "mean_of_rows", "score_of_best", "total_of_rows"]

_ABOUT = {"attempts": "hint", "rows": "inputs", "candidates": "made in", "calls": "predictor"}
_MOST_NOTES = 20


class Header(TypedDict):
    """What is said above the rows. ``result`` (best or mean score), ``progress`` and ``facts`` (what it cost) are ready
    to show; ``done`` of ``total`` is how far it is; ``low`` and ``high`` are the ends of the score bars; ``columns``
    head the second column and the outputs; ``summary`` says how an optimizer's run ended."""

    mode: str
    state: str
    name: str
    kind: str
    progress: str
    done: int
    total: int | None
    result: str
    facts: list[str]
    elapsed: float | None
    columns: list[str]
    low: float
    high: float
    notes: list[str]
    summary: str


class Counts:
    """How many of the outermost rows are in which state, and what they score; updated row by row, under any key."""

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
        return self.all - self.of("running")

    def of(self, state: str) -> int:
        """How many rows are in this state."""
        return self._states.get(state, 0)

    @property
    def best(self) -> float:
        """The highest score, 0 without any. Searched for again after the row that had it has changed."""
        if self._best is None:
            self._best = max((s for _, s in self._rows.values() if s is not None), default=0.0)
        return self._best

    def items(self) -> Iterator[tuple[int | str, str, float | None]]:
        """Key, state and score of each row."""
        for key, (state, score) in self._rows.items():
            yield key, state, score

    def keys(self, *states: str) -> list[int | str]:
        """The keys of the rows in these states."""
        return [key for key, (state, _) in self._rows.items() if state in states]

    def put(self, key: int | str, state: str, score: float | None) -> None:
        """Count a row, in place of what it was."""
        counted = None if state in ("cancelled", "failed") else score
        row = (state, counted)
        before = self._rows.get(key)
        if before == row:
            return
        if before is not None:
            self.drop(key)
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

    def drop(self, key: int | str) -> None:
        """Count a row no more."""
        state, score = self._rows.pop(key, (None, None))
        if state is not None:
            self._states[state] -= 1
        if score is not None:
            self.sum -= score
            self.scored -= 1
            if score == self._best:
                self._best = None

    def put_fields(self, inputs: Iterable[str], outputs: Iterable[str]) -> None:
        """Take note of the names of a row's fields."""
        self._inputs.update(inputs)
        self._outputs.update(outputs)

    def columns(self, mode: Mode) -> list[str]:
        """The headings of the second column and the outputs: a field's name, where all rows have that one field."""
        about = _only(self._inputs) or _ABOUT[mode]
        return [about, _only(self._outputs) or ("instruction" if mode == "candidates" else "outputs")]


def _only(names: set[str]) -> str:
    return next(iter(names)) if len(names) == 1 else ""


def header_of(record: RunRecord, mode: Mode, counts: Counts, searches: int) -> Header:
    """The header of a run, as of now. ``searches``: how many searches the attempts are of."""
    started = record.started
    ended = record.ended
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
        "summary": clip(summary_of(record), 1000) if mode == "candidates" and ended else "",
    }


def _done(record: RunRecord, mode: Mode, counts: Counts, searches: int) -> tuple[int, int | None]:
    """How many rows have ended, and of how many; None where that is not known."""
    if mode == "rows":
        total = total_of_rows(record)
        return counts.ended - counts.of("cancelled"), counts.all if total is None else total
    limit: Any = record.started.settings.get("n") if record.started else None
    if mode == "attempts" and isinstance(limit, int) and searches <= 1:
        return counts.ended, limit
    return counts.ended, None


def total_of_rows(record: RunRecord) -> int | None:
    """Of how many rows a batch or evaluation is; None where that is not known."""
    rows: Any = record.started.inputs.get("rows") if record.started else None
    return rows if isinstance(rows, int) else None


def _progress(record: RunRecord, mode: Mode, counts: Counts, searches: int, total: int | None) -> str:
    if mode == "rows":
        done = counts.ended - counts.of("cancelled")
        failed = f", {counts.of('failed'):,} failed" if counts.of("failed") else ""
        return f"{done:,} of {total:,} rows{failed}"
    if mode == "calls":
        return "" if record.ended else "calling"
    if mode == "candidates":
        progress = f"{_n(counts.all, 'candidate')}, {_n(len(record.rollouts), 'rollout')}"
        bad = sum(proposal.error is not None for proposal in record.proposals)
        return f"{progress}, {_n(bad, 'failed proposal')}" if bad else progress
    if searches > 1:
        return f"{_n(counts.all, 'attempt')} in {searches:,} searches"
    of = "" if total is None else f" of {total}"
    if record.ended is None:
        return f"attempt {counts.all}{of}"
    return f"{counts.all}{of} attempt{_s(counts.all if total is None else total)}"


def _result(record: RunRecord, mode: Mode, counts: Counts) -> str:
    if mode == "rows":
        score = mean_of_rows(record, counts)
        return "" if score is None else f"mean {number(score)}"
    score = score_of_best(record, mode, counts)
    return "" if score is None else f"best {number(score)}"


def mean_of_rows(record: RunRecord, counts: Counts) -> float | None:
    """The mean score so far. Of an evaluation, a row that failed counts as the run's ``failure_score``."""
    penalty: Any = record.started.settings.get("failure_score") if record.started else None
    total = counts.sum
    rows = counts.scored
    if is_real(penalty):
        total += counts.of("failed") * penalty
        rows += counts.of("failed")
    return total / rows if rows else None


def score_of_best(record: RunRecord, mode: Mode, counts: Counts) -> float | None:
    """The score of the best candidate, or the best score of attempts; None without any."""
    if mode == "candidates":
        winner = winner_of(record)
        return None if winner is None else mean(candidate_scores(record, winner))
    return counts.best if counts.scored else None


def _costs(record: RunRecord) -> list[str]:
    usage = record.usage
    cached = f" ({record.cached:,} cached)" if record.cached else ""
    facts = [_n(len(record.calls), "call") + cached]
    if tokens := tokens_text(usage.tokens):
        facts.append(tokens)
    if usage.usd:
        facts.append(f"{usage.usd:.4f} USD")
    return [*facts, *(clip(model, 60) for model in record.models[:2])]


def _notes(record: RunRecord) -> list[str]:
    failures = record.hint_failures[:_MOST_NOTES]
    notes = [clip(f"wave {note.wave} had no new hint: the advisor failed: {note.error}", 500) for note in failures]
    if notes:
        notes.append("a reward that returns dn.Score(value, feedback=...) needs no advisor")
    if record.ended and record.ended.error:
        notes.append(clip(record.ended.error))
    return notes


def _elapsed(record: RunRecord) -> float | None:
    if record.started is None:
        return None
    until = record.ended.at if record.ended else time.time()
    return max(0.0, until - record.started.at)


def _n(n: int, unit: str) -> str:
    return f"{n:,} {unit}{_s(n)}"


def _s(n: int) -> str:
    return "" if n == 1 else "s"
