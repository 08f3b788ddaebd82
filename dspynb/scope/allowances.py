"""The parts of budgets that concurrent steps (rows, attempts, proposals) get, and work that costs nothing.

Each step gets an ``Allowance``, in the order of the steps, so that timing does not decide which step a budget refuses.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Sequence
from types import TracebackType

from dspynb.data import Usage
from dspynb.errors import BudgetExhausted
from dspynb.scope.amounts import NOTHING, Amounts
from dspynb.scope.clock import Clock, TimeLimit
from dspynb.scope.core import Scope, current_scope
from dspynb.scope.ledger import Ledger
from dspynb.scope.reservation import OpenStep, Reservation, next_position

__all__ = ["Allowance", "Allowances", "Free"]


class Allowance:
    """Calls that were taken for one step in advance. Calls that the step does not use go back when it is closed."""

    covers = True  # the meters above were charged when the allowance was created
    is_free = False
    ledger: Ledger | None = None
    clock: Clock | None = None

    def __init__(self, scope: Scope, calls: int, step: OpenStep | None = None, ledgers: Sequence[Ledger] = ()) -> None:
        """``step``, ``ledgers``: the step, and the ledgers around it, in budgets of tokens or USD."""
        self._scope = scope
        self._lock = threading.Lock()
        self.left = calls
        self.step: OpenStep | None = step
        self._ledgers = ledgers
        if step is not None:
            for ledger in ledgers:
                ledger.begin(step)

    def take(self, calls: int = 0, metric_calls: int = 0) -> None:
        """Take calls from the allowance; those beyond it are taken from the scope. Raises BudgetExhausted."""
        own = 0
        if calls and self.left:
            with self._lock:
                own = min(calls, self.left)
                self.left -= own
        try:
            self._scope.take(calls - own, metric_calls)  # even for 0 calls, since it checks whether time is left
        except BudgetExhausted:
            self.give_back(own)
            raise

    def give_back(self, calls: int, metric_calls: int = 0) -> None:
        """Return what was taken and not used. Calls stay in the allowance; metric calls go back to the scope."""
        with self._lock:
            self.left += calls
        if metric_calls:
            self._scope.give_back(0, metric_calls)

    def add(self, usage: Usage, estimate: int = 0, reservation: Reservation | None = None) -> None:
        """Do nothing: the meters above count the usage."""

    def settle_unknown(self, reservation: Reservation) -> Amounts:  # noqa: ARG002
        """Return nothing: the meters above count it."""
        return NOTHING

    def available(self) -> float:
        """The number of calls that the step could take now."""
        return self.left + self._scope.available()

    def metric_calls_left(self) -> float:
        """The number of metric calls that the step could take now."""
        return self._scope.metric_calls_left()

    def close(self) -> None:
        """Give back what the step did not use."""
        with self._lock:
            unused = self.left
            self.left = 0
        if unused:
            self._scope.give_back(unused)
        if self.step is not None:
            for ledger in self._ledgers:
                ledger.end(self.step)


class Free:
    """Funds of work that costs nothing: the budgets above it are neither checked nor charged."""

    covers = True
    is_free = True
    ledger: Ledger | None = None
    clock: Clock | None = None
    step: OpenStep | None = None

    def take(self, calls: int = 0, metric_calls: int = 0) -> None:
        """Do nothing: the work is free."""

    def give_back(self, calls: int, metric_calls: int = 0) -> None:
        """Do nothing: no call was taken."""

    def add(self, usage: Usage, estimate: int = 0, reservation: Reservation | None = None) -> None:
        """Do nothing: the work is free."""

    def settle_unknown(self, reservation: Reservation) -> Amounts:  # noqa: ARG002
        """Return nothing: the work is free."""
        return NOTHING

    def available(self) -> float:
        """Infinitely many calls."""
        return math.inf

    def metric_calls_left(self) -> float:
        """Infinitely many metric calls."""
        return math.inf


_GRACE = 0.1
"""Seconds after which a step is cancelled that did not end with the calls inside it."""


class Allowances:
    """Gives concurrent steps their allowances, in the order in which the steps begin.

    ``calls``: about how many calls a step makes at most. While the budget has fewer calls left, a step waits until the
    steps before it have ended, and then gets what is left. So the allowance of a step depends on the steps before it
    and not on timing.
    """

    def __init__(self, calls: int) -> None:
        self.scope = current_scope()
        self.calls = calls
        self._limits_calls = self.scope.available() < math.inf
        limits = self.scope.spending_limits()
        self._ledgers = limits.ledgers
        self._steps = limits.steps
        self._clocks = limits.clocks
        self.limited = self._limits_calls or bool(self._ledgers or self._clocks)
        self._turn = asyncio.Lock()
        self._waiting = 0  # steps that wait for an allowance
        self._running = 0  # steps that have an allowance now
        self._step_ended = asyncio.Event()

    def step(self, calls: int | None = None) -> _Step:
        """The allowance of one step: ``async with allowances.step() as funds: …``, for a layer of its own; None where
        neither calls nor amounts are limited. ``calls``: replaces the number of calls that most steps make. Raises
        BudgetExhausted."""
        return _Step(self, self.calls if calls is None else calls)

    async def begin(self, calls: int) -> Allowance | None:
        """Wait until ``calls`` calls are available, or no other step runs. Then take as many of them as there are."""
        if not (self._limits_calls or self._ledgers):
            return None
        if self._waiting or (self._limits_calls and self.scope.available() < calls):
            return await self._begin_in_turn(calls)
        return self._begin(calls, calls if self._limits_calls else 0)

    async def _begin_in_turn(self, calls: int) -> Allowance:
        self._waiting += 1
        try:
            async with self._turn:  # steps wait in their order
                taken = 0
                if self._limits_calls:
                    while self._running and self.scope.available() < calls:
                        self._step_ended.clear()
                        await self._step_ended.wait()
                    taken = int(max(1, min(calls, self.scope.available())))  # at least 1, which raises if none is left
                return self._begin(calls, taken)
        finally:
            self._waiting -= 1

    def _begin(self, most_calls: int, calls: int) -> Allowance:
        self.scope.take(calls)
        self._running += 1
        if not self._ledgers:
            return Allowance(self.scope, calls)
        step = OpenStep(next_position(self._steps), most_calls)
        return Allowance(self.scope, calls, step, self._ledgers)

    def end(self, allowance: Allowance) -> None:
        """Take back what a step did not use."""
        allowance.close()
        self._running -= 1
        self._step_ended.set()

    def time_limit(self) -> TimeLimit | None:
        """What cancels a step when the time is over; None where time is not limited."""
        return TimeLimit(self._clocks, _GRACE) if self._clocks else None


class _Step:
    """One step, which has an allowance while it runs. A generator would take three times as long."""

    __slots__ = ("_allowance", "_allowances", "_calls", "_time_limit")

    def __init__(self, allowances: Allowances, calls: int) -> None:
        self._allowances = allowances
        self._calls = calls
        self._allowance: Allowance | None = None
        self._time_limit: TimeLimit | None = None

    async def __aenter__(self) -> Allowance | None:
        self._time_limit = time_limit = self._allowances.time_limit()
        if time_limit is None:
            self._allowance = await self._allowances.begin(self._calls)
            return self._allowance
        await time_limit.__aenter__()
        try:
            self._allowance = await self._allowances.begin(self._calls)
        except BaseException as error:
            await time_limit.__aexit__(type(error), error, error.__traceback__)
            raise
        return self._allowance

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._allowance is not None:
            self._allowances.end(self._allowance)
        if self._time_limit is not None:
            await self._time_limit.__aexit__(kind, error, traceback)
