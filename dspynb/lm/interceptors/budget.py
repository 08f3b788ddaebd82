"""Admission and budgets: a call is reserved before it is sent, and its cost is counted when the reply arrives."""

from __future__ import annotations

import asyncio

from dspynb.data import Usage
from dspynb.errors import ContextTooLong, ModelError, ModelTimeout, UnsupportedParameter
from dspynb.lm.cost_bounds import largest_cost
from dspynb.lm.interceptors.chain import ModelCall, Proceed
from dspynb.lm.protocol import LMReply
from dspynb.scope.budget import missing_tokens
from dspynb.scope.call_context import Place

__all__ = ["BUDGET", "FREE_REFUSALS", "BudgetInterceptor", "is_free_refusal"]

FREE_REFUSALS = (ContextTooLong, UnsupportedParameter)
"""Errors of requests that a provider refuses before it calls the model."""


def is_free_refusal(error: Exception) -> bool:
    """Whether a provider refused a request without a bill. Such a request is no call of a budget."""
    return isinstance(error, FREE_REFUSALS) and error.usage is None


class BudgetInterceptor:
    """Admits a call to the runs and budgets around it, lets these runs cancel it while it is pending, and counts its
    cost, also that of a failed call. A request that the provider refuses without a bill counts as no call. One that was
    cancelled or timed out counts what it may have cost."""

    place = Place.BUDGET

    async def __call__(self, call: ModelCall, proceed: Proceed) -> LMReply:
        """Return the model's reply. Raises Halted if a run was stopped or a budget is spent."""
        scope = call.scope
        scope.admit()
        call.admitted = True
        if scope.funded:
            await _reserve(call)
        try:
            reply = await scope.in_flight(proceed(call))
        except ModelError as error:
            if is_free_refusal(error):
                scope.give_back(1)
            elif error.usage is not None and scope.funded:
                reply_text = f"{getattr(error, 'text', '')}{getattr(error, 'reasoning', None) or ''}"
                _settle(call, error.usage, reply_text, cached=error.cached)
            elif isinstance(error, ModelTimeout):
                _presume(call)
            raise
        except asyncio.CancelledError:
            _presume(call)
            raise
        else:
            if scope.funded:
                reply_text = f"{reply.text}{reply.reasoning or ''}"
                _settle(call, reply.usage, reply_text, cached=reply.cached)
            return reply
        finally:
            for reservation in call.reservations:
                reservation.cancel()


async def _reserve(call: ModelCall) -> None:
    """Reserve what a call may cost, where tokens or USD are limited. Raises BudgetExhausted."""
    scope = call.scope
    if not scope.ledgers():
        return
    try:
        call.reservations.append(await scope.in_flight(scope.reserve(largest_cost(call))))
    except BaseException:
        scope.give_back(1)
        call.admitted = False
        raise


def _presume(call: ModelCall) -> None:
    """Count what a request may have cost that was sent, and whose reply nobody has read: the provider bills it."""
    if call.reservations and (call.pending is None or call.pending.is_sent):
        call.scope.presume(call.reservations[0])


def _settle(call: ModelCall, usage: Usage, reply_text: str, *, cached: bool) -> None:
    reservation = call.reservations[0] if call.reservations else None
    estimate = 0 if cached else missing_tokens(usage, call.request.messages, reply_text)
    call.scope.settle(usage, cached=cached, estimate=estimate, reservation=reservation)


BUDGET = BudgetInterceptor()
