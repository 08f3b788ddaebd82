"""Lanes: work that goes on side by side, and asks in an order that timing has no part in.

Source: conservative simulation of events that are spread over processes (Chandy and Misra 1979): a process acts once no
other can act at an earlier time. Here time is no clock's: it is the sum of what a lane's steps usually take.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Lane", "lanes_of"]


class Lane:
    """One of several lanes. ``done = await lane.turn(takes, *tasks)``: wait for tasks that take about so long, in any
    unit, and then for the lane's turn; what the tasks came to. From then to its next ``turn`` no other lane acts.

    Turns come by the times that were given, of equal ones the lower number first: so the order in which lanes act
    depends on what comes of their tasks, and not on when that comes. An error of a task too is raised in its turn.
    ``reserved``: what the lane may still need of something that is short.
    """

    def __init__(self, begin: float, number: int, lanes: list[Lane]) -> None:
        self._lanes, self._key = lanes, (begin, number)
        self._awaited: asyncio.Future[None] | None = None
        self.reserved = 0

    @property
    def others_reserved(self) -> int:
        """What the other lanes have reserved together."""
        return sum(lane.reserved for lane in self._lanes if lane is not self)

    async def turn(self, takes: float, *tasks: asyncio.Task[Any]) -> list[Any]:
        """Wait for the tasks, and for the turn."""
        self._key = (self._key[0] + takes, self._key[1])
        self._wake()
        if tasks:
            await asyncio.wait(tasks)
        if self is not self._first():
            self._awaited = asyncio.get_running_loop().create_future()
            await self._awaited
        return [task.result() for task in tasks]

    def leave(self) -> None:
        """The lane has ended; it acts no more."""
        self._lanes.remove(self)
        self._wake()

    def _first(self) -> Lane:
        return min(self._lanes, key=lambda lane: lane._key)

    def _wake(self) -> None:
        first = self._first() if self._lanes else self
        if first._awaited is not None:
            awaited, first._awaited = first._awaited, None
            if not awaited.done():
                awaited.set_result(None)


def lanes_of(count: int, *, apart: float = 0.0) -> list[Lane]:
    """So many lanes; each begins so much after the one before."""
    lanes: list[Lane] = []
    lanes += [Lane(number * apart, number, lanes) for number in range(count)]
    return list(lanes)
