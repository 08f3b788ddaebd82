"""Single flight: equal requests that are under way at the same time are sent once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from dspynb.errors import Halted
from dspynb.lm.base import LMReply

__all__ = ["Flights"]


class _Deserted(Exception):
    """The work that had sent the request was halted; that of this asker goes on."""


@dataclass(slots=True)
class _Flight:
    """One request under way, and how many wait for it."""

    task: asyncio.Task[LMReply]
    waiting: int = 0


class Flights:
    """Requests under way, by key, for each event loop.

    The request is a task of its own, so that an asker who is cancelled does not cancel the others; when the last one
    has gone, it is cancelled too.
    """

    def __init__(self) -> None:
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Flight]] = WeakKeyDictionary()

    async def join(self, key: str, send: Callable[[], Awaitable[LMReply]]) -> tuple[LMReply, bool]:
        """The reply, and whether this asker is the one whose request was sent.

        The one who asked first pays for a further try: where its run was stopped or its budget is spent, another asker
        sends the request anew.
        """
        while True:
            try:
                return await self._join(key, send)
            except _Deserted:
                continue

    async def _join(self, key: str, send: Callable[[], Awaitable[LMReply]]) -> tuple[LMReply, bool]:
        flights = self._loops.setdefault(asyncio.get_running_loop(), {})
        flight, first = flights.get(key), False
        if flight is None:
            flight, first = _Flight(asyncio.ensure_future(_as_coroutine(send))), True
            flights[key] = flight
            flight.task.add_done_callback(lambda _: flights.pop(key, None))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task), first
        except Halted as error:
            if first:
                raise
            raise _Deserted from error
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                flights.pop(key, None)
                flight.task.cancel()


async def _as_coroutine(send: Callable[[], Awaitable[LMReply]]) -> LMReply:
    return await send()
