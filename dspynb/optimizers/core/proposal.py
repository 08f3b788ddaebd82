"""One proposal: call a predictor, and emit a record with its outputs or its error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from dspynb.data import Prediction
from dspynb.errors import Halted, ParseError, shorten
from dspynb.events import ProposalEnded, SpanEnded, SpanStarted, new_span
from dspynb.lm.protocol import LMProtocol
from dspynb.modules.ordered_pool import result_or_error
from dspynb.modules.predict import Predict
from dspynb.modules.predictor_call import refuse_truncated
from dspynb.modules.shortening import call_shortened
from dspynb.redact import error_text, redact, redact_values
from dspynb.scope.allowances import Allowance
from dspynb.scope.call_context import Sampling
from dspynb.scope.core import Layer, current_scope
from dspynb.scope.hints import mask

__all__ = ["ProposalInputs", "make_proposal"]

ProposalInputs = Mapping[str, Any] | Callable[[], Awaitable[Mapping[str, Any]]]
"""A proposal's inputs, or an async function that returns them. The model calls of that function belong to the
proposal."""


async def make_proposal(
    key: str,
    predict: Predict,
    inputs: ProposalInputs,
    *,
    sampling: Sampling,
    lm: LMProtocol | str | None,
    funds: Allowance | None,
) -> ProposalEnded:
    """Call ``predict`` for the proposal ``key``, with hints and candidates masked, and emit ProposalEnded.

    ``lm``: the model of predictors without one, in place of the setting; None leaves the setting. Inputs that are too
    long for the model are shortened. A failure is part of the record; Halted and cancellations are raised.
    """
    scope = current_scope()
    span = new_span()
    parent = scope.open_span
    span_inputs = {} if callable(inputs) else redact_values(inputs)
    scope.emit(SpanStarted(span=span, parent=parent, kind="proposal", name=key, inputs=span_inputs))
    outputs = None
    error = None
    began = asyncio.get_running_loop().time()
    try:
        with mask("proposal") as masked:
            settings = masked.settings
            if lm is not None:
                settings = replace(settings, lm=lm)
            context = replace(masked.context, sampling=sampling)
            with Layer(f"the proposal {key}", span=span, funds=funds, settings=settings, context=context):
                result = await result_or_error(_call(predict, inputs))
    except Halted:
        scope.emit(SpanEnded(span=span, parent=parent, error="halted"))
        raise
    if isinstance(result, Exception):
        error = _error_text(result)
    else:
        outputs = result.to_dict()
    seconds = asyncio.get_running_loop().time() - began
    ended = ProposalEnded(
        span=span, parent=parent, key=key, outputs=redact_values(outputs), error=error, seconds=seconds
    )
    scope.emit(ended)
    return ended


async def _call(predict: Predict, inputs: ProposalInputs) -> Prediction:
    if callable(inputs):
        inputs = await inputs()
    prediction = await call_shortened(predict, inputs)
    refuse_truncated(prediction)
    return prediction


def _error_text(error: Exception) -> str:
    """An error as the run file has it, with the reply that could not be parsed, if there is one."""
    if isinstance(error, ParseError):
        return redact(f"{error.problem}. The reply was: {shorten(error.raw, 600)!r}")
    return error_text(error)
