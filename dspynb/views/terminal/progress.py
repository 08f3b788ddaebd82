"""How far a run has come, in what a line can hold.

Events are taken when there is something to write, many at once: that costs a fifth of taking each as it comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dspynb.data import tokens_text
from dspynb.events import (
    AttemptChosen,
    AttemptEnded,
    AttemptStarted,
    CandidateProposed,
    CandidateScored,
    Event,
    PredictorCalled,
    RolloutEnded,
    RunEnded,
    RunStarted,
    SpanEnded,
    SpanStarted,
)
from dspynb.json_checks import is_real
from dspynb.views.texts import number

__all__ = ["Fact", "Progress", "clock", "count"]

_HALTED = "halted"  # the error of a row that a stop or the end of a budget broke off


class Fact(NamedTuple):
    """Something to say, and how much it matters: where there is no room, what matters least goes first."""

    text: str
    matters: int


_RowKey = tuple[int, "int | None", str]
"""Span of what holds it, number, name: the same for a row that is run again."""


class Progress:
    """Counts the outermost rows of a run, or its attempts or candidates, and takes note of scores and costs.

    No ``RunRecord``: a line needs little of what that keeps.
    """

    def __init__(self) -> None:
        self.started: RunStarted | None = None
        self.ended: RunEnded | None = None
        self.calls = self.cached = self.rollouts = 0
        self.tokens: int | None = 0
        self.usd: float | None = 0.0
        self.candidates: dict[str | None, float | None] = {}  # their scores on all validation rows
        self._parents: dict[int, int] = {}
        self._attempts: dict[int, float | None] = {}  # span → score, once it has one
        self._programs: dict[int, str] = {}  # span of an evaluation that is one of several → its program
        self._rows: dict[int, _RowKey] = {}
        self._row_ends: dict[_RowKey, tuple[str | None, float | None]] = {}  # error, score
        self._chosen: dict[int, float] = {}  # row's span → the score of the attempt that was chosen in it
        self._numbers: dict[tuple[int, int], int] = {}  # search, number → the attempt's span
        self._failed = self._scored = self._tried = self._read = 0
        self._sum = 0.0
        self._best: float | None = None

    def catch_up(self, events: Sequence[Event]) -> None:
        """Take those of a run's events that are new."""
        new = events[self._read :]
        self._read += len(new)
        for event in new:
            self.add(event)

    def add(self, event: Event) -> None:
        """Take the next event."""
        take = _TAKES.get(type(event))
        if take is not None:
            take(self, event)

    def _run_started(self, event: RunStarted) -> None:
        self.started, self.ended = event, None

    def _run_ended(self, event: RunEnded) -> None:
        self.ended = event

    def _called(self, event: PredictorCalled) -> None:
        usage = event.usage
        self.calls += 1
        self.cached += event.cached
        tokens = usage.tokens
        self.tokens = None if tokens is None or self.tokens is None else self.tokens + tokens
        self.usd = None if usage.usd is None or self.usd is None else self.usd + usage.usd

    def _span_started(self, event: SpanStarted) -> None:
        self._parents[event.span] = event.parent
        if event.kind == "evaluation":
            self._programs[event.span] = event.name
        elif event.kind == "row":
            run = self.started.span if self.started else 0
            if event.parent == run or not self._inside(event.parent):
                self._rows[event.span] = event.parent, event.row, event.name

    def _ancestors(self, span: int) -> Iterator[int]:
        while span:
            yield span
            span = self._parents.get(span, 0)

    def _inside(self, span: int) -> bool:
        """Whether a span is in an attempt or a row."""
        return any(above in self._rows or above in self._attempts for above in self._ancestors(span))

    def _span_ended(self, event: SpanEnded | RolloutEnded) -> None:
        rollout = event if isinstance(event, RolloutEnded) else None
        self.rollouts += rollout is not None
        key = self._rows.get(event.span)
        if key is None or event.error == _HALTED:
            return
        score = rollout.score if rollout else self._chosen.pop(event.span, None)
        if event.error is not None:
            told = self.started.settings.get("failure_score") if self.started else None
            score = float(told) if is_real(told) else None
        if key in self._row_ends:
            self._count(*self._row_ends[key], sign=-1)
        self._row_ends[key] = event.error, score
        self._count(event.error, score, sign=1)

    def _count(self, error: str | None, score: float | None, *, sign: int) -> None:
        self._failed += sign * (error is not None)
        if score is not None:
            self._sum, self._scored = self._sum + sign * score, self._scored + sign

    def _attempt_started(self, event: AttemptStarted) -> None:
        self._parents[event.span] = event.parent
        self._attempts[event.span] = None
        self._numbers[event.parent, event.attempt] = event.span

    def _attempt_ended(self, event: AttemptEnded) -> None:
        self._attempts[event.span] = event.score
        if self._inside(event.parent):
            return
        self._tried += 1
        if event.score is not None and event.state != "cancelled":
            self._best = event.score if self._best is None else max(self._best, event.score)

    def _was_chosen(self, event: AttemptChosen) -> None:
        row = next((above for above in self._ancestors(event.span) if above in self._rows), None)
        if row is not None:
            self._chosen[row] = self._attempts.get(self._numbers.get((event.span, event.attempt), 0)) or 0.0

    def _proposed(self, event: CandidateProposed) -> None:
        self.candidates.setdefault(event.id, None)

    def _candidate_scored(self, event: CandidateScored) -> None:
        if event.full and event.split == "val":
            self.candidates[event.candidate] = event.score
            best = self.candidates.get(event.best)
            self._best = self._best if best is None else best

    # ── what there is to say ──────────────────────────────────────────────────────────────────────────────────────
    @property
    def of_rows(self) -> bool:
        """Whether rows are what counts."""
        return bool(self._rows) and not self.candidates

    @property
    def rows(self) -> tuple[int, int | None, int]:
        """Of rows: done, all (None where that is not known), failed."""
        told = self.started.inputs.get("rows") if self.started else None
        return len(self._row_ends), told if isinstance(told, int) else None, self._failed

    @property
    def share(self) -> float | None:
        """How much is done, from 0 to 1; None where that cannot be known."""
        done, total, _ = self.rows
        return min(1.0, done / total) if self.of_rows and total else None

    @property
    def seconds(self) -> float:
        """Since the run began, or went on."""
        started, ended = self.started, self.ended
        return max(0.0, (ended.at if ended else time.time()) - started.at) if started else 0.0

    def scores(self) -> dict[str, dict[int, list[float]]]:
        """Program (where several are compared) → row → scores of its repeats, of rows that have one."""
        found: dict[str, dict[int, list[float]]] = {}
        for (parent, row, _), (_, score) in self._row_ends.items():
            if score is not None and row is not None:
                found.setdefault(self._programs.get(parent, ""), {}).setdefault(row, []).append(score)
        return found

    def errors(self) -> list[str]:
        """What failed rows failed with."""
        return [error for error, _ in self._row_ends.values() if error is not None]

    def counted(self) -> str:
        """How much of what is done: ``3/10 rows, 1 failed``, ``2/3 attempts``, ``4 candidates, 80 rollouts``."""
        if self.candidates:
            return f"{count(len(self.candidates), 'candidate')}, {count(self.rollouts, 'rollout')}"
        if self.of_rows:
            done, total, failed = self.rows
            of = f"{done:,}/{total:,} row{'' if total == 1 else 's'}" if total else count(done, "row")
            return f"{of}, {failed:,} failed" if failed else of
        limit = self.started.settings.get("n") if self.started else None
        if self._tried or isinstance(limit, int):
            return (
                f"{self._tried}/{count(limit, 'attempt')}" if isinstance(limit, int) else count(self._tried, "attempt")
            )
        return ""

    def score(self) -> str:
        """The mean of the rows so far, or the best of attempts or candidates."""
        if self.of_rows:
            return f"mean {number(self._sum / self._scored)}" if self._scored else ""
        return "" if self._best is None else f"best {number(self._best)}"

    def costs(self) -> list[Fact]:
        """Calls, those that the cache answered, tokens and USD."""
        facts = [Fact(count(self.calls, "call"), 6)] if self.calls else []
        facts += [Fact(f"{self.cached:,} cached", 2)] if self.cached else []
        facts += [Fact(tokens, 1)] if (tokens := tokens_text(self.tokens)) else []
        return [*facts, Fact(f"${self.usd:.4f}", 5)] if self.usd else facts

    def left(self) -> float | None:
        """Seconds until the end, if it goes on like this; None where that cannot be known."""
        share, seconds = self.share, self.seconds
        return seconds * (1 - share) / share if share and share < 1 and seconds >= 1 else None


_TAKES: Mapping[type[Event], Callable[[Progress, Any], None]] = {
    PredictorCalled: Progress._called,
    SpanStarted: Progress._span_started,
    SpanEnded: Progress._span_ended,
    RolloutEnded: Progress._span_ended,
    AttemptStarted: Progress._attempt_started,
    AttemptEnded: Progress._attempt_ended,
    AttemptChosen: Progress._was_chosen,
    CandidateProposed: Progress._proposed,
    CandidateScored: Progress._candidate_scored,
    RunStarted: Progress._run_started,
    RunEnded: Progress._run_ended,
}


def count(n: int, unit: str) -> str:
    """A number of things: ``1 call``, ``2,000 calls``."""
    return f"{n:,} {unit}{'' if n == 1 else 's'}"


def clock(seconds: float) -> str:
    """A time as ``0:07``, ``12:03`` or ``1:00:00``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
