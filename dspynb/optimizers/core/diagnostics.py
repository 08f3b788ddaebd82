"""What an optimizer finds out about a program or metric that its user should know at once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

from dspynb.errors import NoFeedbackWarning, OptimizerError, RewardError, ScoreRangeWarning, shorten
from dspynb.optimizers.core.task import Evaluated, Task

__all__ = ["at_fault", "check_alive", "warn_above", "warn_below", "warn_of_no_feedback", "warn_without_feedback"]


def check_alive(start: Evaluated) -> None:
    """Raise OptimizerError where the program as it is fails on every row: no proposal can help that."""
    errors = [rollout.ended.error for rollout in start.rollouts if rollout.ended.error is not None]
    if len(errors) == len(start.rollouts):
        raise OptimizerError(
            f"the {at_fault(errors, 'program')} fails on all {len(errors)} rows as it is, so there is nothing to start "
            f"from. The first error: {shorten(errors[0], 500)}"
        )


def at_fault(errors: Sequence[str], runner: str) -> str:
    """Who has failed: the metric, or what it was to judge."""
    return "metric" if all(error.startswith(RewardError.__name__) for error in errors) else runner


def warn_below(done: Evaluated, task: Task) -> None:
    """Warn where a row that failed would count for better than one that did not."""
    scores = [float(rollout.ended.score) for rollout in done.rollouts if rollout.ended.score is not None]
    if min(scores, default=task.failure_score) < task.failure_score:
        warnings.warn(
            f"the metric {task.metric.name} gives scores below failure_score={task.failure_score:g}: a row that fails "
            "counts for better than one that does not. Set failure_score to the lowest score that the metric can give",
            ScoreRangeWarning,
            stacklevel=2,
        )


def warn_above(done: Evaluated, task: Task, perfect: float) -> None:
    """Warn where a row scored more than what is taken for perfect, so that nothing is learned from it."""
    if max(done.scores) > perfect:
        warnings.warn(
            f"the metric {task.metric.name} gives scores above perfect_score={perfect:g}: from rows with that much "
            "nothing is learned. Set perfect_score to the highest score that the metric can give",
            ScoreRangeWarning,
            stacklevel=2,
        )


def warn_of_no_feedback(start: Evaluated, task: Task) -> None:
    """Warn where the metric has feedback on no row; one that is asked by predictor shows that later."""
    if not task.by_predictor:
        warn_without_feedback(task, (rollout.ended.feedback for rollout in start.rollouts))


def warn_without_feedback(task: Task, feedback: Iterable[str | None], predictor: str | None = None) -> None:
    """Warn that feedback would help, where there is none at all; on a ``predictor``, where one is named."""
    if not any(feedback):
        on = "" if predictor is None else f" on {predictor}"
        warnings.warn(
            f"the metric {task.metric.name} gives scores without feedback{on}, so that a model has to guess what was "
            "wrong. Let it return dn.Score(value, feedback='what was wrong, in words')",
            NoFeedbackWarning,
            stacklevel=2,
        )
