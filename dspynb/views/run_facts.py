"""Facts of a run that several views show: its settings, size, duration and result."""

from __future__ import annotations

import time
from typing import Any

from dspynb.json_checks import is_real
from dspynb.running.record import RunRecord
from dspynb.running.tables.candidates import candidate_scores, winner_of
from dspynb.views.counts import Counts
from dspynb.views.rows import Mode, mean
from dspynb.views.texts import number

__all__ = ["elapsed_seconds", "mean_of_rows", "result_text", "run_setting", "score_of_best", "total_of_rows"]


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
