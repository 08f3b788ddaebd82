"""The problem that an engine works on, and the evaluation of a candidate, as values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dspynb.data import Example
from dspynb.evaluation.rollouts import Rollout
from dspynb.events import PredictorCalled
from dspynb.modules.module import Module
from dspynb.modules.scorer import Scorer
from dspynb.optimizers.core.candidate import Candidate
from dspynb.running.record import RunRecord
from dspynb.running.tables.hints import PathOf

__all__ = ["CandidateEvaluation", "Problem", "Teacher", "calls_of"]


@dataclass(frozen=True)
class Problem:
    """What is optimized.

    ``rows``: the rows of each split (train, val, test). ``names``: the columns that are inputs of the program, None for
    the program's own rule. ``metrics``: name → metric; the first one counts. ``failure_score``: the score of a row that
    failed. ``retries``: split → whether Refines retry in its rollouts (default: they do).
    """

    program: Module
    rows: Mapping[str, Sequence[Example]]
    names: Sequence[str] | None
    metrics: Mapping[str, Scorer]
    failure_score: float = 0.0
    retries: Mapping[str, bool] = field(default_factory=dict)

    @property
    def metric(self) -> Scorer:
        """The metric that counts."""
        return next(iter(self.metrics.values()))

    @property
    def by_predictor(self) -> bool:
        """Whether the metric has feedback on each predictor."""
        return self.metric.by_predictor


@dataclass(frozen=True)
class CandidateEvaluation:
    """The evaluation of a candidate on some rows. ``rows``: numbers of rows in the split. ``rollouts`` and ``scores``:
    one for each row, in the same order."""

    candidate: Candidate
    rows: Sequence[int]
    rollouts: Sequence[Rollout]
    scores: Sequence[float]

    @property
    def mean(self) -> float:
        """The mean score."""
        return sum(self.scores) / len(self.scores)


@dataclass(frozen=True)
class Teacher:
    """A program whose rollouts become demos. ``lm``: its model; None leaves the program's own models."""

    program: Module
    lm: Any = None
    name: str = "teacher"


def calls_of(record: RunRecord, calls: Iterable[PredictorCalled], path_of: PathOf) -> list[PredictorCalled]:
    """The calls that a program's predictors made, named by their paths in the program. Calls in attempts that were not
    chosen are left out.

    ``path_of``: returns the path of a call, or None for a call of another program.
    """
    result = []
    for call in calls:
        path = path_of(call)
        if path is not None and record.counts(call.span):
            result.append(call if call.predictor == path else replace(call, predictor=path))
    return result
