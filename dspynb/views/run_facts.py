"""Facts of a run that several views show: its settings, size, duration and result."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from dspynb.json_checks import is_real
from dspynb.running.record import RunRecord
from dspynb.running.tables.candidates import candidate_scores, winner_of
from dspynb.views.counts import Counts
from dspynb.views.rows import Mode, mean
from dspynb.views.texts import amount, number

__all__ = [
    "BudgetUse",
    "budget_uses",
    "elapsed_seconds",
    "end_text",
    "mean_of_rows",
    "result_text",
    "run_setting",
    "score_of_best",
    "total_of_rows",
    "used_share",
]


_UNITS = {"metric_calls": "rollouts", "calls": "calls", "tokens": "tokens", "usd": "USD", "seconds": "s"}
"""The limit of a budget → its unit."""


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """How much of one limit of a budget is used; None if that is unknown."""

    name: str
    used: float | None
    limit: float

    @property
    def share(self) -> float:
        """The used share, from 0 to 1."""
        return min(1.0, (self.used or 0.0) / self.limit)

    @property
    def text(self) -> str:
        """Such as ``120 of 500 rollouts``."""
        used = "unknown" if self.used is None else amount(self.used)
        return f"{used} of {amount(self.limit)} {_UNITS[self.name]}"


def budget_uses(record: RunRecord) -> list[BudgetUse]:
    """How much is used of each limit of the run's own budget, with the changes that a person has made."""
    if record.started is None:
        return []
    limits = dict(record.started.budget)
    for event in record.steered:
        if event.action == "budget":
            limits.update(event.values)
    if not limits:
        return []
    usage = record.usage
    used = {
        "metric_calls": len(record.rollouts),
        "calls": usage.calls + usage.retries,
        "tokens": usage.tokens,
        "usd": usage.usd,
        "seconds": elapsed_seconds(record),
    }
    return [BudgetUse(name, used[name], limit) for name, limit in limits.items() if name in _UNITS and is_real(limit)]


def used_share(record: RunRecord) -> float | None:
    """The largest used share of a limit of the run's own budget; None without a budget."""
    return max((use.share for use in budget_uses(record)), default=None)


def end_text(record: RunRecord) -> str:
    """Why a run with a budget ended where it did; empty for other runs."""
    uses = budget_uses(record)
    if record.ended is None or not record.ended.reason or not uses:
        return ""
    if record.ended.status == "exhausted":
        return f"It ended because {record.ended.reason}"
    used = ", ".join(use.text for use in uses)
    return f"It ended before its budget was used ({used}): {record.ended.reason}"


def run_setting(record: RunRecord, name: str) -> Any:
    """A setting of the run; None if the run has no such setting or has not started."""
    if record.started is None:
        return None
    return record.started.settings.get(name)


def total_of_rows(record: RunRecord) -> int | None:
    """The total number of rows of a batch or evaluation; None if unknown."""
    if record.started is None:
        return None
    rows: Any = record.started.inputs.get("rows")
    return rows if isinstance(rows, int) else None


def elapsed_seconds(record: RunRecord) -> float | None:
    """Seconds since the run was started or resumed, until its end or, where the process died, its last event; None
    before the start."""
    if record.started is None:
        return None
    if record.ended is not None:
        end = record.ended.at
    elif record.unfinished is not None:
        end = record.unfinished.last_event_at
    else:
        end = time.time()
    return max(0.0, end - record.started.at)


def result_text(record: RunRecord, mode: Mode, counts: Counts) -> str:
    """The mean score of rows, or the best score of attempts or candidates; empty without scores."""
    if mode == "rows":
        name = "mean"
        score = mean_of_rows(record, counts)
    else:
        name = "best"
        score = score_of_best(record, mode, counts)
    return "" if score is None else f"{name} {number(score)}"


def mean_of_rows(record: RunRecord, counts: Counts) -> float | None:
    """The mean score so far; None without scores. In an evaluation, a failed row counts as the ``failure_score``."""
    failure_score = run_setting(record, "failure_score")
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
