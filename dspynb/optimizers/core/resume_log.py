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
    CandidateScored,
    PredictorCalled,
    from_json,
    plain,
    to_json,
)
from dspynb.lm.interceptors.chain import ModelCall, Proceed
from dspynb.lm.protocol import LMReply, LMRequest
from dspynb.modules.predictor_call import as_recorded
from dspynb.running.record import RunRecord
from dspynb.scope.budget import Meter, estimated_tokens
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

    def charge(self) -> None:
        """Take from the budgets in force what it took then, so that they end where they would have."""
        scope = current_scope()
        for call in self.calls:
            if not call.cached:
                scope.admit(1 + call.usage.retries)  # a call is one, whatever a model of the user's says of it
                scope.settle(call.usage, cached=False, estimate=estimated_tokens(call))


@dataclass
class Memory:
    """What was done before, by key; empty for a run that begins. ``record``: of the run that it was read from. An
    interceptor: it answers calls of rollouts and proposals that had not ended."""

    place = Place.RESUME_LOG

    record: RunRecord = field(default_factory=RunRecord)
    rollouts: dict[RolloutKey, Kept] = field(default_factory=dict)
    proposals: dict[str, Kept] = field(default_factory=dict)
    proposed: set[str] = field(default_factory=set)
    scored: set[tuple[Any, ...]] = field(default_factory=set)
    _loose: dict[str, deque[PredictorCalled]] = field(default_factory=dict)

    @classmethod
    def of(cls, record: RunRecord) -> Memory:
        """Read it from the record of a run."""
        scored = {scored_key(milestone.scored) for milestone in record.milestones}
        memory = cls(record=record, proposed=set(record.candidates), scored=scored)
        rollouts = {ended.span: ended for ended in record.rollouts if ended.candidate is not None}
        proposals = {ended.span: ended for ended in record.proposals}
        calls = memory._assign_calls(record, {*rollouts, *proposals})
        for span, ended in rollouts.items():
            key = (ended.candidate or "", ended.split or "", ended.row, ended.repeat)
            memory.rollouts[key] = Kept(ended, tuple(calls.get(span, ())))
        for span, proposal in proposals.items():
            if not _may_pass(proposal.error):  # else a provider was down: it is asked again
                memory.proposals[proposal.key] = Kept(proposal, tuple(calls.get(span, ())))
        return memory

    def _assign_calls(self, record: RunRecord, ended: Collection[int]) -> dict[int, list[PredictorCalled]]:
        """The calls of each rollout and proposal that ended, by its span. Others that have a reply are kept loose: they
        answer the same request when their rollout or proposal is made again."""
        calls: dict[int, list[PredictorCalled]] = {}
        for call in record.calls:
            owner = next((span for span in record.ancestors(call.span) if span in ended), None)
            before = self._loose.get(_key(call)) if call.cached else None  # it is the answer that was kept
            if owner is not None:
                calls.setdefault(owner, []).append(before.popleft() if before else call)
            elif call.reply is not None and not before:
                self._loose.setdefault(_key(call), deque()).append(call)
        return calls

    def charge(self, meter: Meter, rollouts: Collection[RolloutKey], proposals: Iterable[str]) -> None:
        """Count in a meter what these took, as their calls would take it from a budget when a run is gone on with."""
        found = [*map(self.rollouts.get, rollouts), *map(self.proposals.get, proposals)]
        for call in (call for kept in found if kept is not None for call in kept.calls if not call.cached):
            meter.count(call.usage, calls=1 + call.usage.retries, estimate=estimated_tokens(call))
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


def _reply(call: PredictorCalled) -> LMReply:
    return LMReply(call.reply or "", call.tool_calls, usage=call.usage.as_cached(), cached=True)


def scored_key(event: CandidateScored) -> tuple[Any, ...]:
    """What is told once only."""
    return event.candidate, event.split, event.rows, event.step


def _may_pass(error: str | None) -> bool:
    kind = getattr(errors, (error or "").partition(":")[0], None)
    return isinstance(kind, type) and issubclass(kind, ModelError) and kind.retryable


def _key(call: PredictorCalled) -> str:
    return _text(call.predictor, call.model, call.rollout, call.messages)


def _text(*parts: Any) -> str:
    return json.dumps(plain(list(parts)), sort_keys=True, default=repr)
