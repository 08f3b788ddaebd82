"""One scored attempt of a search: BestOfN and Refine make several."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dspynb.data import Example, Prediction, Score, Usage
from dspynb.dataclass_init import fast_init
from dspynb.errors import ConfigurationError, Halted, InputError
from dspynb.events import AttemptEnded, AttemptStarted, Hint, PredictorCalled, new_span
from dspynb.modules.forward import recorded_outputs
from dspynb.redact import error_text, redact_values
from dspynb.running.tracing import Trace
from dspynb.running.user_code import as_exception
from dspynb.running.waiting import only_waited
from dspynb.scope.allowances import Allowance
from dspynb.scope.call_context import RolloutId
from dspynb.scope.core import Attempt, HintLayer, Layer, Scope, current_scope

if TYPE_CHECKING:
    from dspynb.modules.module import Module
    from dspynb.modules.scorer import Scorer

__all__ = ["AttemptPlan", "AttemptResult", "cancelled_attempt", "make_attempt"]


@fast_init
@dataclass(frozen=True, slots=True)
class AttemptPlan:
    """The number of an attempt and the settings of its calls."""

    number: int
    wave: int
    hint: HintLayer | None = None
    displayed_hint: Hint = None
    """The hint as tables show it."""
    temperature: float | None = None
    hint_by: str = ""
    """``person`` if a person suggested the hint, else empty."""
    span: int = field(default_factory=new_span)


@fast_init
@dataclass(frozen=True, slots=True)
class AttemptResult:
    """A finished attempt: its number, hint and calls, and a scored prediction or an error (or a prediction and an error
    if the reward failed)."""

    number: int
    wave: int
    hint: Hint
    prediction: Prediction | None
    score: Score | None
    error: Exception | None
    calls: tuple[PredictorCalled, ...]
    seconds: float
    waited: float
    span: int
    mistake: bool = False  # whether the caller made a mistake, so that another attempt could not help

    @property
    def usage(self) -> Usage:
        """The usage of the attempt's own calls."""
        return sum((call.usage for call in self.calls), Usage())

    @property
    def feedback(self) -> str | None:
        """The feedback of the reward, or None."""
        return None if self.score is None else self.score.feedback

    def meets(self, threshold: float | None) -> bool:
        """Whether the score reaches the threshold. False without a threshold or a score."""
        return threshold is not None and self.score is not None and self.score.value >= threshold


async def make_attempt(
    program: Module,
    inputs: Mapping[str, Any],
    reward: Scorer,
    plan: AttemptPlan,
    *,
    threshold: float | None,
    funds: Allowance | None = None,
) -> AttemptResult:
    """Run the program once under the plan's hint and rollout, and score its prediction.

    ``funds``: the calls that the attempt may make; None where calls are not limited. An error of the program or the
    reward is part of the result. Stops and cancellations are raised.
    """
    scope = current_scope()
    parent = scope.open_span
    began = time.perf_counter()
    scope.emit(_attempt_started(plan, parent))
    trace = Trace()
    prediction: Prediction | None = None
    score: Score | None = None
    error: Exception | None = None
    with _attempt_layer(scope, plan, trace, funds):
        try:
            prediction = await program(**inputs)
            score = await reward(Example(inputs), prediction, trace=trace.calls)
        except BaseException as raised:
            failure = as_exception(raised, "the program")
            if isinstance(failure, Halted) or not isinstance(failure, Exception):
                scope.emit(cancelled_attempt(plan.span, parent, time.perf_counter() - began))
                raise
            error = failure
    calls = tuple(trace.calls)
    waited = only_waited(calls)
    result = AttemptResult(
        number=plan.number,
        wave=plan.wave,
        hint=plan.displayed_hint,
        prediction=prediction,
        score=score,
        error=error,
        calls=calls,
        seconds=max(0.0, time.perf_counter() - began - waited),
        waited=waited,
        span=plan.span,
        mistake=_is_mistake(error, trace),
    )
    scope.emit(_attempt_ended(result, parent, threshold))
    return result


def _is_mistake(error: Exception | None, trace: Trace) -> bool:
    """Whether another attempt could not help: a setting is wrong, or an input is, before any call was made."""
    if isinstance(error, ConfigurationError):
        return True
    return isinstance(error, InputError) and not trace.calls


def _attempt_layer(scope: Scope, plan: AttemptPlan, trace: Trace, funds: Allowance | None) -> Layer:
    sampling = scope.context.sampling.with_temperature(plan.temperature).with_rollout(_rollout(scope, plan))
    return Layer(
        f"attempt {plan.number}",
        span=plan.span,
        trace=trace,
        hints=plan.hint,
        funds=funds,
        attempt=Attempt(plan.number, plan.wave),
        context=scope.context.in_attempt(sampling),
    )


def _rollout(scope: Scope, plan: AttemptPlan) -> RolloutId:
    """The rollout of attempt i: i - 1. Inside another attempt or sample it is a child of that rollout, which no other
    call has."""
    outside = scope.context.sampling.rollout
    n = plan.number - 1
    if scope.open_attempt is None and outside.number == 0:
        return RolloutId(n)
    return outside.child(n)


def _attempt_started(plan: AttemptPlan, parent: int) -> AttemptStarted:
    return AttemptStarted(
        span=plan.span,
        parent=parent,
        attempt=plan.number,
        wave=plan.wave,
        hint=redact_values(plan.displayed_hint),
        hint_by=plan.hint_by,
    )


def _attempt_ended(result: AttemptResult, parent: int, threshold: float | None) -> AttemptEnded:
    values: dict[str, Any] = {"state": "failed"}
    if result.score is not None:
        values["state"] = "passed" if result.meets(threshold) else "scored"
        values["score"] = result.score.value
        values["feedback"] = redact_values(result.score.feedback)
        values["parts"] = result.score.parts
    if result.prediction is not None:
        values["outputs"] = redact_values(recorded_outputs(result.prediction))
    if result.error is not None:
        values["error"] = error_text(result.error)
    return AttemptEnded(span=result.span, parent=parent, seconds=result.seconds, waited=result.waited, **values)


def cancelled_attempt(span: int, parent: int, seconds: float) -> AttemptEnded:
    """The event of an attempt that does not count: without outputs and score, even if it had them."""
    return AttemptEnded(span=span, parent=parent, state="cancelled", seconds=seconds)
