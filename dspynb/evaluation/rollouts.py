"""One rollout: run a program on a row, score the prediction, and emit the result as an event."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dspynb.data import Example, Prediction, Score
from dspynb.errors import Halted, WorkerLost
from dspynb.events import PredictorCalled, RolloutEnded, SpanEnded, SpanStarted, new_span
from dspynb.modules.forward import recorded_outputs
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
from dspynb.running.waiting import only_waited
from dspynb.scope.allowances import Allowance
from dspynb.scope.call_context import CallContext, RolloutId
from dspynb.scope.core import Layer, Scope, current_scope

__all__ = ["Rollout", "rollouts_on", "run_rollout"]


@dataclass(slots=True)
class Rollout:
    """The result of a rollout."""

    ended: RolloutEnded
    """The event that the run records."""
    prediction: Prediction | None = None
    """None if the rollout failed, or was read from a run file."""
    error: Exception | None = None
    """None if the rollout succeeded, or was read from a run file."""
    calls: Sequence[PredictorCalled] = ()
    """The calls of the program, without those of the metrics."""
    hints: Sequence[HintUse] = ()
    """In an optimizer: how the hints of the searches in the program were used."""


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
    """Run the program on a row and score the prediction with each metric; the first metric gives the score.

    ``inputs``: what to pass to the program. ``number``: of the row. ``repeat``: of the rollout of this row; the program
    runs with this rollout id. ``funds``: this rollout's share of a budget. ``candidate`` and ``split``: recorded with
    the result. ``opened``: the number of the rollout's span, if the caller has emitted its SpanStarted. The caller has
    taken the metric call from the budget.

    An error of the program or of a metric is part of the result; Halted and cancellations are raised.
    """
    scope = current_scope()
    began = time.perf_counter()
    name = _name(number, repeat)
    parent = scope.open_span
    span = _open_span(scope, row, number, name) if opened is None else opened
    trace = Trace()
    record = open_record()
    scores: dict[str, Score] = {}
    program_calls = attempts = 0
    prediction = error = None
    try:
        context = _context_of(scope, repeat) if repeat else None
        lease = scope.nearest_lease
        with Layer(name, outer=lease, context=context, span=span, trace=trace, funds=funds, row=(number, repeat)):
            result = await result_or_error(program(**inputs))
            program_calls = len(record.calls)
            attempts = _ended_attempts(record, span)
            if isinstance(result, Exception):
                error = result
            else:
                prediction = result
                error = await _score(row, prediction, metrics, trace.calls, scores)
    except Halted:
        scope.emit(SpanEnded(span=span, parent=parent, error="halted"))
        raise
    calls, metric_calls = record.split_calls_in(span, program_calls)
    waited = only_waited([*calls, *metric_calls] if metric_calls else calls)
    ended = RolloutEnded(
        span=span,
        parent=parent,
        row=number,
        repeat=repeat,
        **_result_fields(prediction, error, scores),
        metrics={name: score.value for name, score in scores.items()} if len(metrics) > 1 else {},
        seconds=max(0.0, time.perf_counter() - began - waited),
        usage=usage_of(calls),
        metric_usage=usage_of(metric_calls),
        cached=bool(calls) and all(call.cached for call in calls),
        attempts=attempts,
        candidate=candidate,
        split=split,
        waited=waited,
    )
    scope.emit(ended)
    return Rollout(ended, prediction, error, _without_second_list(trace.calls, prediction))


def _without_second_list(calls: Sequence[PredictorCalled], prediction: Prediction | None) -> Sequence[PredictorCalled]:
    """The calls of a rollout. If the prediction has the same ones, as nearly always, they are the prediction's own
    tuple, since each object that a row keeps makes the garbage collection of a large evaluation longer."""
    if isinstance(prediction, Prediction) and prediction.meta.calls == tuple(calls):
        return prediction.meta.calls
    return calls


def _result_fields(
    prediction: Prediction | None, error: Exception | None, scores: Mapping[str, Score]
) -> dict[str, Any]:
    """The fields of RolloutEnded that hold the outputs, and the error or the first score."""
    fields: dict[str, Any] = {}
    if prediction is not None:
        fields["outputs"] = redact_values(recorded_outputs(prediction))
    if error is not None:
        fields["error"] = error_text(error)
    elif scores:
        score = next(iter(scores.values()))
        fields["score"] = score.value
        fields["feedback"] = redact_values(score.feedback)
        fields["parts"] = score.parts
    return fields


def rollouts_on(executor: Executor | None) -> Callable[..., Awaitable[Rollout]]:
    """``run_rollout`` on an executor, with the same arguments; ``run_rollout`` itself for None.

    The span of a rollout begins when the rollout is sent, so that views show rows in their order. If the workers that
    run a rollout die (WorkerLost), its row is recorded as failed.
    """
    run = elsewhere(executor, run_rollout, once=("program", "metrics"))
    if run is run_rollout:
        return run

    async def send(program: Module, row: Example, *args: Any, number: int, repeat: int = 0, **kwargs: Any) -> Rollout:
        opened = _open_span(current_scope(), row, number, _name(number, repeat))
        kwargs |= {"number": number, "repeat": repeat, "opened": opened}
        try:
            return await run(program, row, *args, **kwargs)
        except WorkerLost as error:
            # Record the failure as if the program had raised it.
            return await run_rollout(_RaisingModule(error), row, *args, **kwargs)

    return send


def _ended_attempts(record: RunRecord, span: int) -> int:
    if not record.attempts:
        return 0
    return sum(row.state not in ("running", "cancelled") for row in record.attempts_in(span))


class _RaisingModule(Module):
    """A program that raises an error. It stands for a program that could not be run."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def forward(self, **inputs: Any) -> Any:  # noqa: ARG002
        raise self._error


def _name(number: int, repeat: int) -> str:
    if repeat:
        return f"row {number}, repeat {repeat}"
    return f"row {number}"


def _open_span(scope: Scope, row: Example, number: int, name: str) -> int:
    """Emit that the span of a rollout has started, and return its number."""
    span = new_span()
    fields = redact_values(row.to_dict())
    scope.emit(SpanStarted(span=span, parent=scope.open_span, kind="row", name=name, inputs=fields, row=number))
    return span


def _context_of(scope: Scope, repeat: int) -> CallContext:
    """The context with the rollout id of a repeat. Inside an attempt, the id differs from those of other attempts."""
    sampling = scope.context.sampling
    rollout = RolloutId(repeat) if scope.open_attempt is None else sampling.rollout.child(repeat)
    return replace(scope.context, sampling=sampling.with_rollout(rollout))


async def _score(
    row: Example,
    prediction: Prediction,
    metrics: Mapping[str, Scorer],
    calls: Sequence[PredictorCalled],
    scores: dict[str, Score],
) -> Exception | None:
    """Add the score of each metric to ``scores``. Stops at the first metric that fails and returns its error."""
    for name, metric in metrics.items():
        result = await result_or_error(metric(row, prediction, trace=calls))
        if isinstance(result, Exception):
            return result
        scores[name] = result
    return None
