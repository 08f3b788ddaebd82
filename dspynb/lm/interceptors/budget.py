"""Admission and budgets: a call is reserved before it is sent, and its cost is counted when the reply arrives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from functools import partial

from dspynb.data import Usage
from dspynb.errors import ContextTooLong, Halted, ModelError, ModelTimeout, UnsupportedParameter
from dspynb.lm.cache import default_cache
from dspynb.lm.cost_bounds import exact_prompt_tokens, largest_cost
from dspynb.lm.interceptors.chain import ModelCall, Proceed
from dspynb.lm.protocol import LMReply
from dspynb.scope.budget import missing_tokens
from dspynb.scope.call_context import Place
from dspynb.scope.clock import TimeLimit
from dspynb.scope.core import SpendingLimits
from dspynb.scope.ledger import Ledger
from dspynb.scope.reservation import RESERVATION, Reservation
from dspynb.scope.reserving import count_prompt, leave, reserve_far

__all__ = [
    "BUDGET",
    "FREE_REFUSALS",
    "BudgetInterceptor",
    "is_free_refusal",
    "reserve_cost",
    "settle",
    "settle_unknown",
]

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
        if not scope.funded:
            return await scope.in_flight(proceed(call))
        limits = scope.spending_limits()
        if not limits.clocks:
            return await self._send_funded(call, proceed, limits)
        async with TimeLimit(limits.clocks):
            return await self._send_funded(call, proceed, limits)

    async def _send_funded(self, call: ModelCall, proceed: Proceed, limits: SpendingLimits) -> LMReply:
        """Reserve what the call may cost, send it, and count what it cost."""
        cached = await _reserve(call, limits) if limits.ledgers or limits.clocks else None
        if cached is not None:
            return cached
        began = time.perf_counter()
        try:
            sending = proceed(call)
            if call.reservation is not None and call.may_nest:
                sending = _inside(call.reservation, sending)
            reply = await call.scope.in_flight(sending)
        except ModelError as error:
            _count_failed(call, error)
            raise
        except (asyncio.CancelledError, Halted):
            settle_unknown(call)
            raise
        else:
            settle(call, reply.usage, reply, cached=reply.cached)
        finally:
            if call.reservation is not None:
                call.reservation.close()
        if limits.clocks and not reply.cached:
            seconds = reply.usage.seconds or time.perf_counter() - began
            for clock in limits.clocks:
                clock.note(call.model, seconds / (1 + reply.usage.retries))
        return reply


async def _reserve(call: ModelCall, limits: SpendingLimits) -> LMReply | None:
    """Reserve what a call may cost, where tokens or USD are limited, unless an equal request is pending. Returns the
    reply to an equal request that has arrived meanwhile, or None. Raises BudgetExhausted, also for a call that is
    expected to end after the time of a budget."""
    scope = call.scope
    try:
        for clock in limits.clocks:
            clock.check(call.model)
        has_waited = not call.is_shared and await reserve_cost(call, limits)
        if not has_waited or call.key is None:
            return None
        reply = await scope.in_flight(default_cache().get(call.key))
    except BaseException:
        scope.give_back(1)
        call.admitted = False
        if call.reservation is not None:
            call.reservation.close()
        raise
    if reply is not None:
        scope.settle(reply.usage, cached=True, reservation=call.reservation)
    return reply


async def reserve_cost(call: ModelCall, limits: SpendingLimits | None = None) -> bool:
    """Reserve what a call may cost in the budgets of tokens and USD in force. Returns whether it had to wait for its
    turn. ``limits``: those in force; None if they are to be looked up. Raises BudgetExhausted."""
    scope = call.scope
    if call.reservation is not None:
        return await scope.in_flight(scope.reserve(call.reservation))
    ledgers, _, steps = limits or scope.spending_limits()
    if not ledgers:
        return False
    cost = largest_cost(call, with_prices=_limit_usd(ledgers))
    reservation = scope.reservation(cost, steps, partial(exact_prompt_tokens, call))
    if reserve_far(ledgers, reservation):
        call.reservation = reservation
        return False
    await scope.in_flight(count_prompt(ledgers, reservation))
    if call.is_shared:
        leave(ledgers, reservation)
        return False
    has_waited = await scope.in_flight(scope.reserve(reservation))
    call.reservation = reservation
    return has_waited


def _limit_usd(ledgers: Sequence[Ledger]) -> bool:
    return any(ledger.limits_usd for ledger in ledgers)


async def _inside(reservation: Reservation, reply: Awaitable[LMReply]) -> LMReply:
    """Await a reply. Requests that a model of one's own makes meanwhile are made inside this one."""
    token = RESERVATION.set(reservation)
    try:
        return await reply
    finally:
        RESERVATION.reset(token)


def settle_unknown(call: ModelCall) -> None:
    """Count what the last try of a call may have cost whose reply nobody has read, if it was sent, since the provider
    bills it. It is noted on the call."""
    if call.reservation is None or not call.is_sent:
        return
    amounts = call.scope.settle_unknown(call.reservation)
    if any(amounts):
        prompt = int(min(call.reservation.cost.prompt, amounts.tokens))
        usage = Usage(0, prompt, int(amounts.tokens) - prompt, usd=amounts.usd)
        call.estimated_usage = usage if call.estimated_usage is None else call.estimated_usage + usage


def _count_failed(call: ModelCall, error: ModelError) -> None:
    """Count what a call cost that has failed; what it may have cost if it timed out."""
    if is_free_refusal(error):
        call.scope.give_back(1)
    elif error.usage is not None:
        settle(call, error.usage, error, cached=error.cached)
    elif isinstance(error, ModelTimeout):
        settle_unknown(call)


def settle(call: ModelCall, usage: Usage, reply: LMReply | ModelError, *, cached: bool = False) -> None:
    """Count the usage of the last try of a call. ``reply``: its reply, or the error of one that cannot be used."""
    estimate = 0
    if usage.tokens is None and not cached:
        text = f"{getattr(reply, 'text', '')}{getattr(reply, 'reasoning', None) or ''}"
        estimate = missing_tokens(usage, call.request.messages, text)
    call.scope.settle(usage, cached=cached, estimate=estimate, reservation=call.reservation)


BUDGET = BudgetInterceptor()
