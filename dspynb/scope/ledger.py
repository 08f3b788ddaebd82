"""Amounts of tokens and USD that are reserved before a request is sent, and settled when its reply has arrived.

A ``Ledger`` belongs to one budget. Each request has a position: the numbers of the steps around it, outermost first,
and so its place in the order in which one step after the other would run. A request is admitted at once if the limit
also covers what earlier steps may still need; else it waits until these have ended or need less. No request overtakes
one that waits at an earlier position, and a refused request refuses all later ones. So the limit cuts the work at a
place in that order, whatever the timing.
"""

from __future__ import annotations

import asyncio
import math
import threading
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

__all__ = ["Amounts", "Ledger", "Place", "Refused", "Reservation", "reserve"]

Place = tuple[int, ...]
"""The place of a step or request: the numbers of the steps around it, outermost first, and its own number."""


class Amounts(NamedTuple):
    """A number of tokens and of US dollars."""

    tokens: float = 0.0
    usd: float = 0.0

    def plus(self, other: Amounts, times: float = 1) -> Amounts:
        """The sum with ``times`` times the other."""
        return Amounts(self.tokens + times * other.tokens, self.usd + times * other.usd)

    def within(self, limit: Amounts) -> bool:
        """Whether neither number is above that of the limit."""
        return self.tokens <= limit.tokens and self.usd <= limit.usd

    def largest(self, other: Amounts) -> Amounts:
        """The larger number of each."""
        return Amounts(max(self.tokens, other.tokens), max(self.usd, other.usd))


NOTHING = Amounts()
UNLIMITED = Amounts(math.inf, math.inf)


class Refused(Exception):
    """The limit does not cover a request, and nothing that is still open could change that."""


@dataclass(eq=False, slots=True)
class OpenStep:
    """A step that has begun and has not ended: a row, an attempt, a proposal. ``calls_left``: about how many requests it
    may still send."""

    place: Place
    calls_left: int


@dataclass(eq=False, slots=True)
class Reservation:
    """What one request may cost, and its place.

    ``amounts``: the cost to reserve. ``least``: the cost that the limit must cover at least; the same as ``amounts``
    (the default) where that is a bound. Where it is an estimate, since the reply has no limit, a request that is alone
    may be sent for less, and its reply may then exceed the limit. ``steps``: the steps around the request.
    """

    place: Place
    amounts: Amounts
    steps: Sequence[OpenStep] = ()
    least: Amounts | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def notify(self) -> None:
        """Wake the task that waits for this reservation, which may be in another thread's loop."""
        try:
            self.loop.call_soon_threadsafe(self.changed.set)
        except RuntimeError:  # its loop is closed
            return


_place = attrgetter("place")


