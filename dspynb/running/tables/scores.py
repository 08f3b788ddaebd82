"""The scores of an evaluation's rows, read from a run: what its table, its mean and its plots are made of."""

from __future__ import annotations

from dspynb.json_checks import is_real
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import AttemptRow

__all__ = ["chosen_attempts", "failure_score", "metric_of", "outer_searches", "scores_by_program"]


def failure_score(record: RunRecord) -> float:
    """What a row or attempt counts that failed: the run's setting, or 0."""
    told = record.started.settings.get("failure_score") if record.started else None
    return float(told) if is_real(told) else 0.0


def scores_by_program(record: RunRecord) -> dict[str, dict[int, list[float]]]:
    """Program → row → the score of each repeat. A program is named where several were compared; of a rollout that was
    run again, the last counts; one that failed counts as the run's ``failure_score``. Not of an optimizer's run."""
    latest = {(r.parent, r.repeat, r.row): r for r in record.rollouts if r.candidate is None}
    failed = failure_score(record)
    found: dict[str, dict[int, list[float]]] = {}
    for (parent, _, row), rollout in sorted(latest.items()):
        above = record.spans.get(parent)
        name = above.name if above is not None and above.kind == "evaluation" else ""
        score = failed if rollout.error is not None or rollout.score is None else float(rollout.score)
        found.setdefault(name, {}).setdefault(row, []).append(score)
    return found


def metric_of(record: RunRecord) -> str:
    """The metric that the rows were scored by, the first of several; ``score`` where the run does not tell."""
    told = record.started.settings.get("metric") if record.started else None
    alone = told if isinstance(told, str) else "score"
    return next((name for rollout in record.rollouts for name in rollout.metrics), alone)


def outer_searches(record: RunRecord) -> list[int]:
    """The searches that are in no attempt of another."""
    return [s for s in record.searches() if not any(above in record.attempts for above in record.ancestors(s))]


def chosen_attempts(record: RunRecord) -> list[AttemptRow]:
    """The best attempt of each of those searches, where one was scored."""
    chosen = (next((row for row in record.children(s) if row.best), None) for s in outer_searches(record))
    return [row for row in chosen if row is not None and row.score is not None]
