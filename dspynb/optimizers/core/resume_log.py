"""What the journal of a run that is resumed holds: rollouts, proposals, and calls of those that had not ended."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dspynb import errors
from dspynb.data import Usage
from dspynb.errors import ModelError
from dspynb.events import (
    CandidateProposed,
    CandidateScored,
    Event,
    PredictorCalled,
    ProposalEnded,
    RolloutEnded,
    from_json,
    plain,
    to_json,
)
from dspynb.lm.interceptors.chain import ModelCall, Proceed
from dspynb.lm.protocol import LMReply, LMRequest
from dspynb.modules.predictor_call import as_recorded
from dspynb.optimizers.core.task import Heard, hinted
from dspynb.scope.budget import Meter, missing_tokens
from dspynb.scope.call_context import Place
from dspynb.scope.core import current_scope

__all__ = ["Kept", "Memory", "RolloutKey"]

RolloutKey = tuple[str, str, int, int]
"""Candidate id, split, row, repeat."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A rollout or proposal that had ended: its record, its calls, and what they took from a budget."""

    ended: Any
    calls: Sequence[PredictorCalled] = ()
    counting: Sequence[PredictorCalled] = ()  # those that are not in attempts that were not chosen
    events: Sequence[Event] = ()  # what its hints can be read from

    def charge(self) -> None:
        """Take from the budgets in force what it took then, so that they end where they would have."""
        scope = current_scope()
        for call in self.calls:
            if not call.cached:
                scope.admit(1 + call.usage.retries)  # a call is one, whatever a model of the user's says of it
                scope.settle(call.usage, cached=False, estimate=_estimate(call))


@dataclass
class Memory:
    """What was done before, by key; empty for a run that begins. An interceptor: it answers calls of rollouts and
    proposals that had not ended."""

    place = Place.RESUME_LOG

    rollouts: dict[RolloutKey, Kept] = field(default_factory=dict)
    proposals: dict[str, Kept] = field(default_factory=dict)
    proposed: set[str] = field(default_factory=set)
    scored: set[tuple[Any, ...]] = field(default_factory=set)
    _loose: dict[str, deque[PredictorCalled]] = field(default_factory=dict)

    @classmethod
    def of(cls, events: Iterable[Event]) -> Memory:
        """Read it from the events of a run."""
        memory, events = cls(), list(events)
        parents: dict[int, int] = {}
        for event in events:  # the first of a span tells where it began; one at its end may name the span itself
            parents.setdefault(event.span, event.parent if event.parent != event.span else 0)
        ended = {e.span: e for e in events if isinstance(e, ProposalEnded) or _is_ours(e)}
        calls: dict[int, list[PredictorCalled]] = {span: [] for span in ended}
        for event in events:
            if isinstance(event, PredictorCalled):
                owner = _owner(event.span, parents, ended)
                before = memory._loose.get(_key(event)) if event.cached else None  # it is the answer that was kept
                if owner is not None:
                    calls[owner].append(before.popleft() if before else event)
                elif event.reply is not None and not before:
                    memory._loose.setdefault(_key(event), deque()).append(event)
            elif isinstance(event, CandidateProposed):
                memory.proposed.add(event.id)
            elif isinstance(event, CandidateScored):
                memory.scored.add(scored_key(event))
        heard = Heard({e.uid: e.predictor for e in events if isinstance(e, PredictorCalled)})
        for event in events:
            heard.emit(event)
        counting, told = {call.span for call in heard.calls}, _told(heard.events, parents, ended)
        for span, event in ended.items():
            counted = tuple(call for call in calls[span] if call.span in counting)
            kept = Kept(event, tuple(calls[span]), counted, hinted(told.get(span, ())))
            if isinstance(event, ProposalEnded) and _may_pass(event.error):
                continue  # of a provider that was down: asked again
            if isinstance(event, RolloutEnded):
                memory.rollouts[event.candidate or "", event.split or "", event.row, event.repeat] = kept
            elif isinstance(event, ProposalEnded):
                memory.proposals[event.key] = kept
        return memory

    def charge(self, meter: Meter, rollouts: Collection[RolloutKey], proposals: Iterable[str]) -> None:
        """Count in a meter what these took, as their calls would take it from a budget when a run is gone on with."""
        found = [*map(self.rollouts.get, rollouts), *map(self.proposals.get, proposals)]
        for call in (call for kept in found if kept is not None for call in kept.calls if not call.cached):
            meter.count(call.usage, calls=1 + call.usage.retries, estimate=_estimate(call))
        meter.count(Usage(), metric_calls=len(rollouts))

    async def __call__(self, call: ModelCall, proceed: Proceed) -> LMReply:
        """The reply that the journal has, charged as it was then; else the model's."""
        if not self._loose:
            return await proceed(call)
        return await _resumed(self, call, proceed)

    def take(self, path: str, model: str, request: LMRequest) -> PredictorCalled | None:
        """A call that was made for this request and not used yet."""
        calls = self._loose.get(_text(path, model, request.rollout, as_recorded(request.messages)))
        return calls.popleft() if calls else None

    def for_snapshot(self) -> ConsultedMemory | None:
        """What stands for it in another process; None where there is nothing to look for."""
        return ConsultedMemory() if self._loose else None

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        """A call that was made for the request in ``question``, as JSON."""
        calls = self._loose.get(str(question["request"]))
        return to_json(calls.popleft()) if calls else None


