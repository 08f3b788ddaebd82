"""One pass over events: the state of a run as tables and views show it, live or reopened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dspynb.data import Usage
from dspynb.events import (
    AttemptChosen,
    AttemptEnded,
    AttemptStarted,
    CandidateProposed,
    CandidateScored,
    Event,
    Hint,
    HintFailed,
    PredictorCalled,
    ProposalEnded,
    RolloutEnded,
    RunEnded,
    RunStarted,
    SpanEnded,
    SpanStarted,
    Steered,
)

__all__ = ["AttemptRow", "Fold", "Milestone", "SpanRow"]


@dataclass(slots=True)
class AttemptRow:
    """One attempt as seen so far. ``state``: running, passed, scored, failed or cancelled. ``hint_by``: ``person``
    where somebody suggested its hint while the run ran."""

    span: int
    parent: int
    attempt: int
    wave: int
    hint: Hint
    state: str = "running"
    outputs: Mapping[str, Any] | None = None
    score: float | None = None
    feedback: str | None = None
    error: str | None = None
    seconds: float | None = None
    usage: Usage = field(default_factory=Usage)
    best: bool = False
    calls: list[PredictorCalled] = field(default_factory=list)
    hint_by: str = ""
    hint_error: str | None = None  # why its wave has no new hint: the advisor failed

    @property
    def cached(self) -> bool:
        """Whether no call of the attempt was paid for."""
        return bool(self.calls) and all(call.cached for call in self.calls)


@dataclass(slots=True)
class SpanRow:
    """A module call, search or row of a batch as seen so far."""

    span: int
    parent: int
    kind: str
    name: str
    inputs: Mapping[str, Any]
    row: int | None = None
    outputs: Mapping[str, Any] | None = None
    error: str | None = None
    done: bool = False
    score: float | None = None
    feedback: str | None = None
    seconds: float | None = None
    tokens: int | None = 0


@dataclass(slots=True)
class Milestone:
    """A candidate was scored: what the run had spent by then. ``metric_calls``: rollouts that had ended."""

    scored: CandidateScored
    usage: Usage
    metric_calls: int


class Fold:
    """The state of a run: header, status, spans, attempts, calls and usage; ``add`` takes the next event."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.started: RunStarted | None = None
        self.ended: RunEnded | None = None
        self.began = 0.0  # when the run, or the run that it goes on with, began
        self.attempts: dict[int, AttemptRow] = {}
        self.spans: dict[int, SpanRow] = {}
        self.calls: list[PredictorCalled] = []
        self.rollouts: list[RolloutEnded] = []
        self.notes: list[HintFailed] = []
        self._hint_errors: dict[tuple[int, int], str] = {}  # by search and wave
        self.steered: list[Steered] = []  # what somebody asked of the run, in the order in which it took effect
        self.candidates: dict[str, CandidateProposed] = {}
        self.tried: dict[tuple[str, str], dict[int, RolloutEnded]] = {}  # candidate, split → row → its first rollout
        self.milestones: list[Milestone] = []
        self.proposals: list[ProposalEnded] = []
        self.winner: str | None = None  # the best candidate so far, by its id
        self.usage = Usage()
        self.cached = 0  # calls that were answered without asking a provider
        self.models: list[str] = []  # their names, in the order in which they were first asked
        self.lost: set[int] = set()  # rows and searches that a run had not ended when it was gone on with
        self._parents: dict[int, int] = {}
        self._searches: dict[int, list[AttemptRow]] = {}
        for event in events:
            self.add(event)

    @property
    def status(self) -> str:
        """pending, running, or how the run ended."""
        if self.ended is not None:
            return self.ended.status
        return "running" if self.started is not None else "pending"

    def add(self, event: Event) -> None:
        """Take one event; an event of an unknown type changes nothing."""
        match event:
            case PredictorCalled():
                self._called(event)
            case AttemptStarted():
                self._parents[event.span] = event.parent
                self._attempt_started(event)
            case AttemptEnded():
                self._attempt_ended(event)
            case AttemptChosen():
                for row in self.children(event.span):
                    row.best = row.attempt == event.attempt
            case SpanStarted():
                self._parents[event.span] = event.parent
                self.spans[event.span] = SpanRow(
                    event.span, event.parent, event.kind, event.name, event.inputs, event.row
                )
            case SpanEnded() | RolloutEnded():
                self._span_ended(event)
            case CandidateProposed() | CandidateScored() | ProposalEnded():
                self._optimizing(event)
            case HintFailed():
                self.notes.append(event)
                self._hint_errors[event.span, event.wave] = event.error
            case Steered():
                self.steered.append(event)
                self.winner = event.values.get("best", self.winner)
            case RunStarted():
                self._lose_unfinished()
                self.began = event.at if self.started is None else self.began
                self.started, self.ended = event, None  # one that was resumed has ended before
            case RunEnded():
                self.ended = event
                self._choose_where_unfinished()

    def children(self, search: int) -> list[AttemptRow]:
        """The attempts of one search, in order of their numbers."""
        return sorted(self._searches.get(search, ()), key=lambda a: a.attempt)

    def searches(self) -> list[int]:
        """The spans that have attempts, outermost and earliest first."""
        return list(self._searches)

    def parent_of(self, span: int) -> int:
        """The span that this one happened in; 0 for none, or one that is not known."""
        return self._parents.get(span, 0)

    def ancestors(self, span: int) -> Iterator[int]:
        """The span and those it happened in, innermost first."""
        while span:
            yield span
            span = self._parents.get(span, 0)

    def _lose_unfinished(self) -> None:
        """A run that begins once more makes again what had not ended, and rows that were halted."""
        again = [s for s in self.spans.values() if s.kind in ("row", "search") and (not s.done or s.error == "halted")]
        self.lost.update(span.span for span in again)

    def _choose_where_unfinished(self) -> None:
        """A search that was stopped chose nothing: its best is the first that passed, else the first highest score."""
        for search in self.searches():
            rows = self.children(search)
            scored = [row for row in rows if row.score is not None and row.state != "cancelled"]
            if scored and not any(row.best for row in rows):
                passed = [row for row in scored if row.state == "passed"]
                best = passed[0] if passed else max(scored, key=lambda row: float(row.score or 0.0))
                best.best = True

    def _optimizing(self, event: CandidateProposed | CandidateScored | ProposalEnded) -> None:
        match event:
            case CandidateProposed():
                self.candidates.setdefault(event.id, event)
            case CandidateScored():
                self.milestones.append(Milestone(event, self.usage, len(self.rollouts)))
                self.winner = self.winner if event.best is None else event.best
            case ProposalEnded():
                self.proposals.append(event)

    def _called(self, event: PredictorCalled) -> None:
        self.calls.append(event)
        self._parents[event.span] = event.parent  # a repair is made in the call that it repairs
        self.usage += event.usage
        self.cached += event.cached
        if event.model and event.model not in self.models:
            self.models.append(event.model)
        for span in self.ancestors(event.parent):
            if row := self.attempts.get(span):
                row.calls.append(event)
                row.usage += event.usage

    def _span_ended(self, event: SpanEnded | RolloutEnded) -> None:
        span = self.spans.get(event.span)
        if span is not None:
            span.outputs, span.error, span.done = event.outputs, event.error, True
        if isinstance(event, RolloutEnded):
            self.rollouts.append(event)
            if event.candidate is not None and event.split is not None and event.repeat == 0:
                self.tried.setdefault((event.candidate, event.split), {})[event.row] = event
            if span is not None:
                span.score, span.feedback = event.score, event.feedback
                span.seconds, span.tokens = event.seconds, event.usage.tokens

    def _attempt_started(self, event: AttemptStarted) -> None:
        error = self._hint_errors.get((event.parent, event.wave))
        row = AttemptRow(
            event.span,
            event.parent,
            event.attempt,
            event.wave,
            event.hint,
            hint_by=event.hint_by,
            hint_error=error,
        )
        self.attempts[event.span] = row
        self._searches.setdefault(event.parent, []).append(row)

    def _attempt_ended(self, event: AttemptEnded) -> None:
        row = self.attempts.get(event.span)
        if row is None or row.state == "cancelled":  # one that refused to end may still come in
            return
        row.state, row.outputs, row.score = event.state, event.outputs, event.score
        row.feedback, row.error, row.seconds = event.feedback, event.error, event.seconds