class Ledger:
    """The amounts of one budget: ``limit``, ``spent``, ``reserved`` by requests that are under way. Thread-safe."""

    def __init__(self, limit: Amounts = UNLIMITED) -> None:
        self.limit = limit
        self.spent = NOTHING
        self.reserved = NOTHING
        self._under_way = 0
        self._largest = NOTHING  # the largest reservation so far, as an estimate of later ones
        self._steps: list[OpenStep] = []
        self._calls_left = 0  # of all open steps
        self._waiting: list[Reservation] = []
        self._cut: Place | None = None  # the place of the first request that was refused
        self._lock = threading.RLock()

    def set_limit(self, limit: Amounts) -> None:
        """Replace the limit. Requests that wait are decided again."""
        with self._lock:
            self.limit = limit
            self._cut = None
            self._wake()

    # ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def begin(self, step: OpenStep) -> None:
        """Count what a step may need until it ends."""
        with self._lock:
            insort(self._steps, step, key=_place)
            self._calls_left += step.calls_left

    def end(self, step: OpenStep) -> None:
        """Forget a step that has ended."""
        with self._lock:
            self._steps.remove(step)
            self._calls_left -= step.calls_left
            self._wake()

    def _began_call(self, step: OpenStep) -> None:
        if step.calls_left > 0:
            step.calls_left -= 1
            self._calls_left -= 1

    # ── requests ──────────────────────────────────────────────────────────────────────────────────────────────────
    def take(self, request: Reservation) -> bool:
        """Reserve what a request may cost. False if it must wait (``reserve`` does so). Raises Refused."""
        with self._lock:
            try:
                admitted = self._admits(request)
            except Refused:
                self._leave(request)
                self._wake()
                raise
            if not admitted:
                if request not in self._waiting:
                    insort(self._waiting, request, key=_place)
                return False
            self._leave(request)
            self.reserved = self.reserved.plus(request.amounts)
            self._under_way += 1
            self._largest = self._largest.largest(request.amounts)
            for step in request.steps:
                self._began_call(step)
            self._wake()
            return True

    def leave(self, request: Reservation) -> None:
        """Wait no longer, such as after a cancellation."""
        with self._lock:
            self._leave(request)
            self._wake()

    def _leave(self, request: Reservation) -> None:
        if request in self._waiting:
            self._waiting.remove(request)

    def settle(self, request: Reservation, actual: Amounts) -> None:
        """Replace the reservation of a request that has ended by what it cost."""
        with self._lock:
            self.reserved = self.reserved.plus(request.amounts, -1)
            self._under_way -= 1
            if not self._under_way:
                self.reserved = NOTHING  # without the rounding errors of the sums
            self.spent = self.spent.plus(actual)
            self._wake()

    def _admits(self, request: Reservation) -> bool:
        """Whether a request may be sent now. Raises Refused if it may never be."""
        if self._cut is not None and request.place > self._cut:
            raise Refused
        if self._waiting and self._waiting[0].place < request.place:
            return False
        total = self.spent.plus(self.reserved).plus(request.amounts)
        if not total.within(self.limit):
            if self._under_way:
                return False
            if request.least is not None and self._covers(self.spent.plus(request.least)):
                return not self._calls_before(request.place)
            self._cut = request.place if self._cut is None else min(self._cut, request.place)
            raise Refused
        largest = self._largest.largest(request.amounts)
        if total.plus(largest, self._calls_left).within(self.limit):
            return True
        return total.plus(largest, self._calls_before(request.place)).within(self.limit)

    def _covers(self, total: Amounts) -> bool:
        """Whether the limit covers a total, and is not reached before the request."""
        is_left = self.spent.tokens < self.limit.tokens and self.spent.usd < self.limit.usd
        return is_left and total.within(self.limit)

    def _calls_before(self, place: Place) -> int:
        """About how many requests open steps at earlier places may still send, at least one each. Steps around the
        place, and steps inside other counted ones, do not count."""
        calls = 0
        counted: Place | None = None
        for step in self._steps[: bisect_left(self._steps, place, key=_place)]:
            if place[: len(step.place)] == step.place:
                continue
            if counted is not None and step.place[: len(counted)] == counted:
                continue
            counted = step.place
            calls += max(1, step.calls_left)
        return calls

    def _wake(self) -> None:
        """Let the first request that waits try again; when it is decided, it wakes the next one."""
        if self._waiting:
            self._waiting[0].notify()


async def reserve(ledgers: Iterable[Ledger], request: Reservation) -> None:
    """Reserve the cost of a request in all ledgers or in none, and wait for its turn where it must. Raises Refused."""
    ledgers = list(ledgers)
    try:
        while True:
            request.changed.clear()
            blocking = _take_from_all(ledgers, request)
            if blocking is None:
                return
            await request.changed.wait()
    except BaseException:
        for ledger in ledgers:
            ledger.leave(request)
        raise


def _take_from_all(ledgers: Sequence[Ledger], request: Reservation) -> Ledger | None:
    """Reserve in all ledgers, or in none. Returns the first ledger in which the request must wait."""
    taken: list[Ledger] = []
    for ledger in ledgers:
        try:
            admitted = ledger.take(request)
        except Refused:
            _give_back(taken, request)
            raise
        if not admitted:
            _give_back(taken, request)
            return ledger
        taken.append(ledger)
    return None


def _give_back(ledgers: Iterable[Ledger], request: Reservation) -> None:
    for ledger in ledgers:
        ledger.settle(request, NOTHING)
