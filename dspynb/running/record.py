"""The record of a run: its state, computed from its events, for a live run as for one that is reopened.

``RunRecord`` is the only reader of raw events. Tables, views, traces, resuming and replaying query it.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from dspynb.data import NO_USAGE, Usage, UsageTotal
from dspynb.events import (
    AttemptChosen,
    AttemptEnded,
    AttemptStarted,
    CandidateProposed,
    CandidateScored,
    Event,
    HintFailed,
    PredictorCalled,
    ProfileChanged,
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
from dspynb.running.record_rows import AttemptRow, Milestone, SpanRow, Unfinished, candidate_name, role_of, usage_of
from dspynb.running.streamed_calls import StreamedCalls

__all__ = ["RunRecord"]


_RUN = Changes(run=True)
_CALLS = ("calls",)
_ONE_CALL = Changes(grown=_CALLS)
_ONE_PROPOSAL = Changes(grown=("proposals",))
_ONE_HINT_FAILURE = Changes(grown=("hint_failures",))
_ROLLOUTS = ("rollouts",)
_MILESTONES = ("milestones",)
_STEERED = ("steered",)
_NO_FRONT = ParetoFront()
_NO_PROFILES: Mapping[str, Mapping[str, Any]] = {}
T = TypeVar("T")


def _appended(items: Sequence[T], item: T) -> list[T]:
    """Append to a list and return it. The empty tuple, with which a record begins, becomes a list."""
    if not isinstance(items, list):
        return [item]
    items.append(item)
    return items


class RunRecord:
    """The state of a run: header, status, spans, attempts, calls, rollouts, candidates and usage.

    ``apply`` adds the next event and returns the keys that changed. A ``Run`` applies each event as it is emitted; a
    run that is reopened applies the events of its file. So reading ``status`` or ``usage`` costs the same however long
    the run is.

    ``events``: all events, in order. Only the record itself writes its attributes. A run may emit from another thread:
    hold ``lock`` while reading more than one attribute.

    >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"]))
    >>> record = ask.run_sync(question="2+2?").run.record
    >>> record.status, len(record.calls), record.usage.calls
    ('finished', 1, 1)
    """

    __slots__ = (
        "_at_start",
        "_chosen",
        "_hint_errors",
        "_last_call_in",
        "_outermost",
        "_parents",
        "_previous_call",
        "_rows",
        "_searches",
        "_spans_in",
        "_streams",
        "_usage_by_role",
        "attempts",
        "began",
        "cached",
        "calls",
        "candidates",
        "ended",
        "estimated",
        "events",
        "front",
        "hint_failures",
        "last_step",
        "learned_profiles",
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
        "unfinished",
        "winner",
    )  # every plain call creates a record, and slots halve the time of that

    def __init__(self, events: Iterable[Event] = (), lock: threading.RLock | None = None) -> None:
        self.events: list[Event] = []
        self.lock = threading.RLock() if lock is None else lock
        self.started: RunStarted | None = None
        self.ended: RunEnded | None = None
        self.unfinished: Unfinished | None = None  # where the process died before the run had ended
        self.began = 0.0  # when the run began, not when it was resumed; unix seconds
        self.attempts: dict[int, AttemptRow] = {}
        self.spans: dict[int, SpanRow] = {}
        self.calls: list[PredictorCalled] = []
        self.rollouts: list[RolloutEnded] = []
        # Collections that few runs use begin as an empty tuple: every plain call creates a record, and each list costs.
        self.hint_failures: Sequence[HintFailed] = ()
        self.steered: Sequence[Steered] = ()  # interventions of a person, in the order in which they were applied
        self.candidates: dict[str, CandidateProposed] = {}
        self.marks: dict[str, str] = {}  # candidate id → ``pinned`` or ``dropped``, by a person
        self.rollouts_by_candidate: dict[tuple[str, str], dict[int, RolloutEnded]] = {}
        """(candidate id, split) → row → rollout of repeat 0. Of a rollout that was run again, the last one."""
        self.milestones: Sequence[Milestone] = ()
        self.proposals: Sequence[ProposalEnded] = ()
        self.learned_profiles = _NO_PROFILES
        """What refusals of servers have changed in the profiles of models, by the key of the model."""
        self.winner: str | None = None  # the id of the best candidate so far
        self.front = _NO_FRONT  # the Pareto front of the candidates over the validation rows
        self._usage_by_role: dict[str, UsageTotal] = {}
        self.cached = 0  # the number of calls that were answered without a provider
        self.estimated = 0  # tokens that requests may have used that were stopped or timed out
        self.models: list[str] = []  # the names of the models, in the order of their first calls
        self.lost: frozenset[int] = frozenset()
        """Rows and searches that were left unfinished before the run was resumed."""
        self.redone: dict[int, int] = {}  # span of a row → the earlier span of the same row, which it replaces
        self.search_numbers: dict[int, int] = {}  # outermost search → its number, from 0
        self.last_step = -1  # the highest number of an optimizer step in any event; -1 for none
        self._at_start = (0, 0)  # the number of calls and of rollouts when the run was started or resumed last
        self._hint_errors: dict[tuple[int, int], str] = {}  # (search, wave) → error
        self._parents: dict[int, int] = {}  # span → the span around it
        self._spans_in: dict[int, list[int]] = {}  # span → the spans directly inside it, without calls
        # The calls directly inside a span form a linked list, so that a row needs no list of its own: the index in
        # ``calls`` of the span's last call, and for each call the index of the previous call in the same span.
        self._last_call_in: dict[int, int] = {}
        self._previous_call: list[int | None] = []
        self._chosen: dict[int, int] = {}  # search → the number of the attempt that is its result
        self._searches: dict[int, list[AttemptRow]] = {}
        self._rows: dict[tuple[int, str], int] = {}  # (span around a row, its name) → the row's last span
        self._outermost: dict[int, bool] = {}  # the answers of is_outermost
        self._streams: StreamedCalls | None = None
        for event in events:
            self.apply(event)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self.events),)

    @property
    def usage(self) -> Usage:
        """The usage of all calls so far."""
        return sum(self.usage_by_role().values(), NO_USAGE)

    def usage_by_role(self) -> dict[str, Usage]:
        """The usage of the calls so far by what they were for, in the order of the first calls; see ``role_of``."""
        with self.lock:  # so that the numbers belong together
            return {role: total.value() for role, total in self._usage_by_role.items()}

    @property
    def streams(self) -> StreamedCalls:
        """The calls in flight whose replies arrive as streams. They are no events: only a live run has any."""
        with self.lock:
            if self._streams is None:
                self._streams = StreamedCalls()
            return self._streams

    @property
    def status(self) -> str:
        """``pending``, ``running``, the status with which the run ended, or ``unfinished`` (the process died)."""
        if self.ended is not None:
            return self.ended.status
        if self.unfinished is not None:
            return "unfinished"
        if self.started is not None:
            return "running"
        return "pending"

    @property
    def is_over(self) -> bool:
        """Whether the run has ended, or its process died."""
        return self.ended is not None or self.unfinished is not None

    @property
    def candidate_names(self) -> dict[str, str]:
        """Id → the short name under which views, tables and plots show the candidate: c0 (the start), c1, …"""
        return {candidate: candidate_name(number) for number, candidate in enumerate(self.candidates)}

    # ── applying events ───────────────────────────────────────────────────────────────────────────────────────────
    def apply(self, event: Event) -> Changes:
        """Apply the next event and return the keys that it changed. An event of an unknown type changes nothing. The
        caller holds ``lock`` where other threads may read."""
        self.events.append(event)
        handler = _HANDLERS.get(type(event))
        if handler is None:
            return NOTHING
        return handler(self, event)

    def nest(self, span: int, parent: int) -> None:
        """Note that another run, which has this span, was started in the span ``parent`` of this run, so that
        ``calls_in`` includes its calls.

        The events of the other run are emitted to this one too, except its ``RunStarted``, which would restart this
        one.
        """
        with self.lock:
            self._spans_in.setdefault(parent, []).append(span)

    def _run_started(self, event: RunStarted) -> Changes:
        if self.started is None:
            self.began = event.at
        self._mark_unfinished_as_lost()
        self._at_start = (len(self.calls), len(self.rollouts))
        self.started = event
        self.ended = None  # a resumed run may have ended before
        self._parents[event.span] = event.parent
        self.spans[event.span] = SpanRow(event)
        return _RUN

    def _run_ended(self, event: RunEnded) -> Changes:
        self.ended = event
        span = self.spans.get(event.span)
        if span is not None:
            span.end = event
        return Changes(run=True, spans=self._choose_in_unfinished_searches())

    def _span_started(self, event: SpanStarted) -> Changes:
        span = event.span
        self.spans[span] = SpanRow(event)
        self._parents[span] = event.parent
        self._spans_in.setdefault(event.parent, []).append(span)
        if event.kind == "row":
            self._row_started(span, event.parent, event.name)
        return Changes(False, (span,))

    def _row_started(self, span: int, parent: int, name: str) -> None:
        earlier_span = self._rows.get((parent, name))
        if earlier_span is not None:
            self.redone[span] = earlier_span
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
        self._parents[event.span] = event.parent  # also for a call: the repair of a call is inside it
        self._previous_call.append(self._last_call_in.get(event.parent))
        self._last_call_in[event.parent] = len(self.calls)
        self.calls.append(event)
        role = role_of(event)
        total = self._usage_by_role.get(role)
        if total is None:
            total = self._usage_by_role[role] = UsageTotal()
        total.add(event.usage)
        self.cached += event.cached
        if event.estimated:
            self.estimated += event.estimated
        if event.model and event.model not in self.models:
            self.models.append(event.model)
        if not self.attempts:
            return _ONE_CALL
        attempts: tuple[int, ...] = ()
        span = event.parent
        while span:  # the loop of ``ancestors``, written out because it runs in every call
            row = self.attempts.get(span)
            if row is not None:
                row.calls.append(event)
                attempts = (*attempts, span)
            span = self._parents.get(span, 0)
        if not attempts:
            return _ONE_CALL
        return Changes(False, attempts, (), _CALLS)

    def _attempt_started(self, event: AttemptStarted) -> Changes:
        span = event.span
        search = event.parent
        row = AttemptRow(event, self._hint_errors.get((search, event.wave)) if self._hint_errors else None)
        self.attempts[span] = row
        rows = self._searches.get(search)
        if rows is None:
            if self.is_outermost(search):
                self.search_numbers[search] = len(self.search_numbers)
            rows = self._searches[search] = []
        rows.append(row)
        self._parents[span] = search
        self._spans_in.setdefault(search, []).append(span)
        return Changes(False, (span,))

    def _attempt_ended(self, event: AttemptEnded) -> Changes:
        row = self.attempts.get(event.span)
        if row is None or row.state == "cancelled":  # a cancelled attempt that refused to end may do so later
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
        chosen = self.attempt(event.span, event.attempt)
        if chosen is not None:
            self._set_chosen_of_row(chosen)
        return Changes(spans=tuple(changed))

    def _set_chosen_of_row(self, attempt: AttemptRow) -> None:
        """Store the chosen attempt of a search in the row around the search. Searches inside attempts have none."""
        for span in self.ancestors(attempt.parent):
            if span in self.attempts:
                return
            row = self.spans.get(span)
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
        changed = self._set_winner(event.best)
        return Changes(candidates=(event.candidate, *changed), grown=_MILESTONES)

    def _proposal_ended(self, event: ProposalEnded) -> Changes:
        self.proposals = _appended(self.proposals, event)
        return _ONE_PROPOSAL

    def _steered(self, event: Steered) -> Changes:
        self.steered = _appended(self.steered, event)
        self.last_step = max(self.last_step, event.step)
        changed = [*self._mark(event), *self._set_winner(event.values.get("best"))]
        return Changes(candidates=tuple(changed), grown=_STEERED)

    def _profile_changed(self, event: ProfileChanged) -> Changes:
        self.learned_profiles = {**self.learned_profiles, event.key: event.changes}
        return NOTHING

    def _mark(self, event: Steered) -> list[str]:
        """Update ``marks`` where a candidate was pinned, unpinned or dropped. Returns the candidates whose mark
        changed."""
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

    def _set_winner(self, best: str | None) -> tuple[str, ...]:
        """Set the best candidate; None leaves it as it is. Returns the new and the previous one, if they differ."""
        previous = self.winner
        if best is None or best == previous:
            return ()
        self.winner = best
        if previous is None:
            return (best,)
        return (best, previous)

    def _mark_unfinished_as_lost(self) -> None:
        """Add the unfinished and the halted rows and searches to ``lost``: a run that is resumed does them again."""
        if self.started is None:
            return
        lost = []
        for span in self.spans.values():
            is_unfinished = not span.done or span.error == "halted"
            if span.kind in ("row", "search") and is_unfinished:
                lost.append(span.span)
        self.lost = self.lost.union(lost)

    def _choose_in_unfinished_searches(self) -> tuple[int, ...]:
        """Mark the best attempt of each search that was stopped before it chose one: the first that passed, else the
        first with the highest score. Returns the marked attempts."""
        changed = []
        for search in self._searches:
            if search in self._chosen:
                continue
            scored = [row for row in self.children(search) if row.score is not None and row.state != "cancelled"]
            if not scored or any(row.best for row in scored):
                continue
            passed = [row for row in scored if row.state == "passed"]
            best = passed[0] if passed else max(scored, key=lambda row: float(row.score or 0.0))
            best.best = True
            self._set_chosen_of_row(best)
            changed.append(best.span)
        return tuple(changed)

    # ── queries ───────────────────────────────────────────────────────────────────────────────────────────────────
    def children(self, search: int) -> list[AttemptRow]:
        """The attempts of one search, in the order of their numbers."""
        return sorted(self._searches.get(search, ()), key=lambda row: row.attempt)

    def attempt(self, search: int, number: int) -> AttemptRow | None:
        """The attempt of a search with this number, which counts from 1; None where there is none."""
        rows = self._searches.get(search, ())
        if 0 < number <= len(rows) and rows[number - 1].attempt == number:  # attempts nearly always begin in order
            return rows[number - 1]
        return next((row for row in reversed(rows) if row.attempt == number), None)

    def searches(self) -> list[int]:
        """The spans that have attempts, outermost and earliest first."""
        return list(self._searches)

    def search_of(self, span: int) -> int | None:
        """The span itself if it has attempts, else the first span that has; None where there is none. Constant
        time."""
        if span in self._searches:
            return span
        return next(iter(self._searches), None)

    def count_of_attempts(self, search: int) -> int:
        """The number of attempts that a search has begun. Constant time."""
        return len(self._searches.get(search, ()))

    @property
    def last_span(self) -> int:
        """The highest span number of any event; 0 without events. Takes time proportional to the number of events."""
        return max((event.span for event in self.events), default=0)

    def spans_in(self, span: int) -> list[int]:
        """The span and all spans inside it, at any depth, without calls. Each span comes before those inside it."""
        with self.lock:
            spans = [span]
            for outer in spans:  # the list grows during the loop
                spans += self._spans_in.get(outer, ())
        return spans

    def calls_in(self, span: int) -> list[PredictorCalled]:
        """The model calls made in a span, at any depth, including those of rewards, metrics and advisors, in the order
        in which they ended. Takes time proportional to the number of spans and calls inside.

        >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"]))
        >>> run = ask.run_sync(question="2+2?").run
        >>> [call.reply for call in run.record.calls_in(run.span)]
        ['answer: 4']
        """
        with self.lock:
            return [self.calls[index] for index in self._call_indices_in(span)]

    def split_calls_in(self, span: int, count: int) -> tuple[list[PredictorCalled], list[PredictorCalled]]:
        """The model calls made in a span, as ``calls_in`` returns them, in two lists: those among the first ``count``
        calls of the record, and the later ones."""
        with self.lock:
            indices = self._call_indices_in(span)
            calls = [self.calls[index] for index in indices]
        position = bisect_left(indices, count)
        return calls[:position], calls[position:]

    def _call_indices_in(self, span: int) -> list[int]:
        """The indices in ``calls`` of the calls made in a span, at any depth, in order."""
        indices: list[int] = []
        spans = [span]
        for outer in spans:  # the list grows during the loop
            spans += self._spans_in.get(outer, ())
            index = self._last_call_in.get(outer)
            while index is not None:
                indices.append(index)
                call = self.calls[index].span
                if call in self._last_call_in:  # the repair of a call is inside it
                    spans.append(call)
                index = self._previous_call[index]
        indices.sort()
        return indices

    def usage_in(self, span: int) -> Usage:
        """The usage of the calls made in a span: see ``calls_in``."""
        return usage_of(self.calls_in(span))

    def attempts_in(self, span: int) -> list[AttemptRow]:
        """The attempts of the searches in a span, at any depth."""
        return [self.attempts[inner] for inner in self.spans_in(span) if inner in self.attempts]

    def searches_in(self, span: int) -> list[int]:
        """The spans that have attempts, among a span and all spans inside it, in the order of their first attempts."""
        searches = [inner for inner in self.spans_in(span) if inner in self._searches]
        return sorted(searches, key=lambda search: self._searches[search][0].started)

    def counts(self, span: int) -> bool:
        """Whether a span is outside all attempts that their searches did not choose. As long as a search has not
        chosen an attempt, all of its attempts count."""
        for ancestor in self.ancestors(span):
            row = self.attempts.get(ancestor)
            if row is not None and self._chosen.get(row.parent, row.attempt) != row.attempt:
                return False
        return True

    def since_start(self) -> tuple[list[PredictorCalled], list[RolloutEnded]]:
        """The calls and the rollouts since the run was started or resumed last."""
        calls, rollouts = self._at_start
        return self.calls[calls:], self.rollouts[rollouts:]

    def rollouts_of(self, candidate: str, split: str = "val") -> Mapping[int, RolloutEnded]:
        """Row → rollout of a candidate, given by its id, on a split. Only the first repeat of each row; of a rollout
        that was run again, the last one."""
        return self.rollouts_by_candidate.get((candidate, split), {})

    def parent_of(self, span: int) -> int:
        """The span around this one; 0 where there is none or this span is unknown."""
        return self._parents.get(span, 0)

    def is_outermost(self, span: int) -> bool:
        """Whether a span is neither an attempt, a row or the evaluation of a candidate, nor inside one. Constant time
        after the first call for a span."""
        answer = self._outermost.get(span)
        if answer is None:
            answer = not any(outer in self.attempts or self._holds_rows(outer) for outer in self.ancestors(span))
            self._outermost[span] = answer
        return answer

    def _holds_rows(self, span: int) -> bool:
        row = self.spans.get(span)
        return row is not None and row.kind in ("row", "candidate")

    def ancestors(self, span: int) -> Iterator[int]:
        """The span and the spans around it, innermost first."""
        while span:
            yield span
            span = self._parents.get(span, 0)


_HANDLERS: Mapping[type[Event], Callable[[RunRecord, Any], Changes]] = {
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
    Steered: RunRecord._steered,
    ProfileChanged: RunRecord._profile_changed,
    RunStarted: RunRecord._run_started,
    RunEnded: RunRecord._run_ended,
}
