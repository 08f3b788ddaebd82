"""Admission and budgets: a call is taken before it is sent, and its cost is counted when the reply is there."""

from __future__ import annotations

from dspynb.data import Usage
from dspynb.errors import ModelError
from dspynb.lm.interceptors.chain import ModelCall, Proceed
from dspynb.lm.protocol import LMReply
from dspynb.scope.budget import missing_tokens
from dspynb.scope.call_context import Place

__all__ = ["BUDGET", "BudgetInterceptor"]


class BudgetInterceptor:
    """Asks the runs and budgets around a call whether it may start. While it is under way, these runs can cancel it.
    What it cost is counted also where the reply turns out to be no answer."""

    place = Place.BUDGET

    async def __call__(self, call: ModelCall, proceed: Proceed) -> LMReply:
        """The reply. Raises Halted where the call may not start."""
        scope = call.scope
        scope.admit()
        call.admitted = True
        try:
            reply = await scope.in_flight(proceed(call))
        except ModelError as error:
            if error.usage is not None and scope.funded:
                written = str(getattr(error, "text", ""))
                _settle(call, error.usage, written, cached=error.cached)
            raise
        if scope.funded:
            _settle(call, reply.usage, f"{reply.text}{reply.reasoning or ''}", cached=reply.cached)
        return reply


def _settle(call: ModelCall, usage: Usage, written: str, *, cached: bool) -> None:
    estimate = 0 if cached else missing_tokens(usage, call.request.messages, written)
    call.scope.settle(usage, cached=cached, estimate=estimate)


BUDGET = BudgetInterceptor()
