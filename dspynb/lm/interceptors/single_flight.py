"""Single flight: equal requests that are pending at the same time are sent once."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from dspynb.errors import Halted, ModelError
from dspynb.lm.interceptors.budget import reserve_cost
from dspynb.lm.interceptors.chain import ModelCall, Proceed
from dspynb.lm.protocol import LMReply, with_usage
from dspynb.scope.call_context import Place

__all__ = ["SingleFlight"]


class _SenderHalted(Exception):
    """The call that sent the request was halted; a call that waits for the same reply was not."""


class _Flight:
    """One pending request and the calls that wait for its reply."""

    __slots__ = ("task", "waiters")

    def __init__(self, send: Callable[[], Coroutine[Any, Any, LMReply]]) -> None:
        self.waiters: list[asyncio.Future[LMReply]] = []
        self.task = asyncio.get_running_loop().create_task(self._send(send))

    async def _send(self, send: Callable[[], Coroutine[Any, Any, LMReply]]) -> None:
        """Send the request and give its reply or error to all waiters. A task callback would take one more iteration of
        the loop."""
        try:
            reply = await send()
        except asyncio.CancelledError:
            for waiter in self.waiters:
                waiter.cancel()
            raise
        except BaseException as error:  # raised in the waiting calls
            for waiter in self.waiters:
                if not waiter.done():
                    waiter.set_exception(error)
        else:
            for waiter in self.waiters:
                if not waiter.done():
                    waiter.set_result(reply)


class SingleFlight:
    """The pending requests of one model, by event loop and by key in the reply cache.

    Each request is sent in a task of its own. So the cancellation of one waiting call leaves the others alone; the task
    is cancelled when no call waits any more.
    """

    place = Place.SINGLE_FLIGHT

    def __init__(self) -> None:
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Flight]] = WeakKeyDictionary()

    def is_pending(self, key: str) -> bool:
        """Whether an equal request is pending in this event loop."""
        flights = self._loops.get(asyncio.get_running_loop())
        flight = None if flights is None else flights.get(key)
        return flight is not None and not flight.task.done()

    async def __call__(self, call: ModelCall, proceed: Proceed) -> LMReply:
        """Return the reply to this request, or as a cached reply that to an equal pending one.

        Streamed calls, and models without the cache, send every request.
        """
        if call.key is None or call.listener is not None:
            return await proceed(call)
        reply, sent = await self.join(call.key, partial(_send_reserved, call, proceed), partial(_release, call))
        return reply if sent else replace(reply, cached=True, usage=reply.usage.as_cached())

    async def join(
        self, key: str, send: Callable[[], Coroutine[Any, Any, LMReply]], on_wait: Callable[[], object] | None = None
    ) -> tuple[LMReply, bool]:
        """Send a request, or wait for an equal pending one. Returns the reply, and whether this call sent the request.

        The call that sent the request pays for it and for its retries. If that call is halted (its run was stopped or
        its budget is spent), a waiting call sends the request again. ``on_wait`` is called if this call waits.
        """
        while True:
            try:
                return await self._join(key, send, on_wait)
            except _SenderHalted:
                continue

    async def _join(
        self, key: str, send: Callable[[], Coroutine[Any, Any, LMReply]], on_wait: Callable[[], object] | None
    ) -> tuple[LMReply, bool]:
        loop = asyncio.get_running_loop()
        flights = self._loops.setdefault(loop, {})
        flight = flights.get(key)
        sender = False
        if flight is None or flight.task.done():
            flight = _Flight(send)
            flights[key] = flight
            sender = True
        elif on_wait is not None:
            on_wait()
        reply: asyncio.Future[LMReply] = loop.create_future()
        flight.waiters.append(reply)
        try:
            return await reply, sender
        except Halted as error:
            if sender:
                raise
            raise _SenderHalted from error
        except ModelError as error:
            if sender or error.usage is None:
                raise
            raise with_usage(copy.copy(error), error.usage, cached=True) from error  # the sender has paid for the call
        finally:
            flight.waiters.remove(reply)
            if flights.get(key) is flight and (flight.task.done() or not flight.waiters):
                del flights[key]
                flight.task.cancel()


async def _send_reserved(call: ModelCall, proceed: Proceed) -> LMReply:
    """Send a request. A call that has waited for another one reserves its cost now."""
    if call.scope.funded and (call.reservation is None or not call.reservation.amounts):
        call.flights = None  # this call is the one to whose reply others wait
        await reserve_cost(call)
    return await proceed(call)


def _release(call: ModelCall) -> None:
    """Give back what is reserved for a call that sends nothing itself."""
    if call.reservation is not None:
        call.reservation.cancel()
