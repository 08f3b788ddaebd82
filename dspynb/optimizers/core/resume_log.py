"""The resume log: results that the file of a resumed run holds, so that nothing is run or paid for twice."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from dspynb.lm.interceptors.budget import FREE_REFUSALS
from dspynb.lm.interceptors.chain import ModelCall, Proceed
from dspynb.lm.protocol import LMReply, LMRequest
from dspynb.lm.recorded_call import as_recorded, recorded_reply
from dspynb.running.record import RunRecord
from dspynb.scope.budget import Meter, estimated_tokens
from dspynb.scope.call_context import Place
from dspynb.scope.core import current_scope

__all__ = ["LoggedResult", "ResumeLog", "RolloutKey"]

RolloutKey = tuple[str, str, int, int]
"""Candidate id, split, row, repeat."""


@dataclass(frozen=True, slots=True)
class LoggedResult:
    """A rollout or proposal that ended before the run was interrupted. ``event``: RolloutEnded or ProposalEnded;
    ``calls``: its model calls. ``paid``: whether the budgets in force have counted them already."""

    event: Any
    calls: Sequence[PredictorCalled] = ()
    paid: bool = False

    def charge(self) -> None:
        """Charge the budgets in force as the calls were charged when they were made, so that a budget ends at the same
        place as in the uninterrupted run."""
        if self.paid:
            return
        scope = current_scope()
        for call in self.calls:
            if not call.cached:
                scope.admit(_calls_of_budget(call))
                scope.settle(call.usage, cached=False, estimate=estimated_tokens(call))


@dataclass
class ResumeLog:
    """Results of a run file by key; empty for a new run.

    ``record``: the record of that run. ``rollouts`` and ``proposals``: those that ended. ``proposed_ids`` and
    ``scored_keys``: candidates and scores whose events are in the file and are not emitted again.

    It is also an interceptor of model calls: it answers calls of rollouts and proposals that had not ended.
    """

    place = Place.RESUME_LOG

    record: RunRecord = field(default_factory=RunRecord)
    rollouts: dict[RolloutKey, LoggedResult] = field(default_factory=dict)
    proposals: dict[str, LoggedResult] = field(default_factory=dict)
    proposed_ids: set[str] = field(default_factory=set)
    scored_keys: set[tuple[Any, ...]] = field(default_factory=set)
    _unused_calls: dict[str, deque[PredictorCalled]] = field(default_factory=dict)  # request key → its calls
    _paid: frozenset[RolloutKey] = frozenset()

    @property
    def paid(self) -> Collection[RolloutKey]:
        """The rollouts that the budgets in force have counted already: those of a forecast in the same process."""
        return self._paid

    def mark_paid(self) -> None:
        """Note that the budgets in force have counted the rollouts already."""
        for key, logged in self.rollouts.items():
            self.rollouts[key] = replace(logged, paid=True)
        self._paid = frozenset(self.rollouts)

    @classmethod
    def from_record(cls, record: RunRecord) -> ResumeLog:
        """Read the resume log from the record of a run."""
        scored_keys = {scored_key(milestone.scored) for milestone in record.milestones}
        log = cls(record=record, proposed_ids=set(record.candidates), scored_keys=scored_keys)
        rollouts = {ended.span: ended for ended in record.rollouts if ended.candidate is not None}
        proposals = {ended.span: ended for ended in record.proposals}
        calls = log._assign_calls(record, {*rollouts, *proposals})
        for span, rollout in rollouts.items():
            key = (rollout.candidate or "", rollout.split or "", rollout.row, rollout.repeat)
            log.rollouts[key] = LoggedResult(rollout, tuple(calls.get(span, ())))
        for span, proposal in proposals.items():
            if not _is_retryable(proposal.error):  # else a provider was down, and the proposal is made again
                log.proposals[proposal.key] = LoggedResult(proposal, tuple(calls.get(span, ())))
        return log

    def _assign_calls(self, record: RunRecord, ended: Collection[int]) -> dict[int, list[PredictorCalled]]:
        """The calls of each rollout and proposal that ended, by its span.

        Other calls with a reply are put into ``_unused_calls``: they answer the same request when their rollout or
        proposal is run again.
        """
        calls: dict[int, list[PredictorCalled]] = {}
        for call in record.calls:
            owner = next((span for span in record.ancestors(call.span) if span in ended), None)
            # A cached call may have been answered from the log by an earlier resumption: the original has the costs.
            originals = self._unused_calls.get(_call_key(call)) if call.cached else None
            if owner is not None:
                calls.setdefault(owner, []).append(originals.popleft() if originals else call)
            elif call.reply is not None and not originals:
                self._unused_calls.setdefault(_call_key(call), deque()).append(call)
        return calls

    def charge(self, meter: Meter, rollouts: Collection[RolloutKey], proposals: Iterable[str]) -> None:
        """Charge a meter with these rollouts and proposals, as they would be charged when the run is resumed."""
        results = [*map(self.rollouts.get, rollouts), *map(self.proposals.get, proposals)]
        for result in results:
            if result is None:
                continue
            for call in result.calls:
                if not call.cached:
                    meter.count(call.usage, calls=_calls_of_budget(call), estimate=estimated_tokens(call))
        meter.count(Usage(), metric_calls=len(rollouts))

    async def __call__(self, call: ModelCall, proceed: Proceed) -> LMReply:
        """Answer from the log, charged as the call was then; without a logged call, ask the model."""
        if not self._unused_calls:
            return await proceed(call)
        return await _answer_or_proceed(self, call, proceed)

    def pop_call(self, path: str, model: str, request: LMRequest) -> PredictorCalled | None:
        """Remove and return a logged call with this request; None if there is none."""
        return self._pop(_request_key(path, model, request))

    def _pop(self, key: str) -> PredictorCalled | None:
        calls = self._unused_calls.get(key)
        if not calls:
            return None
        return calls.popleft()

    def for_snapshot(self) -> RemoteResumeLog | None:
        """The interceptor that stands for this one in another process; None where the file has no such calls."""
        return RemoteResumeLog() if self._unused_calls else None

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        """Answer a RemoteResumeLog: a logged call for the key in ``question["request"]``, as JSON."""
        call = self._pop(str(question["request"]))
        return None if call is None else to_json(call)


@dataclass(frozen=True)
class RemoteResumeLog:
    """The resume log in a worker process: it asks the run's process for the answer to every request."""

    place = Place.RESUME_LOG

    ask: Callable[[Mapping[str, Any]], Any] | None = None

    def for_snapshot(self) -> RemoteResumeLog:
        """A copy without a connection."""
        return RemoteResumeLog()

    def connected(self, ask: Callable[[Mapping[str, Any]], Any]) -> RemoteResumeLog:
        """A copy that asks through ``ask``."""
        return RemoteResumeLog(ask)

    async def __call__(self, call: ModelCall, proceed: Proceed) -> LMReply:
        """Answer from the log, charged as the call was then; without a logged call, ask the model."""
        return await _answer_or_proceed(self, call, proceed)

    def pop_call(self, path: str, model: str, request: LMRequest) -> PredictorCalled | None:
        """Remove and return a logged call with this request; None if there is none."""
        if self.ask is None:
            return None
        answer = self.ask({"request": _request_key(path, model, request)})
        if answer is None:
            return None
        call = from_json(answer)
        return call if isinstance(call, PredictorCalled) else None


