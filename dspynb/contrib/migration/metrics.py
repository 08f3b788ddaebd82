"""A metric or reward written for DSPy, as one that dspynb calls.

DSPy passes arguments by position, and a ``trace`` only while it bootstraps; dspynb passes ``trace=`` and
``predictor=`` by name, always. So ``trace is None``, by which a metric of DSPy's knows that it is to evaluate, would
never be true.
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

__all__ = ["failures_of", "metric_of", "written_reward"]

_OF_GEPA = 5  # gold, pred, trace, pred_name, pred_trace


def metric_of(fn: Callable[..., Any]) -> Callable[..., Any]:
    """``fn(row, prediction)``, its result as a Score where it is a dspy.Prediction with ``score`` and ``feedback``.

    Further parameters without a default get None. One that takes five, as GEPA's do, is also asked for feedback on one
    predictor: then ``pred_name`` is its path, and traces are lists of (path, inputs, prediction).
    """
    missing = (None,) * (_required(fn) - 2)

    def score(row: Any, prediction: Any) -> Any:
        return _read(fn(row, prediction, *missing))

    def score_or_advise(row: Any, prediction: Any, *, trace: Sequence[Any] = (), predictor: str | None = None) -> Any:
        if predictor is None:
            return score(row, prediction)
        past = [(c.predictor, dict(c.inputs), Prediction(c.outputs)) for c in trace if c.outputs is not None]
        return _read(fn(row, prediction, past, predictor, [step for step in past if step[0] == predictor]))

    metric = score_or_advise if _takes(fn, _OF_GEPA) else score
    own = inspect.signature(metric)
    functools.update_wrapper(metric, fn)
    metric.__name__, metric.__signature__ = name_of(fn), own  # type: ignore[attr-defined]  # not the wrapped one's
    return metric


def written_reward(fn: Any) -> Any:
    """The user's reward, which a dspy.BestOfN or dspy.Refine keeps inside a function of its own."""
    return inspect.getclosurevars(fn).nonlocals.get("reward_fn", fn)


def failures_of(search: Any) -> int | None:
    """How many attempts of a dspy.BestOfN or dspy.Refine may fail; None where all but one may."""
    return int(search.fail_count) if search.fail_count < search.N - 1 else None


def _required(fn: Callable[..., Any]) -> int:
    """How many arguments it must be given by position: at least 2. Raises InputError where it cannot take two."""
    for count in range(2, _OF_GEPA + 1):
        if _takes(fn, count):
            return count
    raise InputError(f"{name_of(fn)} cannot be a metric: it is not called as metric(example, prediction)")


def _takes(fn: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(fn).bind(*[None] * count)
    except (TypeError, ValueError):  # other parameters, or a builtin that tells none
        return False
    return True


def _read(value: Any) -> Any:
    return _later(value) if inspect.isawaitable(value) else _as_score(value)


async def _later(value: Awaitable[Any]) -> Any:
    return _as_score(await value)


def _as_score(value: Any) -> Any:
    if kind_of(value) is None or "score" not in value:
        return value
    feedback, parts = value.get("feedback"), value.get("objective_scores")
    return Score(float(value["score"]), feedback=None if feedback is None else str(feedback), parts=dict(parts or {}))
