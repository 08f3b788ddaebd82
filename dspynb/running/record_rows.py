"""The rows of a run's record: attempts, spans and scored candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

__all__ = [
    "DERIVED_COLUMNS",
    "AttemptRow",
    "Milestone",
    "SpanRow",
    "Unfinished",
    "candidate_name",
    "role_of",
    "usage_of",
]


def usage_of(calls: Sequence[PredictorCalled]) -> Usage:
    """The usage of some calls, added up."""
    if len(calls) == 1:  # as of most evaluated rows
        return calls[0].usage
    if not calls:
        return NO_USAGE
    return sum((call.usage for call in calls), NO_USAGE)


def role_of(call: PredictorCalled) -> str:
    """What a call was for: task, proposal, judge, advisor, teacher, or repair for one that repairs the reply of another
    call; empty for calls in files of earlier versions, which do not say."""
    return "repair" if call.repair else call.role


def candidate_name(number: int) -> str:
    """The name of the candidate with this number, counted from 0, in the order of the proposals."""
    return f"c{number}"


@dataclass(slots=True)
class AttemptRow:
    """One attempt so far: the events of its start and its end, and its calls.

    The columns of ``run.attempts`` are the fields of AttemptStarted and AttemptEnded that are marked as ``COLUMN`` (see
    events.py), the outputs, and ``DERIVED_COLUMNS``.
    """

    start: AttemptStarted
    hint_error: str | None = None  # the error of the advisor, where it failed to give the attempt's wave a new hint
    end: AttemptEnded | None = None
    best: bool = False
    calls: list[PredictorCalled] = field(default_factory=list)

    @property
    def span(self) -> int:
        """The number of the attempt's span."""
        return self.start.span

    @property
    def parent(self) -> int:
        """The span of the search."""
        return self.start.parent

    @property
    def attempt(self) -> int:
        """The number of the attempt in its search, from 1."""
        return self.start.attempt

    @property
    def wave(self) -> int:
        """The number of the wave, from 1."""
        return self.start.wave

    @property
    def hint(self) -> Hint:
        """The hint of the attempt's predictors: a text, predictor path → text, or None."""
        return self.start.hint

    @property
    def hint_by(self) -> str:
        """``person`` where somebody suggested the hint while the run ran; else empty."""
        return self.start.hint_by

    @property
    def started(self) -> float:
        """The time of the start, in unix seconds."""
        return self.start.at

    @property
    def state(self) -> str:
        """running, passed, scored, failed or cancelled."""
        return "running" if self.end is None else self.end.state

    @property
    def outputs(self) -> Mapping[str, Any] | None:
        """The outputs of the program; None while the attempt runs, and where it failed."""
        return self.end.outputs if self.end else None

    @property
    def score(self) -> float | None:
        """The score that the reward gave; None while the attempt runs, and where it failed."""
        return self.end.score if self.end else None

    @property
    def feedback(self) -> str | None:
        """The feedback of the reward, in words."""
        return self.end.feedback if self.end else None

    @property
    def error(self) -> str | None:
        """The error of an attempt that failed."""
        return self.end.error if self.end else None

    @property
    def seconds(self) -> float | None:
        """The duration; None while the attempt runs."""
        return self.end.seconds if self.end else None

    @property
    def cached(self) -> bool:
        """Whether all calls of the attempt were answered from a cache."""
        return bool(self.calls) and all(call.cached for call in self.calls)

    @property
    def usage(self) -> Usage:
        """The sum of the usage of the attempt's calls."""
        return usage_of(self.calls)

    @property
    def tokens(self) -> int | None:
        """The tokens of the attempt's calls; None where some are unknown."""
        return self.usage.tokens

    @property
    def usd(self) -> float | None:
        """The cost of the attempt's calls in US dollars; None where some are unknown."""
        return self.usage.usd

    def cell(self, column: str) -> Any:
        """The value of a column of ``run.attempts``, outputs excepted.

        An attribute of the row hides a field of the event with the same name, so no column may be named like another
        attribute (``usage``, ``calls``): ``tests/results/test_attempts.py`` checks this.
        """
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
    """A run, module call, search, tool call, proposal or row so far: the events of its start and its end."""

    start: RunStarted | SpanStarted
    end: SpanEnded | RolloutEnded | RunEnded | None = None
    chosen: AttemptRow | None = None
    """For a row: the attempt that is the result of the first search directly inside it."""

    @property
    def span(self) -> int:
        """The number of the span."""
        return self.start.span

    @property
    def parent(self) -> int:
        """The span in which this one happened; 0 for none."""
        return self.start.parent

    @property
    def kind(self) -> str:
        """The kind that ``SpanStarted`` names; ``run`` for a run."""
        return self.start.kind if isinstance(self.start, SpanStarted) else "run"

    @property
    def name(self) -> str:
        """The name of the module, tool, row or run."""
        return self.start.name

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The inputs at the start."""
        return self.start.inputs

    @property
    def row(self) -> int | None:
        """The number of a row; None for other spans."""
        return self.start.row if isinstance(self.start, SpanStarted) else None

    @property
    def started(self) -> float:
        """The time of the start, in unix seconds."""
        return self.start.at

    @property
    def ended(self) -> float | None:
        """The time of the end, in unix seconds; None before it."""
        return self.end.at if self.end else None

    @property
    def done(self) -> bool:
        """Whether the span has ended."""
        return self.end is not None

    @property
    def outputs(self) -> Mapping[str, Any] | None:
        """The outputs; None before the end, and for a run."""
        if self.end is None or isinstance(self.end, RunEnded):
            return None
        return self.end.outputs

    @property
    def error(self) -> str | None:
        """The error of a span that failed. For a run that did not finish, its error or its status."""
        if isinstance(self.end, RunEnded) and self.end.status != "finished":
            return self.end.error or self.end.status
        return self.end.error if self.end else None

    @property
    def rollout(self) -> RolloutEnded | None:
        """The event with which a rollout ended; None for other spans, and before the end."""
        return self.end if isinstance(self.end, RolloutEnded) else None

    @property
    def score(self) -> float | None:
        """The score of a rollout; None for other spans."""
        return self.end.score if isinstance(self.end, RolloutEnded) else None

    @property
    def feedback(self) -> str | None:
        """The feedback on a rollout; None for other spans."""
        return self.end.feedback if isinstance(self.end, RolloutEnded) else None

    @property
    def seconds(self) -> float | None:
        """The duration of a rollout; None for other spans."""
        return self.end.seconds if isinstance(self.end, RolloutEnded) else None

    @property
    def tokens(self) -> int | None:
        """The tokens of a rollout, None where they are unknown; 0 for other spans."""
        return self.end.usage.tokens if isinstance(self.end, RolloutEnded) else 0


@dataclass(slots=True)
class Milestone:
    """The scoring of a candidate, with what the run had spent until then: ``usage``, and ``metric_calls``, the number
    of rollouts that had ended."""

    scored: CandidateScored
    usage: Usage
    metric_calls: int


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A run whose process died before the run had ended: its id, and the time of its last event in unix seconds."""

    run_id: str
    last_event_at: float
