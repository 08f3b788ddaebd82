"""Admission and budgets: a call is reserved before it is sent, and its cost is counted when the reply arrives."""

from __future__ import annotations

from dspynb.data import Usage
from dspynb.errors import ModelError
from dspynb.lm.interceptors.chain import ModelCall, Proceed
from dspynb.lm.protocol import LMReply
from dspynb.scope.budget import missing_tokens
from dspynb.scope.call_context import Place

__all__ = ["BUDGET", "BudgetInterceptor"]


class BudgetInterceptor:
    """Admits a call to the runs and budgets around it, lets these runs cancel it while it is pending, and counts its
    cost, also that of a failed call."""

    place = Place.BUDGET

    async def __call__(self, call: ModelCall, proceed: Proceed) -> LMReply:
        """Return the model's reply. Raises Halted if a run was stopped or a budget is spent."""
        scope = call.scope
        scope.admit()
        call.admitted = True
        try:
            reply = await scope.in_flight(proceed(call))
        except ModelError as error:
            if error.usage is not None and scope.funded:
                reply_text = f"{getattr(error, 'text', '')}{getattr(error, 'reasoning', None) or ''}"
                _settle(call, error.usage, reply_text, cached=error.cached)
            raise
        if scope.funded:
            _settle(call, reply.usage, f"{reply.text}{reply.reasoning or ''}", cached=reply.cached)
        return reply


def _settle(call: ModelCall, usage: Usage, reply_text: str, *, cached: bool) -> None:
    estimate = 0 if cached else missing_tokens(usage, call.request.messages, reply_text)
    call.scope.settle(usage, cached=cached, estimate=estimate)


BUDGET = BudgetInterceptor()
