"""What an engine works on, and what comes of it, as values."""

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

__all__ = ["Evaluated", "Task", "Teacher", "calls_of"]


@dataclass(frozen=True)
class Task:
    """What is optimized: the program, the rows by split (train, val, test), the metric, what failed rows count, and
    whether Refines retry in the rollouts of a split (where it is not said, they do)."""

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
        return "predictor" in self.metric.extras


@dataclass(frozen=True)
class Evaluated:
    """A candidate on rows (their numbers) of a split: ``scores`` and ``rollouts`` in their order, and the ``mean``."""

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
    """A program that shows how it is done, with its own models or ``lm`` in place of them."""

    program: Module
    lm: Any = None
    name: str = "teacher"


def calls_of(record: RunRecord, calls: Iterable[PredictorCalled], path_of: PathOf) -> list[PredictorCalled]:
    """Those of the record's calls that a program's predictors made, by their paths in the program. Calls in attempts
    that were not chosen do not count. ``path_of``: the path of a call; None for one that is not the program's."""
    found = []
    for call in calls:
        path = path_of(call)
        if path is not None and record.counts(call.span):
            found.append(call if call.predictor == path else replace(call, predictor=path))
    return found
