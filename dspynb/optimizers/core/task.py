"""What an engine works on, and what comes of it, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dspynb.data import Example
from dspynb.evaluation.rollouts import Rollout
from dspynb.events import AttemptChosen, AttemptEnded, AttemptStarted, Event, PredictorCalled, SpanStarted
from dspynb.modules.metric_call import Scorer
from dspynb.modules.module import Module
from dspynb.optimizers.core.candidate import Candidate

__all__ = ["Evaluated", "Heard", "Task", "Teacher", "hinted"]


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


class Heard:
    """The calls of a program's predictors by their paths, in whatever run; advisors' too, as run files have them.
    Calls in attempts that were not chosen do not count."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        """``paths``: predictor uid → path."""
        self._paths, self._calls = paths, list[PredictorCalled]()
        self._told: list[Event] = []
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
                self._told.append(event)
            case SpanStarted() | AttemptEnded():
                self._told.append(event)
            case PredictorCalled() if event.uid in self._paths:
                call = replace(event, predictor=self._paths[event.uid])
                self._calls.append(call)
                self._told.append(call)
        self._parents.setdefault(event.span, event.parent)

    @property
    def calls(self) -> list[PredictorCalled]:
        """Those that count, in the order in which they ended."""
        return [call for call in self._calls if self._counts(call.span)]

    @property
    def events(self) -> Sequence[Event]:
        """What the hints can be read from, of attempts that were not chosen too; nothing where there were none."""
        return hinted(self._told)

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


def hinted(events: Sequence[Event]) -> Sequence[Event]:
    """The events, if any attempt among them had a hint."""
    return events if any(isinstance(event, AttemptStarted) and event.hint for event in events) else ()
