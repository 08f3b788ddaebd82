"""The progress of a run as short texts: counts, score, costs, and the estimated time left."""

from __future__ import annotations

from typing import NamedTuple

from dspynb.data import tokens_text
from dspynb.events import RunEnded, RunStarted
from dspynb.json_checks import is_real
from dspynb.running.record_rows import SpanRow
from dspynb.views.run_facts import budget_uses, elapsed_seconds, result_text, run_setting, total_of_rows, used_share
from dspynb.views.texts import counted
from dspynb.views.view_model import ViewModel

__all__ = ["Fact", "Progress", "clock"]


class Fact(NamedTuple):
    """A short text. Where a line has no room for all facts, those of the lowest priority are left out."""

    text: str
    priority: int


class Progress:
    """The progress of a run, counted in its outermost rows, attempts or candidates. Call ``update`` before reading."""

    def __init__(self, state: ViewModel) -> None:
        self.state = state
        self.record = state.record

    def update(self) -> None:
        """Count the changes of the run's record since the last update."""
        self.state.count()

    @property
    def started(self) -> RunStarted | None:
        """The event that started or resumed the run."""
        return self.record.started

    @property
    def ended(self) -> RunEnded | None:
        """The event that ended the run; None while it is active."""
        return self.record.ended

    @property
    def counts_rows(self) -> bool:
        """Whether progress is counted in rows, not in attempts or candidates."""
        return self.state.mode() == "rows" and self.state.counts.all > 0

    @property
    def row_counts(self) -> tuple[int, int | None, int]:
        """How many rows are done, are there in total (None if unknown), and have failed."""
        counts = self.state.counts
        return counts.ended - counts.in_state("cancelled"), total_of_rows(self.record), counts.in_state("failed")

    @property
    def share(self) -> float | None:
        """The share of rows that are done, or of the budget that is used if that is more, from 0 to 1; None if neither
        is known."""
        used = used_share(self.record)
        if not self.counts_rows:
            return used
        done, total, _ = self.row_counts
        if not total:
            return used
        return max(used or 0.0, min(1.0, done / total))

    @property
    def seconds(self) -> float:
        """Seconds since the run was started or resumed."""
        return elapsed_seconds(self.record) or 0.0

    def scores(self) -> dict[str, dict[int, list[float]]]:
        """Program → row → the scores of its repeats. The program is empty where only one is evaluated.

        Rows without a score are left out. A row that failed counts as the run's ``failure_score``.
        """
        scores: dict[str, dict[int, list[float]]] = {}
        if not self.counts_rows:
            return scores
        failure_score = run_setting(self.record, "failure_score")
        for key, state, metric_score in self.state.counts.items():
            score = metric_score
            if state == "failed" and is_real(failure_score):
                score = float(failure_score)
            row = self.record.spans[int(key)]
            if score is None or row.row is None or not row.done:
                continue
            rows = scores.setdefault(self._program(row), {})
            rows.setdefault(row.row, []).append(score)
        return scores

    def _program(self, row: SpanRow) -> str:
        parent = self.record.spans.get(row.parent)
        return parent.name if parent is not None and parent.kind == "evaluation" else ""

    def errors(self) -> list[str]:
        """The errors of failed rows."""
        if not self.counts_rows:
            return []
        return [self.record.spans[int(key)].error or "" for key in self.state.counts.keys("failed")]

    def done_text(self) -> str:
        """How much is done: ``3/10 rows, 1 failed``, ``2/3 attempts``, ``4 candidates, 80 rollouts``."""
        mode = self.state.mode()
        if mode == "candidates":
            candidates = counted(len(self.record.candidates), "candidate")
            rollouts = counted(len(self.record.rollouts), "rollout")
            return f"{candidates}, {rollouts}"
        if self.counts_rows:
            return self._rows_text()
        attempts = self.state.counts.ended if mode == "attempts" else 0
        limit = run_setting(self.record, "n")
        if isinstance(limit, int):
            return f"{attempts}/{counted(limit, 'attempt')}"
        return counted(attempts, "attempt") if attempts else ""

    def _rows_text(self) -> str:
        done, total, failed = self.row_counts
        text = counted(done, "row")
        if total:
            text = f"{done:,}/{counted(total, 'row')}"
        if failed:
            text += f", {failed:,} failed"
        return text

    def score_text(self) -> str:
        """The mean score of the rows so far, or the best score of attempts or candidates."""
        return result_text(self.record, self.state.mode(), self.state.counts)

    def costs(self) -> list[Fact]:
        """The number of calls and of cached calls, tokens and US dollars."""
        usage = self.record.usage
        facts = [Fact(use.text, 7) for use in budget_uses(self.record)]
        if self.record.calls:
            facts.append(Fact(counted(len(self.record.calls), "call"), 6))
        if self.record.cached:
            facts.append(Fact(f"{self.record.cached:,} cached", 2))
        tokens = tokens_text(usage.tokens)
        if tokens:
            facts.append(Fact(tokens, 1))
        if usage.usd:
            facts.append(Fact(f"${usage.usd:.4f}", 5))
        return facts

    def seconds_left(self) -> float | None:
        """The estimated seconds until the end, at the speed so far; None where there is no estimate."""
        share = self.share
        seconds = self.seconds
        if not share or share == 1 or seconds < 1:
            return None
        return seconds * (1 - share) / share


def clock(seconds: float) -> str:
    """A duration as ``0:07``, ``12:03`` or ``1:00:00``."""
    minutes, seconds_of_minute = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{seconds_of_minute:02}"
    return f"{minutes}:{seconds_of_minute:02}"