_REFUSED = frozenset(kind.__name__ for kind in FREE_REFUSALS)


def _calls_of_budget(call: PredictorCalled) -> int:
    """The calls that budgets counted for a call: the call itself, whatever the usage of a custom model says, and its
    retries. A request that was refused without a bill counts as no call; its usage says so, in files of this
    version."""
    was_refused = call.reply is None and (call.error or "").partition(":")[0] in _REFUSED
    if was_refused and not call.usage.calls:
        return call.usage.retries
    return 1 + call.usage.retries


async def _answer_or_proceed(log: ResumeLog | RemoteResumeLog, call: ModelCall, proceed: Proceed) -> LMReply:
    logged = log.pop_call(call.path, call.model, call.request)
    if logged is None:
        return await proceed(call)
    LoggedResult(None, (logged,)).charge()
    return recorded_reply(logged)


def scored_key(event: CandidateScored) -> tuple[Any, ...]:
    """The fields that identify a CandidateScored event in a run."""
    return event.candidate, event.split, event.rows, event.step


def _is_retryable(error: str | None) -> bool:
    """Whether an error text of a run file names a model error that a retry may avoid."""
    kind = getattr(errors, (error or "").partition(":")[0], None)
    return isinstance(kind, type) and issubclass(kind, ModelError) and kind.retryable


def _call_key(call: PredictorCalled) -> str:
    return _key(call.predictor, call.model, call.rollout, call.messages)


def _request_key(path: str, model: str, request: LMRequest) -> str:
    return _key(path, model, request.rollout, as_recorded(request.messages))


def _key(*parts: object) -> str:
    return json.dumps(plain(list(parts)), sort_keys=True, default=repr)
