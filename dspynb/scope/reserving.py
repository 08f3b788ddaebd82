"""Reserving the cost of a request in all ledgers, and waiting for its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from dspynb.errors import BudgetExhausted
from dspynb.scope.amounts import NOTHING
from dspynb.scope.ledger import Ledger
from dspynb.scope.reservation import Reservation

__all__ = ["count_prompt", "leave", "reserve", "reserve_far"]

_PATIENCE = 5.0
"""Seconds for which a request waits for earlier steps while no request is under way."""


async def reserve(ledgers: Sequence[Ledger], request: Reservation) -> bool:
    """Reserve the cost of a request in all ledgers or in none, and wait for its turn where it must. Returns whether it
    had to wait. Raises BudgetExhausted."""
    in_order = True
    has_waited = False
    if request.changed is None:
        request.changed = asyncio.Event()
        request.loop = asyncio.get_running_loop()
    try:
        while True:
            request.changed.clear()
            if _take_from_all(ledgers, request, in_order=in_order):
                break
            has_waited = True
            in_order = await _is_woken(request.changed)
    except BaseException:
        leave(ledgers, request)
        raise
    _start(ledgers, request)
    return has_waited


def reserve_far(ledgers: Sequence[Ledger], request: Reservation) -> bool:
    """Reserve the cost of a request in all ledgers if their limits are far, else in none. Returns whether it did."""
    for ledger in ledgers:
        if not ledger.take_if_far(request):
            request.cancel()
            return False
    _start(ledgers, request)
    return True


def _start(ledgers: Sequence[Ledger], request: Reservation) -> None:
    if not request.is_started:
        request.is_started = True
        for ledger in ledgers:
            ledger.start(request)


async def _is_woken(changed: asyncio.Event) -> bool:
    """Wait for a change in a ledger, and return whether there was one within the time that steps may take on their own.
    A step can wait for something that a later one holds, such as a lock, and would otherwise wait for ever."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await changed.wait()
    except TimeoutError:
        return False
    return True


async def count_prompt(ledgers: Sequence[Ledger], request: Reservation) -> None:
    """Near a limit, replace the largest number of tokens of a prompt by the exact one, if it can be counted. No later
    request overtakes this one meanwhile; ``reserve`` or ``leave`` must follow."""
    count = request.count_prompt
    if count is None or all(ledger.is_far(request) for ledger in ledgers):
        return
    request.count_prompt = None
    for ledger in ledgers:
        ledger.wait(request)
    try:
        prompt = await asyncio.to_thread(count)
    except BaseException:
        leave(ledgers, request)
        raise
    if prompt is not None:
        request.cost = request.cost._replace(prompt=min(prompt, request.cost.prompt))


def leave(ledgers: Sequence[Ledger], request: Reservation) -> None:
    """Let a request wait no longer."""
    for ledger in ledgers:
        ledger.leave(request)


def _take_from_all(ledgers: Sequence[Ledger], request: Reservation, *, in_order: bool) -> bool:
    """Reserve in all ledgers, or in none."""
    taken: list[Ledger] = []
    try:
        for ledger in ledgers:
            if not ledger.take(request, in_order=in_order):
                break
            taken.append(ledger)
        else:
            return True
    except BudgetExhausted:
        _give_back(taken, request)
        raise
    _give_back(taken, request)
    return False


def _give_back(ledgers: Iterable[Ledger], request: Reservation) -> None:
    for ledger in ledgers:
        ledger.settle(request, NOTHING)
