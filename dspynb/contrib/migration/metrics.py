"""Conversion of metrics and rewards that were written for DSPy.

DSPy passes arguments by position, and a trace only while it bootstraps. So a DSPy metric may test ``trace is None`` to
find out whether it evaluates. dspynb always passes ``trace=`` and ``predictor=``, by name, if a metric has these
parameters. A converted metric does not have them, unless it is one for GEPA.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from dspynb.agents.tools.callables import name_of
from dspynb.contrib.migration.names import kind_of
from dspynb.data import Prediction, Score
from dspynb.errors import InputError

__all__ = ["convert_metric", "max_failures_of", "user_reward"]

_GEPA_PARAMETER_COUNT = 5  # gold, pred, trace, pred_name, pred_trace


def convert_metric(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A metric ``(row, prediction)`` that calls the DSPy metric ``fn``.

    If ``fn`` returns a dspy.Prediction with ``score`` and ``feedback``, the metric returns a Score. Further parameters
    of ``fn`` without a default get None. If ``fn`` has five parameters, as metrics for GEPA do, the metric also accepts
    ``trace`` and ``predictor``, and can give feedback on one predictor: then ``pred_name`` is the path of the
    predictor, and the traces are lists of (path, inputs, prediction).
    """
    further_arguments = (None,) * (_required_count(fn) - 2)

    def score(row: Any, prediction: Any) -> Any:
        return _convert_result(fn(row, prediction, *further_arguments))

    def score_or_advise(row: Any, prediction: Any, *, trace: Sequence[Any] = (), predictor: str | None = None) -> Any:
        if predictor is None:
            return score(row, prediction)
        steps = [
            (call.predictor, dict(call.inputs), Prediction(call.outputs)) for call in trace if call.outputs is not None
        ]
        predictor_steps = [step for step in steps if step[0] == predictor]
        return _convert_result(fn(row, prediction, steps, predictor, predictor_steps))

    metric = score_or_advise if _accepts(fn, _GEPA_PARAMETER_COUNT) else score
    signature = inspect.signature(metric)
    functools.update_wrapper(metric, fn)
    metric.__name__ = name_of(fn)
    metric.__signature__ = signature  # type: ignore[attr-defined]  # by default it is that of the wrapped function
    return metric


def user_reward(fn: Callable[..., Any]) -> Any:
    """The reward that a user passed to dspy.BestOfN or dspy.Refine, which wrap it in a function ``fn``."""
    return inspect.getclosurevars(fn).nonlocals.get("reward_fn", fn)


def max_failures_of(search: Any) -> int | None:
    """How many attempts of a dspy.BestOfN or dspy.Refine may fail; None if all but one may."""
    if search.fail_count >= search.N - 1:
        return None
    return int(search.fail_count)


def _required_count(fn: Callable[..., Any]) -> int:
    """The number of positional arguments that a metric requires, at least 2. Raises InputError if it is no metric."""
    for count in range(2, _GEPA_PARAMETER_COUNT + 1):
        if _accepts(fn, count):
            return count
    raise InputError(f"{name_of(fn)} cannot be a metric: it is not called as metric(example, prediction)")


def _accepts(fn: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with this number of positional arguments."""
    try:
        inspect.signature(fn).bind(*[None] * count)
    except (TypeError, ValueError):  # it has other parameters, or is a builtin without a signature
        return False
    return True


def _convert_result(value: object) -> Any:
    return _await_score(value) if inspect.isawaitable(value) else _as_score(value)


async def _await_score(value: Awaitable[Any]) -> Any:
    return _as_score(await value)


def _as_score(value: Any) -> Any:
    if kind_of(value) is None or "score" not in value:
        return value
    feedback = value.get("feedback")
    if feedback is not None:
        feedback = str(feedback)
    parts = value.get("objective_scores")
    return Score(float(value["score"]), feedback=feedback, parts=dict(parts or {}))
