"""What an engine works on, and what comes of it, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dspynb.data import Example
from dspynb.evaluation.rollouts import Rollout
from dspynb.events import AttemptChosen, AttemptStarted, Event, PredictorCalled
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
    """A program that shows how it is done, with its own models or ``lm`` in place of them."""

    program: Module
    lm: Any = None
    name: str = "teacher"

    @property
    def settings(self) -> dict[str, Any]:
        """Those of its rollouts."""
        return {} if self.lm is None else {"every_lm": self.lm}


class Heard:
    """The calls of a program's predictors by their paths, in whatever run; advisors' too, as run files have them.
    Calls in attempts that were not chosen do not count."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        """``paths``: predictor uid → path."""
        self._paths, self._calls = paths, list[PredictorCalled]()
        self._parents: dict[int, int] = {}
        self._attempts: dict[int, int] = {}  # span → number
        self._chosen: dict[int, int] = {}  # search → number of the attempt that was taken

    def emit(self, event: Event) -> None:
        """Take note of a call, and of the attempts it may be in."""
        match event:
            case AttemptChosen():
                self._chosen[event.span] = event.attempt
                return
            case AttemptStarted():
                self._attempts[event.span] = event.attempt
            case PredictorCalled() if event.uid in self._paths:
                self._calls.append(replace(event, predictor=self._paths[event.uid]))
        self._parents.setdefault(event.span, event.parent)

    @property
    def calls(self) -> list[PredictorCalled]:
        """Those that count, in the order in which they ended."""
        return [call for call in self._calls if self._counts(call.span)]

    def _counts(self, span: int) -> bool:
        seen = set[int]()
        while span and span not in seen:
            seen.add(span)
            above = self._parents.get(span, 0)
            number = self._attempts.get(span)
            if number is not None and self._chosen.get(above, number) != number:
                return False
            span = above
        return True
