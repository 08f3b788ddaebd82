"""One scored attempt: what BestOfN and Refine are both made of."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dspynb.data import Example, Prediction, Score, Usage
from dspynb.errors import ConfigurationError, Halted, InputError
from dspynb.events import AttemptEnded, AttemptStarted, Hint, PredictorCalled, new_span
from dspynb.redact import error_text, redact_values
from dspynb.running.tracing import Trace
from dspynb.running.user_code import as_exception
from dspynb.scope.budget import Allowance
from dspynb.scope.call_context import RolloutId
from dspynb.scope.core import Attempt, HintLayer, Layer, Scope, current_scope

if TYPE_CHECKING:
    from dspynb.modules.module import Module
    from dspynb.modules.scorer import Scorer

__all__ = ["AttemptPlan", "AttemptResult", "cancelled_attempt", "make_attempt"]


@dataclass(frozen=True, slots=True)
class AttemptPlan:
    """Which attempt to make, under which hint. ``shown``: the hint as tables show it; ``hint_by``: who gave it."""

    number: int
    wave: int
    hint: HintLayer | None = None
    shown: Hint = None
    temperature: float | None = None
    funds: Allowance | None = None
    hint_by: str = ""
    span: int = field(default_factory=new_span)


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """A finished attempt: its number, hint, calls, and a scored prediction or an error (or both, when the reward
    failed)."""

    number: int
    wave: int
    hint: Hint
    prediction: Prediction | None
    score: Score | None
    error: Exception | None
    calls: tuple[PredictorCalled, ...]
    seconds: float
    span: int
    mistake: bool = False  # the caller's: another attempt could not help

    @property
    def usage(self) -> Usage:
        """What the attempt's own calls cost."""
        return sum((call.usage for call in self.calls), Usage())

    @property
    def feedback(self) -> str | None:
        """The reward's words, or what was wrong with the reply."""
        return None if self.score is None else self.score.feedback

    def meets(self, threshold: float | None) -> bool:
        """Whether the score reaches the threshold; never, without a threshold or a score."""
        return threshold is not None and self.score is not None and self.score.value >= threshold


async def make_attempt(
    program: Module, inputs: Mapping[str, Any], reward: Scorer, plan: AttemptPlan, threshold: float | None
) -> AttemptResult:
    """Run the program once under the plan's hint and rollout, and score what came out.

    An error of the program or the reward is part of the result. Stops and cancellations pass through.
    """
    scope, span, began = current_scope(), plan.span, time.perf_counter()
    started = AttemptStarted(
        span=span,
        parent=scope.open_span,
        attempt=plan.number,
        wave=plan.wave,
        hint=redact_values(plan.shown),
        hint_by=plan.hint_by,
    )
    scope.emit(started)
    trace = Trace()
    prediction, score, error, mistake = None, None, None, False
    with _attempt_layer(scope, plan, span, trace):
        try:
            prediction = await program(**inputs)
            score = await reward(Example(inputs), prediction, trace=trace.calls)
        except BaseException as caught:
            failed = as_exception(caught, "the program")
            if isinstance(failed, Halted) or not isinstance(failed, Exception):
                scope.emit(cancelled_attempt(span, started.parent, time.perf_counter() - began))
                raise
            error, mistake = failed, _callers_mistake(failed, trace)
    result = AttemptResult(
        plan.number,
        plan.wave,
        plan.shown,
        prediction,
        score,
        error,
        tuple(trace.calls),
        time.perf_counter() - began,
        span,
        mistake,
    )
    scope.emit(_ended(result, started.parent, threshold))
    return result


def _callers_mistake(error: Exception, trace: Trace) -> bool:
    """Whether another attempt could not help: no model was ever asked, or the settings are wrong."""
    return isinstance(error, ConfigurationError) or (isinstance(error, InputError) and not trace.calls)


def _attempt_layer(scope: Scope, plan: AttemptPlan, span: int, trace: Trace) -> Layer:
    sampling = scope.context.sampling.with_temperature(plan.temperature).with_rollout(_rollout(scope, plan))
    return Layer(
        f"attempt {plan.number}",
        span=span,
        trace=trace,
        hints=plan.hint,
        funds=plan.funds,
        attempt=Attempt(plan.number, plan.wave),
        context=scope.context.in_attempt(sampling),
    )


def _rollout(scope: Scope, plan: AttemptPlan) -> RolloutId:
    """i - 1; inside another attempt or sample a number that neither its own calls nor those of other attempts have."""
    outside = scope.context.sampling.rollout
    n = plan.number - 1
    if scope.open_attempt is None and outside.number == 0:
        return RolloutId(n)
    return outside.child(n)


def _ended(result: AttemptResult, parent: int, threshold: float | None) -> AttemptEnded:
    score = result.score
    state = "failed" if score is None else "passed" if result.meets(threshold) else "scored"
    return AttemptEnded(
        span=result.span,
        parent=parent,
        state=state,
        outputs=None if result.prediction is None else redact_values(result.prediction.to_dict()),
        score=None if score is None else score.value,
        feedback=None if score is None else redact_values(score.feedback),
        parts={} if score is None else score.parts,
        error=None if result.error is None else error_text(result.error),
        seconds=result.seconds,
    )


def cancelled_attempt(span: int, parent: int, seconds: float) -> AttemptEnded:
    """The record of an attempt that counts for nothing: no outputs and no score, even if it had them."""
    return AttemptEnded(span=span, parent=parent, state="cancelled", seconds=seconds)
