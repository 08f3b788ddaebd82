"""How far a run is, as short texts for a line: counts, score, costs, and the time that is left."""

from __future__ import annotations

import time
from typing import NamedTuple

from dspynb.data import tokens_text
from dspynb.events import RunEnded, RunStarted
from dspynb.json_checks import is_real
from dspynb.running.record_rows import SpanRow
from dspynb.views.header import mean_of_rows, score_of_best, total_of_rows
from dspynb.views.texts import number
from dspynb.views.view_model import ViewModel

__all__ = ["Fact", "Progress", "clock", "count"]


class Fact(NamedTuple):
    """Something to say, and how much it matters: where there is no room, what matters least goes first."""

    text: str
    matters: int


class Progress:
    """The progress of a run, by its outermost rows, attempts or candidates. Call ``update`` before reading it."""

    def __init__(self, state: ViewModel) -> None:
        self.state = state
        self.record = state.record

    def update(self) -> None:
        """Look at what has changed in the run's record."""
        self.state.count()

    @property
    def started(self) -> RunStarted | None:
        """How the run began, or was resumed."""
        return self.record.started

    @property
    def ended(self) -> RunEnded | None:
        """How the run ended; None while it runs."""
        return self.record.ended

    @property
    def of_rows(self) -> bool:
        """Whether rows are counted, not attempts or candidates."""
        return self.state.mode() == "rows" and self.state.counts.all > 0

    @property
    def rows(self) -> tuple[int, int | None, int]:
        """Of rows: done, all (None where that is not known), failed."""
        counts = self.state.counts
        return counts.ended - counts.of("cancelled"), total_of_rows(self.record), counts.of("failed")

    @property
    def share(self) -> float | None:
        """How much is done, from 0 to 1; None where that cannot be known."""
        done, total, _ = self.rows
        return min(1.0, done / total) if self.of_rows and total else None

    @property
    def seconds(self) -> float:
        """Seconds since the run began, or was resumed."""
        if self.started is None:
            return 0.0
        until = self.ended.at if self.ended else time.time()
        return max(0.0, until - self.started.at)

    def scores(self) -> dict[str, dict[int, list[float]]]:
        """Program (empty where only one is evaluated) → row → scores of its repeats, of rows that have one. A row that
        failed counts as the run's ``failure_score``."""
        penalty = self.started.settings.get("failure_score") if self.started else None
        scores: dict[str, dict[int, list[float]]] = {}
        for key, state, counted in self.state.counts.items() if self.of_rows else ():
            score = counted
            if state == "failed" and is_real(penalty):
                score = float(penalty)
            row = self.record.spans[int(key)]
            if score is None or row.row is None or not row.done:
                continue
            rows = scores.setdefault(self._program(row), {})
            rows.setdefault(row.row, []).append(score)
        return scores

    def _program(self, row: SpanRow) -> str:
        above = self.record.spans.get(row.parent)
        return above.name if above is not None and above.kind == "evaluation" else ""

    def errors(self) -> list[str]:
        """The errors of failed rows."""
        keys = self.state.counts.keys("failed") if self.of_rows else []
        return [self.record.spans[int(key)].error or "" for key in keys]

    def counted(self) -> str:
        """How much of what is done: ``3/10 rows, 1 failed``, ``2/3 attempts``, ``4 candidates, 80 rollouts``."""
        mode = self.state.mode()
        counts = self.state.counts
        if mode == "candidates":
            return f"{count(len(self.record.candidates), 'candidate')}, {count(len(self.record.rollouts), 'rollout')}"
        if self.of_rows:
            done, total, failed = self.rows
            of = f"{done:,}/{total:,} row{'' if total == 1 else 's'}" if total else count(done, "row")
            return f"{of}, {failed:,} failed" if failed else of
        tried = counts.ended if mode == "attempts" else 0
        limit = self.started.settings.get("n") if self.started else None
        if isinstance(limit, int):
            return f"{tried}/{count(limit, 'attempt')}"
        return count(tried, "attempt") if tried else ""

    def score(self) -> str:
        """The mean of the rows so far, or the best of attempts or candidates."""
        if self.of_rows:
            mean = mean_of_rows(self.record, self.state.counts)
            return "" if mean is None else f"mean {number(mean)}"
        best = score_of_best(self.record, self.state.mode(), self.state.counts)
        return "" if best is None else f"best {number(best)}"

    def costs(self) -> list[Fact]:
        """Calls, those that the cache answered, tokens and USD."""
        usage = self.record.usage
        facts = []
        if self.record.calls:
            facts.append(Fact(count(len(self.record.calls), "call"), 6))
        if self.record.cached:
            facts.append(Fact(f"{self.record.cached:,} cached", 2))
        if tokens := tokens_text(usage.tokens):
            facts.append(Fact(tokens, 1))
        if usage.usd:
            facts.append(Fact(f"${usage.usd:.4f}", 5))
        return facts

    def left(self) -> float | None:
        """Seconds until the end, if it goes on like this; None where that cannot be known."""
        share = self.share
        seconds = self.seconds
        if not share or share == 1 or seconds < 1:
            return None
        return seconds * (1 - share) / share


def count(n: int, unit: str) -> str:
    """A number of things: ``1 call``, ``2,000 calls``."""
    return f"{n:,} {unit}{'' if n == 1 else 's'}"


def clock(seconds: float) -> str:
    """A time as ``0:07``, ``12:03`` or ``1:00:00``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
