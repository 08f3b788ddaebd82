"""One rollout: a program on a row, scored, as one record."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dspynb.data import Example, Prediction, Score
from dspynb.errors import Halted, WorkerLost
from dspynb.events import PredictorCalled, RolloutEnded, SpanEnded, SpanStarted, new_span
from dspynb.modules.module import Module
from dspynb.modules.ordered_pool import result_or_error
from dspynb.modules.scorer import Scorer
from dspynb.redact import error_text, redact_values
from dspynb.running.executor import Executor, elsewhere
from dspynb.running.reader import open_record
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import usage_of
from dspynb.running.tables.hints import HintUse
from dspynb.running.tracing import Trace
from dspynb.scope.budget import Allowance
from dspynb.scope.call_context import CallContext, RolloutId
from dspynb.scope.core import Layer, Scope, current_scope

__all__ = ["Rollout", "rollouts_on", "run_rollout"]


@dataclass(slots=True)
class Rollout:
    """What came of one: the record that is kept, and the prediction or error itself (none where it was read back)."""

    ended: RolloutEnded
    prediction: Prediction | None = None
    error: Exception | None = None
    calls: Sequence[PredictorCalled] = ()  # those of the program
    hints: Sequence[HintUse] = ()  # of an optimizer's: what became of the hints of its searches


async def run_rollout(
    program: Module,
    row: Example,
    inputs: Mapping[str, Any],
    metrics: Mapping[str, Scorer],
    *,
    number: int,
    repeat: int = 0,
    funds: Allowance | None = None,
    candidate: str | None = None,
    split: str | None = None,
    opened: int | None = None,
) -> Rollout:
    """Run the program on a row and score it with each metric; the first is the score. What fails is part of the result;
    Halted and cancellations pass. The program runs with rollout ``repeat``. The caller has taken the metric call.
    ``opened``: its span, where its beginning has been told."""
    scope, began, name = current_scope(), time.perf_counter(), _name(number, repeat)
    parent, span = scope.open_span, _begun(scope, row, number, name) if opened is None else opened
    trace, record, scores = Trace(), open_record(), dict[str, Score]()
    count, attempts = 0, 0
    prediction, error = None, None
    try:
        context = _context_of(scope, repeat) if repeat else None
        around, place = scope.nearest_lease, (number, repeat)
        with Layer(name, outer=around, context=context, span=span, trace=trace, funds=funds, row=place):
            result = await result_or_error(program(**inputs))
            count, attempts = len(record.calls), _ended_attempts(record, span)
            if isinstance(result, Exception):
                error = result
            else:
                prediction = result
                error = await _score(row, prediction, metrics, trace.calls, scores)
    except Halted:
        scope.emit(SpanEnded(span=span, parent=parent, error="halted"))
        raise
    calls, of_metrics = record.split_calls_in(span, count)
    first = next(iter(scores.values()), None) if error is None else None
    ended = RolloutEnded(
        span=span,
        parent=parent,
        row=number,
        repeat=repeat,
        outputs=None if prediction is None else redact_values(prediction.to_dict()),
        score=None if first is None else first.value,
        feedback=None if first is None else redact_values(first.feedback),
        parts={} if first is None else first.parts,
        metrics={name: score.value for name, score in scores.items()} if len(metrics) > 1 else {},
        error=None if error is None else error_text(error),
        seconds=time.perf_counter() - began,
        usage=usage_of(calls),
        metric_usage=usage_of(of_metrics),
        cached=bool(calls) and all(call.cached for call in calls),
        attempts=attempts,
        candidate=candidate,
        split=split,
    )
    scope.emit(ended)
    return Rollout(ended, prediction, error, trace.calls)


def rollouts_on(executor: Executor | None) -> Callable[..., Awaitable[Rollout]]:
    """``run_rollout`` as the executor runs it, itself for None. Its beginning is told when it is sent, so that rows are
    shown in their order; one that takes the workers down is a row that failed."""
    run = elsewhere(executor, run_rollout, once=("program", "metrics"))
    if run is run_rollout:
        return run

    async def sent(program: Module, row: Example, *given: Any, number: int, repeat: int = 0, **named: Any) -> Rollout:
        opened = _begun(current_scope(), row, number, _name(number, repeat))
        named |= {"number": number, "repeat": repeat, "opened": opened}
        try:
            return await run(program, row, *given, **named)
        except WorkerLost as error:
            return await run_rollout(_Lost(error), row, *given, **named)

    return sent


def _ended_attempts(record: RunRecord, span: int) -> int:
    if not record.attempts:
        return 0
    return sum(row.state not in ("running", "cancelled") for row in record.attempts_in(span))


class _Lost(Module):
    """In place of a program that could not be run."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def forward(self, **inputs: Any) -> Any:  # noqa: ARG002
        raise self._error


def _name(number: int, repeat: int) -> str:
    return f"row {number}" + (f", repeat {repeat}" if repeat else "")


def _begun(scope: Scope, row: Example, number: int, name: str) -> int:
    """Tell that a rollout begins; its span."""
    span, given = new_span(), redact_values(row.to_dict())
    scope.emit(SpanStarted(span=span, parent=scope.open_span, kind="row", name=name, inputs=given, row=number))
    return span


def _context_of(scope: Scope, repeat: int) -> CallContext:
    """Repeats are samples of their own; inside an attempt they have numbers that no other attempt's calls have."""
    outside = scope.context.sampling
    rollout = RolloutId(repeat) if scope.open_attempt is None else outside.rollout.child(repeat)
    return replace(scope.context, sampling=outside.with_rollout(rollout))


async def _score(
    row: Example,
    prediction: Prediction,
    metrics: Mapping[str, Scorer],
    calls: Sequence[PredictorCalled],
    scores: dict[str, Score],
) -> Exception | None:
    """Fill in the scores; the first metric that fails ends it with its error."""
    for name, metric in metrics.items():
        result = await result_or_error(metric(row, prediction, trace=calls))
        if isinstance(result, Exception):
            return result
        scores[name] = result
    return None
