"""Single flight: equal requests that are under way at the same time are sent once."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from dspynb.errors import Halted, ModelError
from dspynb.lm.interceptors.chain import ModelCall, Proceed
from dspynb.lm.protocol import LMReply, with_usage
from dspynb.scope.call_context import Place

__all__ = ["SingleFlight"]


class _Deserted(Exception):
    """The work that had sent the request was halted; that of this asker goes on."""


class _Flight:
    """One request under way, and those who wait for it."""

    __slots__ = ("askers", "task")

    def __init__(self, send: Callable[[], Coroutine[Any, Any, LMReply]]) -> None:
        self.askers: list[asyncio.Future[LMReply]] = []
        self.task = asyncio.get_running_loop().create_task(self._fly(send))

    async def _fly(self, send: Callable[[], Coroutine[Any, Any, LMReply]]) -> None:
        """Ask, and give every asker the reply or the error; from the task itself, which saves a turn of the loop."""
        try:
            reply = await send()
        except asyncio.CancelledError:
            for asker in self.askers:
                asker.cancel()
            raise
        except BaseException as error:  # it is the askers' to handle
            for asker in self.askers:
                if not asker.done():
                    asker.set_exception(error)
        else:
            for asker in self.askers:
                if not asker.done():
                    asker.set_result(reply)


class SingleFlight:
    """The requests of one model that are under way, by their keys in the reply cache, for each event loop.

    The request is a task of its own, so that an asker who is cancelled does not cancel the others; when the last one
    has gone, it is cancelled too.
    """

    place = Place.SINGLE_FLIGHT

    def __init__(self) -> None:
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Flight]] = WeakKeyDictionary()

    async def __call__(self, call: ModelCall, proceed: Proceed) -> LMReply:
        """The reply to this request, or that to an equal one under way, as a cached one. Streamed calls, and models
        without the cache, send every request."""
        if call.key is None or call.listener is not None:
            return await proceed(call)
        reply, sent = await self.join(call.key, partial(proceed, call))
        return reply if sent else replace(reply, cached=True, usage=reply.usage.as_cached())

    async def join(self, key: str, send: Callable[[], Coroutine[Any, Any, LMReply]]) -> tuple[LMReply, bool]:
        """The reply, and whether this asker is the one whose request was sent.

        The one who asked first pays for a further try: where its run was stopped or its budget is spent, another asker
        sends the request anew.
        """
        while True:
            try:
                return await self._join(key, send)
            except _Deserted:
                continue

    async def _join(self, key: str, send: Callable[[], Coroutine[Any, Any, LMReply]]) -> tuple[LMReply, bool]:
        loop = asyncio.get_running_loop()
        flights = self._loops.setdefault(loop, {})
        flight, first = flights.get(key), False
        if flight is None or flight.task.done():
            flight, first = _Flight(send), True
            flights[key] = flight
        reply: asyncio.Future[LMReply] = loop.create_future()
        flight.askers.append(reply)
        try:
            return await reply, first
        except Halted as error:
            if first:
                raise
            raise _Deserted from error
        except ModelError as error:
            if first or error.usage is None:
                raise
            raise with_usage(copy.copy(error), error.usage, cached=True) from error  # the first asker has paid for it
        finally:
            flight.askers.remove(reply)
            if flights.get(key) is flight and (flight.task.done() or not flight.askers):
                del flights[key]
                flight.task.cancel()
