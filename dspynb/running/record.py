"""The record of a run: what its events add up to, live or reopened.

``RunRecord`` is the only reader of raw events. Tables, views, traces, resuming and replaying query it.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from dspynb.data import Usage, UsageTotal
from dspynb.events import (
    AttemptChosen,
    AttemptEnded,
    AttemptStarted,
    CandidateProposed,
    CandidateScored,
    Event,
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
from dspynb.running.pareto_front import ParetoFront
from dspynb.running.record_changes import NOTHING, Changes
from dspynb.running.record_rows import AttemptRow, Milestone, SpanRow, usage_of

__all__ = ["RunRecord"]


_RUN = Changes(run=True)
_ONE_CALL = Changes(grown=("calls",))
_ONE_PROPOSAL = Changes(grown=("proposals",))
_ONE_HINT_FAILURE = Changes(grown=("hint_failures",))
_ROLLOUTS = ("rollouts",)
_MILESTONES = ("milestones",)
_STEERED = ("steered",)
_NO_FRONT = ParetoFront()
T = TypeVar("T")


def _appended(items: Sequence[T], item: T) -> list[T]:
    """The list with one more item; a new list where it was the empty constant."""
    if not isinstance(items, list):
        return [item]
    items.append(item)
    return items


class RunRecord:
    """The state of a run: header, status, spans, attempts, calls, rollouts, candidates and usage.

    ``apply`` takes the next event and says what changed. A ``Run`` applies each event as it is emitted; a run that is
    reopened applies those of its file. So reading ``status`` or ``usage`` costs the same however long the run is.

    ``events``: all events, in order. Attributes are read, never written, by others. A run may be emitting from another
    thread: hold ``lock`` while reading more than one attribute.

    >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"]))
    >>> record = ask.run_sync(question="2+2?").run.record
    >>> record.status, len(record.calls), record.usage.calls
    ('finished', 1, 1)
    """

    __slots__ = (
        "_at_start",
        "_call_before",
        "_chosen",
        "_hint_errors",
        "_last_call_in",
        "_outermost",
        "_parents",
        "_rows",
        "_searches",
        "_spans_in",
        "_usage",
        "attempts",
        "began",
        "cached",
        "calls",
        "candidates",
        "ended",
        "events",
        "front",
        "hint_failures",
        "last_step",
        "lock",
        "lost",
        "marks",
        "milestones",
        "models",
        "proposals",
        "redone",
        "rollouts",
        "rollouts_by_candidate",
        "search_numbers",
        "spans",
        "started",
        "steered",
        "winner",
    )  # a plain call makes a record too: this halves the time that it takes

    def __init__(self, events: Iterable[Event] = (), lock: threading.RLock | None = None) -> None:
        self.events: list[Event] = []
        self.lock = threading.RLock() if lock is None else lock
        self.started: RunStarted | None = None
        self.ended: RunEnded | None = None
        self.began = 0.0  # when the run, or the run that it resumes, began
        self.attempts: dict[int, AttemptRow] = {}
        self.spans: dict[int, SpanRow] = {}
        self.calls: list[PredictorCalled] = []
        self.rollouts: list[RolloutEnded] = []
        # What few runs have begins as an empty constant: a plain call makes a record too, and pays for each container.
        self.hint_failures: Sequence[HintFailed] = ()
        self.steered: Sequence[Steered] = ()  # interventions of a person, in the order in which they took effect
        self.candidates: dict[str, CandidateProposed] = {}
        self.marks: dict[str, str] = {}  # candidate id → ``pinned`` or ``dropped``, by a person
        self.rollouts_by_candidate: dict[tuple[str, str], dict[int, RolloutEnded]] = {}
        """Candidate id, split → row → the rollout of its repeat 0; of one that was run again, the last."""
        self.milestones: Sequence[Milestone] = ()
        self.proposals: Sequence[ProposalEnded] = ()
        self.winner: str | None = None  # the best candidate so far, by its id
        self.front = _NO_FRONT  # of the candidates, over the validation rows
        self._usage = UsageTotal()
        self.cached = 0  # calls that were answered without asking a provider
        self.models: list[str] = []  # their names, in the order in which they were first asked
        self.lost: frozenset[int] = frozenset()
        """Rows and searches that were left unfinished before the run was resumed."""
        self.redone: dict[int, int] = {}  # span of a row → span of the same row, which this one did again
        self.search_numbers: dict[int, int] = {}  # searches in no attempt, row or candidate, numbered from 0
        self.last_step = -1  # the highest number of an optimizer's step that an event has; -1 for none
        self._at_start = (0, 0)  # how many calls and rollouts there were when the run began last
        self._hint_errors: dict[tuple[int, int], str] = {}  # by search and wave
        self._parents: dict[int, int] = {}
        self._spans_in: dict[int, list[int]] = {}  # span → those begun right inside it; no calls
        # Span → place in ``calls`` of the last call made right inside it; and of each call, that of the one before it
        # there. So a row needs no list of its own.
        self._last_call_in: dict[int, int] = {}
        self._call_before: list[int | None] = []
        self._chosen: dict[int, int] = {}  # search → the number of the attempt that it took as its result
        self._searches: dict[int, list[AttemptRow]] = {}
        self._rows: dict[tuple[int, str], int] = {}  # span around a row, its name → the row's last span
        self._outermost: dict[int, bool] = {}
        for event in events:
            self.apply(event)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self.events),)

    @property
    def usage(self) -> Usage:
        """What the run's calls cost so far."""
        with self.lock:  # several numbers, which belong together
            return self._usage.value()

    @property
    def status(self) -> str:
        """pending, running, or how the run ended."""
        if self.ended is not None:
            return self.ended.status
        return "running" if self.started is not None else "pending"

    # ── applying events ───────────────────────────────────────────────────────────────────────────────────────────
    def apply(self, event: Event) -> Changes:
        """Take the next event; the keys that it changed. An event of an unknown type changes nothing. The caller holds
        ``lock`` where other threads read."""
        self.events.append(event)
        take = _APPLY.get(type(event))
        return NOTHING if take is None else take(self, event)

    def nest(self, span: int, parent: int) -> None:
        """Take note that another run, which has this span, was started in the span ``parent`` of this one.

        What happens in the other run is emitted to this one too, but not its ``RunStarted``, which would begin this one
        anew. So that ``calls_in`` finds its calls.
        """
        with self.lock:
            self._spans_in.setdefault(parent, []).append(span)

    def _run_started(self, event: RunStarted) -> Changes:
        if self.started is None:
            self.began = event.at
        self._lose_unfinished()
        self._at_start = (len(self.calls), len(self.rollouts))
        self.started = event
        self.ended = None  # the run that is resumed had ended
        self._parents[event.span] = event.parent
        self.spans[event.span] = SpanRow(event)
        return _RUN

    def _run_ended(self, event: RunEnded) -> Changes:
        self.ended = event
        span = self.spans.get(event.span)
        if span is not None:
            span.end = event
        return Changes(run=True, spans=self._choose_where_unfinished())

    def _span_started(self, event: SpanStarted) -> Changes:
        span = event.span
        self.spans[span] = SpanRow(event)
        self._parents[span] = event.parent
        self._spans_in.setdefault(event.parent, []).append(span)
        if event.kind == "row":
            self._row_started(span, event.parent, event.name)
        return Changes(False, (span,))

    def _row_started(self, span: int, parent: int, name: str) -> None:
        before = self._rows.get((parent, name))
        if before is not None:
            self.redone[span] = before
        self._rows[parent, name] = span

    def _span_ended(self, event: SpanEnded) -> Changes:
        span = self.spans.get(event.span)
        if span is None:
            return NOTHING
        span.end = event
        return Changes(False, (event.span,))

    def _rollout_ended(self, event: RolloutEnded) -> Changes:
        self.rollouts.append(event)
        if event.candidate is not None and event.split is not None and event.repeat == 0:
            self.rollouts_by_candidate.setdefault((event.candidate, event.split), {})[event.row] = event
            if event.split == "val" and event.score is not None:
                if self.front is _NO_FRONT:
                    self.front = ParetoFront()
                self.front.add(event.candidate, event.row, event.score)
        span = self.spans.get(event.span)
        if span is None:
            return Changes(grown=_ROLLOUTS)
        span.end = event
        return Changes(False, (event.span,), (), _ROLLOUTS)

    def _called(self, event: PredictorCalled) -> Changes:
        self._parents[event.span] = event.parent  # a repair is made in the call that it repairs
        self._call_before.append(self._last_call_in.get(event.parent))
        self._last_call_in[event.parent] = len(self.calls)
        self.calls.append(event)
        self._usage.add(event.usage)
        self.cached += event.cached
        if event.model and event.model not in self.models:
            self.models.append(event.model)
        if not self.attempts:
            return _ONE_CALL
        around = []
        for span in self.ancestors(event.parent):
            if row := self.attempts.get(span):
                row.calls.append(event)
                around.append(span)
        return Changes(spans=tuple(around), grown=_ONE_CALL.grown) if around else _ONE_CALL

    def _attempt_started(self, event: AttemptStarted) -> Changes:
        row = AttemptRow(event, self._hint_errors.get((event.parent, event.wave)))
        self.attempts[event.span] = row
        if event.parent not in self._searches and self.is_outermost(event.parent):
            self.search_numbers[event.parent] = len(self.search_numbers)
        self._searches.setdefault(event.parent, []).append(row)
        self._parents[event.span] = event.parent
        self._spans_in.setdefault(event.parent, []).append(event.span)
        return Changes(False, (event.span,))

    def _attempt_ended(self, event: AttemptEnded) -> Changes:
        row = self.attempts.get(event.span)
        if row is None or row.state == "cancelled":  # one that refused to end may still come in
            return NOTHING
        row.end = event
        return Changes(False, (event.span,))

    def _attempt_chosen(self, event: AttemptChosen) -> Changes:
        changed = []
        self._chosen[event.span] = event.attempt
        for row in self._searches.get(event.span, ()):
            best = row.attempt == event.attempt
            if row.best != best:
                row.best = best
                changed.append(row.span)
        if (chosen := self.attempt(event.span, event.attempt)) is not None:
            self._choose(chosen)
        return Changes(spans=tuple(changed))

    def _choose(self, attempt: AttemptRow) -> None:
        """Tell the row around a search what the search took as its result."""
        for above in self.ancestors(attempt.parent):
            if above in self.attempts:
                return
            row = self.spans.get(above)
            if row is not None and row.kind == "row":
                if row.chosen is None or row.chosen.parent == attempt.parent:
                    row.chosen = attempt
                return

    def _hint_failed(self, event: HintFailed) -> Changes:
        self.hint_failures = _appended(self.hint_failures, event)
        self._hint_errors[event.span, event.wave] = event.error
        return _ONE_HINT_FAILURE

    def _candidate_proposed(self, event: CandidateProposed) -> Changes:
        if event.id in self.candidates:
            return NOTHING
        self.candidates[event.id] = event
        self.last_step = max(self.last_step, event.step)
        return Changes(candidates=(event.id,))

    def _candidate_scored(self, event: CandidateScored) -> Changes:
        self.milestones = _appended(self.milestones, Milestone(event, self.usage, len(self.rollouts)))
        self.last_step = max(self.last_step, event.step)
        changed = self._win(event.best)
        return Changes(candidates=(event.candidate, *changed), grown=_MILESTONES)

    def _proposal_ended(self, event: ProposalEnded) -> Changes:
        self.proposals = _appended(self.proposals, event)
        return _ONE_PROPOSAL

    def _steer(self, event: Steered) -> Changes:
        self.steered = _appended(self.steered, event)
        self.last_step = max(self.last_step, event.step)
        changed = [*self._mark(event), *self._win(event.values.get("best"))]
        return Changes(candidates=tuple(changed), grown=_STEERED)

    def _mark(self, event: Steered) -> list[str]:
        """Take note that a candidate was pinned, unpinned or dropped; those that this concerns."""
        changed = []
        if event.action in ("pin", "unpin"):
            changed = [candidate for candidate, mark in self.marks.items() if mark == "pinned"]
            for candidate in changed:
                del self.marks[candidate]
        if event.action in ("pin", "drop"):
            candidate = str(event.values.get("candidate", ""))
            self.marks[candidate] = "pinned" if event.action == "pin" else "dropped"
            changed.append(candidate)
        return changed

    def _win(self, best: str | None) -> tuple[str, ...]:
        """Make a candidate the winner; those that became or ceased to be it."""
        before = self.winner
        if best is None or best == before:
            return ()
        self.winner = best
        return (best,) if before is None else (best, before)

    def _lose_unfinished(self) -> None:
        """A run that is resumed does again what had not ended, and rows that were halted."""
        if self.started is None:
            return
        again = [s for s in self.spans.values() if s.kind in ("row", "search") and (not s.done or s.error == "halted")]
        self.lost = self.lost.union(span.span for span in again)

    def _choose_where_unfinished(self) -> tuple[int, ...]:
        """A search that was stopped chose nothing: its best is the first that passed, else the first highest score."""
        changed = []
        for search in self._searches:
            if search in self._chosen:
                continue
            scored = [row for row in self.children(search) if row.score is not None and row.state != "cancelled"]
            if scored and not any(row.best for row in scored):
                passed = [row for row in scored if row.state == "passed"]
                best = passed[0] if passed else max(scored, key=lambda row: float(row.score or 0.0))
                best.best = True
                self._choose(best)
                changed.append(best.span)
        return tuple(changed)

    # ── queries ───────────────────────────────────────────────────────────────────────────────────────────────────
    def children(self, search: int) -> list[AttemptRow]:
        """The attempts of one search, in order of their numbers."""
        return sorted(self._searches.get(search, ()), key=lambda a: a.attempt)

    def attempt(self, search: int, number: int) -> AttemptRow | None:
        """The attempt of a search that has this number, from 1; None where there is none."""
        rows = self._searches.get(search, ())
        if 0 < number <= len(rows) and rows[number - 1].attempt == number:  # nearly always: they begin in order
            return rows[number - 1]
        return next((row for row in reversed(rows) if row.attempt == number), None)

    def searches(self) -> list[int]:
        """The spans that have attempts, outermost and earliest first."""
        return list(self._searches)

    def search_of(self, span: int) -> int | None:
        """The span itself where it has attempts, else the first that has; None where none has. Constant time."""
        if span in self._searches:
            return span
        return next(iter(self._searches), None)

    def count_of_attempts(self, search: int) -> int:
        """How many attempts a search has begun. Constant time."""
        return len(self._searches.get(search, ()))

    @property
    def last_span(self) -> int:
        """The highest number that an event has as its span; 0 for none. Looks at all of them."""
        return max((event.span for event in self.events), default=0)

    def spans_in(self, span: int) -> list[int]:
        """The span and those inside it, however deep, calls not included; a span comes before those inside it."""
        with self.lock:
            found = [span]
            for inner in found:  # which grows meanwhile
                found += self._spans_in.get(inner, ())
        return found

    def calls_in(self, span: int) -> list[PredictorCalled]:
        """The model calls made in a span, however deep, with those of rewards, metrics and advisors, in the order in
        which they ended. Costs as much as there is in the span.

        >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"]))
        >>> run = ask.run_sync(question="2+2?").run
        >>> [call.reply for call in run.record.calls_in(run.span)]
        ['answer: 4']
        """
        with self.lock:
            return [self.calls[place] for place in self._places_in(span)]

    def split_calls_in(self, span: int, count: int) -> tuple[list[PredictorCalled], list[PredictorCalled]]:
        """The model calls made in a span, as ``calls_in`` gives them: those that ended before the record had ``count``
        calls, and those after them."""
        with self.lock:
            places = self._places_in(span)
            first = bisect_left(places, count)
            calls = [self.calls[place] for place in places]
        return calls[:first], calls[first:]

    def _places_in(self, span: int) -> list[int]:
        """The places in ``calls`` of those made in a span, however deep, in order."""
        places: list[int] = []
        waiting = [span]
        for inner in waiting:  # which grows meanwhile
            waiting += self._spans_in.get(inner, ())
            place = self._last_call_in.get(inner)
            while place is not None:
                places.append(place)
                call = self.calls[place].span
                if call in self._last_call_in:  # a repair is made in the call that it repairs
                    waiting.append(call)
                place = self._call_before[place]
        places.sort()
        return places

    def usage_in(self, span: int) -> Usage:
        """What the calls made in a span cost: see ``calls_in``."""
        return usage_of(self.calls_in(span))

    def attempts_in(self, span: int) -> list[AttemptRow]:
        """The attempts of searches in a span, however deep."""
        return [row for inner in self.spans_in(span) if (row := self.attempts.get(inner)) is not None]

    def searches_in(self, span: int) -> list[int]:
        """The spans in a span that have attempts, itself included, in the order in which they first had one."""
        inside = [inner for inner in self.spans_in(span) if inner in self._searches]
        return sorted(inside, key=lambda search: self._searches[search][0].started)

    def counts(self, span: int) -> bool:
        """Whether a span is in no attempt that its search did not choose. Before it has chosen one, all count."""
        for inner in self.ancestors(span):
            row = self.attempts.get(inner)
            if row is not None and self._chosen.get(row.parent, row.attempt) != row.attempt:
                return False
        return True

    def since_start(self) -> tuple[list[PredictorCalled], list[RolloutEnded]]:
        """The calls and rollouts of this process: those since the run began, or was resumed last."""
        calls, rollouts = self._at_start
        return self.calls[calls:], self.rollouts[rollouts:]

    def rollouts_of(self, candidate: str, split: str = "val") -> Mapping[int, RolloutEnded]:
        """Row → rollout of a candidate (its id) on a split; the first repeat; of one that was run again, the last."""
        return self.rollouts_by_candidate.get((candidate, split), {})

    def parent_of(self, span: int) -> int:
        """The span that this one happened in; 0 for none, or one that is not known."""
        return self._parents.get(span, 0)

    def is_outermost(self, span: int) -> bool:
        """Whether a span is in no attempt, row or evaluation of a candidate, and is none itself. Constant time, but for
        the first question about a span."""
        known = self._outermost.get(span)
        if known is None:
            known = not any(above in self.attempts or self._holds_rows(above) for above in self.ancestors(span))
            self._outermost[span] = known
        return known

    def _holds_rows(self, span: int) -> bool:
        row = self.spans.get(span)
        return row is not None and row.kind in ("row", "candidate")

    def ancestors(self, span: int) -> Iterator[int]:
        """The span and those it happened in, innermost first."""
        while span:
            yield span
            span = self._parents.get(span, 0)


_APPLY: Mapping[type[Event], Callable[[RunRecord, Any], Changes]] = {
    PredictorCalled: RunRecord._called,
    SpanStarted: RunRecord._span_started,
    SpanEnded: RunRecord._span_ended,
    RolloutEnded: RunRecord._rollout_ended,
    AttemptStarted: RunRecord._attempt_started,
    AttemptEnded: RunRecord._attempt_ended,
    AttemptChosen: RunRecord._attempt_chosen,
    HintFailed: RunRecord._hint_failed,
    CandidateProposed: RunRecord._candidate_proposed,
    CandidateScored: RunRecord._candidate_scored,
    ProposalEnded: RunRecord._proposal_ended,
    Steered: RunRecord._steer,
    RunStarted: RunRecord._run_started,
    RunEnded: RunRecord._run_ended,
}
