"""Checks and warnings about a program or metric that its user should know at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dspynb.errors import NoFeedbackWarning, OptimizerError, RewardError, ScoreRangeWarning, shorten
from dspynb.optimizers.core.problem import CandidateEvaluation, Problem
from dspynb.scope.core import warn_user

__all__ = [
    "failed_part",
    "raise_if_all_failed",
    "warn_above",
    "warn_below",
    "warn_of_no_feedback",
    "warn_without_feedback",
]


def raise_if_all_failed(start: CandidateEvaluation) -> None:
    """Raise OptimizerError where the original program fails on every row: no proposal can help then."""
    errors = [rollout.ended.error for rollout in start.rollouts if rollout.ended.error is not None]
    if len(errors) == len(start.rollouts):
        raise OptimizerError(
            f"the {failed_part(errors, 'program')} fails on all {len(errors)} rows as it is, so there is nothing to "
            f"start from. The first error: {shorten(errors[0], 500)}"
        )


def failed_part(errors: Sequence[str], runner: str) -> str:
    """What has failed: "metric" where all errors are the metric's, else ``runner``."""
    return "metric" if all(error.startswith(RewardError.__name__) for error in errors) else runner


def warn_below(evaluation: CandidateEvaluation, problem: Problem) -> None:
    """Warn where a row scored less than ``failure_score``: then a failed row counts for more than a bad one."""
    ended = [rollout.ended for rollout in evaluation.rollouts]
    scores = [float(rollout.score) for rollout in ended if rollout.score is not None]
    if min(scores, default=problem.failure_score) < problem.failure_score:
        warn_user(
            f"the metric {problem.metric.name} gives scores below failure_score={problem.failure_score:g}: a row that "
            "fails counts for more than one that does not. Set failure_score to the lowest score that the metric can "
            "give",
            ScoreRangeWarning,
        )


def warn_above(evaluation: CandidateEvaluation, problem: Problem, perfect: float) -> None:
    """Warn where a row scored more than ``perfect``, so that nothing is learned from it."""
    if max(evaluation.scores) > perfect:
        warn_user(
            f"the metric {problem.metric.name} gives scores above perfect_score={perfect:g}: nothing is learned from "
            "rows with this score or more. Set perfect_score to the highest score that the metric can give",
            ScoreRangeWarning,
        )


def warn_of_no_feedback(start: CandidateEvaluation, problem: Problem) -> None:
    """Warn where the metric has feedback on no row. A metric that is called by predictor is checked later, with its
    first feedback."""
    if not problem.by_predictor:
        warn_without_feedback(problem, (rollout.ended.feedback for rollout in start.rollouts))


def warn_without_feedback(problem: Problem, feedback: Iterable[str | None], predictor: str | None = None) -> None:
    """Warn where all feedback is empty. ``predictor``: the path that the feedback is on, if it is on one."""
    if not any(feedback):
        on = "" if predictor is None else f" on {predictor}"
        warn_user(
            f"the metric {problem.metric.name} gives scores without feedback{on}, so that a model has to guess what "
            "was wrong. Let it return dn.Score(value, feedback='what was wrong, in words')",
            NoFeedbackWarning,
        )
