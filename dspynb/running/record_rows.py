"""What a run's record holds of attempts, spans and scored candidates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dspynb.data import NO_USAGE, Usage
from dspynb.events import (
    AttemptEnded,
    AttemptStarted,
    CandidateScored,
    Hint,
    PredictorCalled,
    RolloutEnded,
    RunEnded,
    RunStarted,
    SpanEnded,
    SpanStarted,
)

__all__ = ["DERIVED_COLUMNS", "AttemptRow", "Milestone", "SpanRow", "usage_of"]


def usage_of(calls: Iterable[PredictorCalled]) -> Usage:
    """What some calls cost."""
    return sum((call.usage for call in calls), NO_USAGE)


@dataclass(slots=True)
class AttemptRow:
    """One attempt as seen so far: the events of its beginning and its end, and its calls.

    The columns of ``run.attempts`` are those fields of AttemptStarted and AttemptEnded that are marked as ``COLUMN``
    (see events.py), the outputs, and ``DERIVED_COLUMNS``.
    """

    start: AttemptStarted
    hint_error: str | None = None  # why its wave has no new hint: the advisor failed
    end: AttemptEnded | None = None
    best: bool = False
    calls: list[PredictorCalled] = field(default_factory=list)

    @property
    def span(self) -> int:
        """Its number."""
        return self.start.span

    @property
    def parent(self) -> int:
        """The span of its search."""
        return self.start.parent

    @property
    def attempt(self) -> int:
        """Its number in the search, from 1."""
        return self.start.attempt

    @property
    def wave(self) -> int:
        """The number of its wave, from 1."""
        return self.start.wave

    @property
    def hint(self) -> Hint:
        """What its predictors were given as a hint."""
        return self.start.hint

    @property
    def hint_by(self) -> str:
        """``person`` where somebody suggested its hint while the run ran; else empty."""
        return self.start.hint_by

    @property
    def started(self) -> float:
        """When it began, in unix seconds."""
        return self.start.at

    @property
    def state(self) -> str:
        """running, passed, scored, failed or cancelled."""
        return "running" if self.end is None else self.end.state

    @property
    def outputs(self) -> Mapping[str, Any] | None:
        """The outputs of its program; None while it runs, and where it failed."""
        return None if self.end is None else self.end.outputs

    @property
    def score(self) -> float | None:
        """What its reward gave."""
        return None if self.end is None else self.end.score

    @property
    def feedback(self) -> str | None:
        """What its reward said in words."""
        return None if self.end is None else self.end.feedback

    @property
    def error(self) -> str | None:
        """Why it failed."""
        return None if self.end is None else self.end.error

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs."""
        return None if self.end is None else self.end.seconds

    @property
    def cached(self) -> bool:
        """Whether no call of the attempt was paid for."""
        return bool(self.calls) and all(call.cached for call in self.calls)

    @property
    def usage(self) -> Usage:
        """What its calls cost."""
        return usage_of(self.calls)

    @property
    def tokens(self) -> int | None:
        """Tokens of its calls; None where they are not known."""
        return self.usage.tokens

    @property
    def usd(self) -> float | None:
        """What its calls cost; None where that is not known."""
        return self.usage.usd

    def cell(self, column: str) -> Any:
        """The value of a column of ``run.attempts`` that is no output. The row's own attributes come first, so a column
        has no name of another of them (``usage``, ``calls``): ``tests/results/test_attempts.py`` checks this."""
        if column == "error" and self.state == "cancelled":
            return "cancelled"
        for source in (self, self.start, self.end):
            if hasattr(source, column):
                return getattr(source, column)
        return None


DERIVED_COLUMNS = ("tokens", "usd", "cached", "best")
"""The last columns of ``run.attempts``: attributes of an AttemptRow."""


@dataclass(slots=True)
class SpanRow:
    """A run, module call, search, tool call, proposal or row as seen so far: the events of its beginning and end."""

    start: RunStarted | SpanStarted
    end: SpanEnded | RolloutEnded | RunEnded | None = None
    chosen: AttemptRow | None = None  # of a row: the attempt that the first search right inside it took as its result

    @property
    def span(self) -> int:
        """Its number."""
        return self.start.span

    @property
    def parent(self) -> int:
        """The span that it happened in; 0 for none."""
        return self.start.parent

    @property
    def kind(self) -> str:
        """That of ``SpanStarted``, or run."""
        return self.start.kind if isinstance(self.start, SpanStarted) else "run"

    @property
    def name(self) -> str:
        """The name of what began."""
        return self.start.name

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Its inputs."""
        return self.start.inputs

    @property
    def row(self) -> int | None:
        """Of a row: its number."""
        return self.start.row if isinstance(self.start, SpanStarted) else None

    @property
    def started(self) -> float:
        """When it began, in unix seconds."""
        return self.start.at

    @property
    def ended(self) -> float | None:
        """When it ended, in unix seconds; None while it goes on."""
        return None if self.end is None else self.end.at

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.end is not None

    @property
    def outputs(self) -> Mapping[str, Any] | None:
        """What came out of it; None while it goes on, and of a run."""
        return None if self.end is None or isinstance(self.end, RunEnded) else self.end.outputs

    @property
    def error(self) -> str | None:
        """Why it failed; of a run that ended otherwise than finished, its error or how it ended."""
        if isinstance(self.end, RunEnded) and self.end.status != "finished":
            return self.end.error or self.end.status
        return None if self.end is None else self.end.error

    @property
    def rollout(self) -> RolloutEnded | None:
        """How it ended as a rollout; None for what is none, or goes on."""
        return self.end if isinstance(self.end, RolloutEnded) else None

    @property
    def score(self) -> float | None:
        """Of a rollout."""
        return None if self.rollout is None else self.rollout.score

    @property
    def feedback(self) -> str | None:
        """Of a rollout."""
        return None if self.rollout is None else self.rollout.feedback

    @property
    def seconds(self) -> float | None:
        """Of a rollout."""
        return None if self.rollout is None else self.rollout.seconds

    @property
    def tokens(self) -> int | None:
        """Of a rollout, None where they are not known; 0 for what is none."""
        return 0 if self.rollout is None else self.rollout.usage.tokens


@dataclass(slots=True)
class Milestone:
    """A candidate was scored: what the run had spent by then. ``metric_calls``: rollouts that had ended."""

    scored: CandidateScored
    usage: Usage
    metric_calls: int