@dataclass(frozen=True)
class ConsultedMemory:
    """The memory seen from a worker, which asks for every request whether it has an answer."""

    place = Place.RESUME_LOG

    ask: Callable[[Mapping[str, Any]], Any] | None = None

    def for_snapshot(self) -> ConsultedMemory:
        """Itself, without a way to ask."""
        return ConsultedMemory()

    def asking(self, ask: Callable[[Mapping[str, Any]], Any]) -> ConsultedMemory:
        """The same, with a way to ask."""
        return ConsultedMemory(ask)

    async def __call__(self, call: ModelCall, proceed: Proceed) -> LMReply:
        """The same as the memory."""
        return await _resumed(self, call, proceed)

    def take(self, path: str, model: str, request: LMRequest) -> PredictorCalled | None:
        """A call that was made for this request and not used yet."""
        if self.ask is None:
            return None
        text = _text(path, model, request.rollout, as_recorded(request.messages))
        told = self.ask({"request": text})
        call = None if told is None else from_json(told)
        return call if isinstance(call, PredictorCalled) else None


async def _resumed(memory: Memory | ConsultedMemory, call: ModelCall, proceed: Proceed) -> LMReply:
    before = memory.take(call.path, call.model, call.request)
    if before is None:
        return await proceed(call)
    Kept(None, (before,)).charge()
    return _reply(before)


def _estimate(call: PredictorCalled) -> int:
    return missing_tokens(call.usage, call.messages, call.reply or "")


def _reply(call: PredictorCalled) -> LMReply:
    return LMReply(call.reply or "", call.tool_calls, usage=call.usage.as_cached(), cached=True)


def scored_key(event: CandidateScored) -> tuple[Any, ...]:
    """What is told once only."""
    return event.candidate, event.split, event.rows, event.step


def _may_pass(error: str | None) -> bool:
    kind = getattr(errors, (error or "").partition(":")[0], None)
    return isinstance(kind, type) and issubclass(kind, ModelError) and kind.retryable


def _is_ours(event: Event) -> bool:
    return isinstance(event, RolloutEnded) and event.candidate is not None


def _owner(span: int, parents: Mapping[int, int], ended: Mapping[int, Event]) -> int | None:
    """The rollout or proposal that a call was made in, where it has ended."""
    while span:
        if span in ended:
            return span
        span = parents.get(span, 0)
    return None


def _told(events: Iterable[Event], parents: Mapping[int, int], ended: Mapping[int, Event]) -> dict[int, list[Event]]:
    """The events by the rollout or proposal that they happened in."""
    found: dict[int, list[Event]] = {}
    for event in events:
        if (owner := _owner(event.span, parents, ended)) is not None:
            found.setdefault(owner, []).append(event)
    return found


def _key(call: PredictorCalled) -> str:
    return _text(call.predictor, call.model, call.rollout, call.messages)


def _text(*parts: Any) -> str:
    return json.dumps(plain(list(parts)), sort_keys=True, default=repr)
