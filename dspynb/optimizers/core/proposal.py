"""One proposal: a predictor is asked, and what it said, or why it said nothing, is one record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from dspynb.data import Prediction
from dspynb.errors import Halted, ParseError, shorten
from dspynb.events import ProposalEnded, SpanEnded, SpanStarted, new_span
from dspynb.modules.ordered_pool import result_or_error
from dspynb.modules.predict import Predict
from dspynb.redact import error_text, redact, redact_values
from dspynb.scope.budget import Allowance
from dspynb.scope.call_context import Sampling
from dspynb.scope.core import Layer, current_scope
from dspynb.scope.hints import mask

__all__ = ["Given", "ask"]

Given = Mapping[str, Any] | Callable[[], Awaitable[Mapping[str, Any]]]
"""A proposal's inputs, or what makes them: its calls are the proposal's own."""


async def ask(
    key: str, predict: Predict, inputs: Given, *, sampling: Sampling, lm: Any, funds: Allowance | None
) -> ProposalEnded:
    """Ask for what ``key`` names, sampled like this, with hints and candidates masked. ``lm``: the model of predictors
    without one, in place of the setting; None leaves the setting. A failure is part of the record; Halted and
    cancellations pass."""
    scope, span = current_scope(), new_span()
    parent = scope.open_span
    known = {} if callable(inputs) else redact_values(inputs)
    scope.emit(SpanStarted(span=span, parent=parent, kind="proposal", name=key, inputs=known))
    outputs, error, began = None, None, asyncio.get_running_loop().time()
    try:
        with mask() as masked:
            settings = masked.settings if lm is None else replace(masked.settings, lm=lm)
            context = replace(masked.context, sampling=sampling)
            with Layer(f"the proposal {key}", span=span, funds=funds, settings=settings, context=context):
                made = await result_or_error(_asked(predict, inputs))
    except Halted:
        scope.emit(SpanEnded(span=span, parent=parent, error="halted"))
        raise
    if isinstance(made, Exception):
        error = _failure(made)
    else:
        outputs = made.to_dict()
    seconds = asyncio.get_running_loop().time() - began
    ended = ProposalEnded(
        span=span, parent=parent, key=key, outputs=redact_values(outputs), error=error, seconds=seconds
    )
    scope.emit(ended)
    return ended


async def _asked(predict: Predict, inputs: Given) -> Prediction:
    given = await inputs() if callable(inputs) else inputs
    return await predict(**given)


def _failure(error: Exception) -> str:
    """A failed proposal as the run tells it, with the reply where there was one."""
    if isinstance(error, ParseError):
        return redact(f"{error.problem}. The reply was: {shorten(error.raw, 600)!r}")
    return error_text(error)
