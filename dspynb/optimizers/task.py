"""What an engine works on, and what comes of it, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dspynb.data import Example
from dspynb.evaluation.rollouts import Rollout
from dspynb.events import Event, PredictorCalled
from dspynb.modules import Module
from dspynb.modules.scoring import Scorer
from dspynb.optimizers.candidate import Candidate

__all__ = ["Evaluated", "Heard", "Task", "Teacher"]


@dataclass(frozen=True)
class Task:
    """What is optimized: the program, the rows by split (train, val, test), the metric, and what failed rows count."""

    program: Module
    rows: Mapping[str, Sequence[Example]]
    names: Sequence[str] | None
    metrics: Mapping[str, Scorer]
    failure_score: float = 0.0


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
    """A program that shows how it is done, with a model of its own or the program's. Its rounds after the first are
    sampled at temperature 1."""

    program: Module
    lm: Any = None
    name: str = "teacher"

    def settings(self, repeat: int) -> dict[str, Any]:
        """Those of a rollout."""
        lm = {} if self.lm is None else {"lm": self.lm}
        return {**lm, "sampling": {"temperature": 1.0}} if repeat else lm


class Heard:
    """The calls of a program's predictors by their paths, in whatever run; advisors' too, as run files have them."""

    def __init__(self, program: Module) -> None:
        self.calls: list[PredictorCalled] = []
        self._paths = {predictor.uid: path for path, predictor in program.named_predictors()}

    def emit(self, event: Event) -> None:
        """Keep a call."""
        if isinstance(event, PredictorCalled) and event.uid in self._paths:
            self.calls.append(replace(event, predictor=self._paths[event.uid]))
