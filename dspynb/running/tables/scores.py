"""The scores of an evaluation's rows, read from the record of a run: for its table, its mean and its plots."""

from __future__ import annotations

from typing import Any

from dspynb.json_checks import is_real
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import AttemptRow

__all__ = ["chosen_attempts", "failure_score", "metric_of", "outer_searches", "scores_by_program"]


def failure_score(record: RunRecord) -> float:
    """The score of a row or attempt that failed: the run's setting ``failure_score``, or 0."""
    setting = _setting(record, "failure_score")
    return float(setting) if is_real(setting) else 0.0


def _setting(record: RunRecord, name: str) -> Any:
    if record.started:
        return record.started.settings.get(name)
    return None


def scores_by_program(record: RunRecord) -> dict[str, dict[int, list[float]]]:
    """Program → row → the score of each repeat. The program's name is empty unless several programs were compared.

    Of a rollout that was run again, the last one counts; a rollout that failed counts as the run's ``failure_score``.
    Rollouts of an optimizer's candidates are left out.
    """
    latest = {(r.parent, r.repeat, r.row): r for r in record.rollouts if r.candidate is None}
    failed = failure_score(record)
    scores: dict[str, dict[int, list[float]]] = {}
    for (parent, _, row), rollout in sorted(latest.items()):
        span = record.spans.get(parent)
        program = span.name if span is not None and span.kind == "evaluation" else ""
        score = failed if rollout.error is not None or rollout.score is None else float(rollout.score)
        scores.setdefault(program, {}).setdefault(row, []).append(score)
    return scores


def metric_of(record: RunRecord) -> str:
    """The name of the metric by which the rows were scored, of several metrics the first; ``score`` where the run does
    not name one."""
    for rollout in record.rollouts:
        for name in rollout.metrics:
            return name
    setting = _setting(record, "metric")
    return setting if isinstance(setting, str) else "score"


def outer_searches(record: RunRecord) -> list[int]:
    """The searches that are not inside an attempt of another search."""
    return [search for search in record.searches() if not _in_attempt(record, search)]


def _in_attempt(record: RunRecord, search: int) -> bool:
    return any(span in record.attempts for span in record.ancestors(search))


def chosen_attempts(record: RunRecord) -> list[AttemptRow]:
    """The best attempt of each outer search, where it has a score."""
    attempts = []
    for search in outer_searches(record):
        best = [row for row in record.children(search) if row.best]
        if best and best[0].score is not None:
            attempts.append(best[0])
    return attempts
