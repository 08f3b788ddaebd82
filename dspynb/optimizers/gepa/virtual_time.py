"""Virtual time: several lanes of work run concurrently and act in an order that does not depend on timing.

Source: conservative simulation of distributed events (Chandy and Misra 1979): a process acts once no other can act at
an earlier time. Virtual time is not measured: it is the sum of what the steps of a lane usually take.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Lane", "make_lanes"]


class Lane:
    """One of several lanes of work. The lane with the smallest virtual time acts next; ties by number.

    ``results = await lane.turn(duration, *tasks)`` waits for the tasks and then for the lane's turn. No other lane acts
    until the lane's next ``turn``. So the order in which lanes act depends on the results of their tasks, and not on
    when those are ready. An error of a task is raised in the lane's turn too. ``reserved``: how much of a shared
    resource the lane may still need.
    """

    def __init__(self, begin: float, number: int, lanes: list[Lane]) -> None:
        self._lanes = lanes
        self._key = (begin, number)  # virtual time, number
        self._turn_ready: asyncio.Future[None] | None = None
        self.reserved = 0

    @property
    def others_reserved(self) -> int:
        """How much all other lanes have reserved."""
        return sum(lane.reserved for lane in self._lanes if lane is not self)

    async def turn(self, duration: float, *tasks: asyncio.Task[Any]) -> list[Any]:
        """Advance the lane's virtual time by ``duration``, in any unit. Wait for the tasks and for the turn; return the
        results of the tasks."""
        time, number = self._key
        self._key = (time + duration, number)
        self._wake_first()
        if tasks:
            await asyncio.wait(tasks)
        if self is not self._first():
            self._turn_ready = asyncio.get_running_loop().create_future()
            await self._turn_ready
        return [task.result() for task in tasks]

    def leave(self) -> None:
        """End the lane. The others no longer wait for it."""
        self._lanes.remove(self)
        self._wake_first()

    def _first(self) -> Lane:
        return min(self._lanes, key=lambda lane: lane._key)

    def _wake_first(self) -> None:
        """Wake the lane whose turn it is, if it waits for its turn."""
        if not self._lanes:
            return
        first = self._first()
        ready = first._turn_ready
        if ready is not None:
            first._turn_ready = None
            if not ready.done():
                ready.set_result(None)


def make_lanes(count: int, *, apart: float = 0.0) -> list[Lane]:
    """Create ``count`` lanes. Each begins ``apart`` later than the one before, in virtual time."""
    lanes: list[Lane] = []
    lanes += [Lane(number * apart, number, lanes) for number in range(count)]
    return list(lanes)
