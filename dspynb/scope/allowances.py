"""The parts of budgets that concurrent steps (rows, attempts, proposals) get, and work that costs nothing.

Each step gets an ``Allowance``, in the order of the steps, so that timing does not decide which step a budget refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import AsyncIterator, Sequence

from dspynb.data import Usage
from dspynb.errors import BudgetExhausted
from dspynb.scope.amounts import NOTHING, Amounts
from dspynb.scope.clock import Clock, TimeLimit
from dspynb.scope.core import Scope, current_scope
from dspynb.scope.ledger import Ledger
from dspynb.scope.reservation import OpenStep, Reservation, next_position

__all__ = ["Allowance", "Free", "Reserve"]


class Allowance:
    """Calls that were taken for one step in advance. Calls that the step does not use go back when it is closed."""

    covers = True  # the meters above were charged when the allowance was created
    is_free = False
    ledger: Ledger | None = None
    clock: Clock | None = None

    def __init__(self, scope: Scope, calls: int, step: OpenStep | None = None) -> None:
        """``step``: the step, in budgets of tokens or USD."""
        self._scope = scope
        self._lock = threading.Lock()
        self.left = calls
        self.step: OpenStep | None = step
        self._ledgers: Sequence[Ledger] = []
        if step is not None:
            self._ledgers = scope.spending_limits().ledgers
            for ledger in self._ledgers:
                ledger.begin(step)

    def take(self, calls: int = 0, metric_calls: int = 0) -> None:
        """Take calls from the allowance; those beyond it are taken from the scope. Raises BudgetExhausted."""
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


class Reserve:
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
        self._limits_amounts = bool(limits.ledgers)
        self._clocks = limits.clocks
        self.limited = self._limits_calls or self._limits_amounts or bool(self._clocks)
        self._turn = asyncio.Lock()
        self._running = 0  # steps that have an allowance now
        self._step_ended = asyncio.Event()

    @contextlib.asynccontextmanager
    async def step(self, calls: int | None = None) -> AsyncIterator[Allowance | None]:
        """The allowance of one step, for a layer of its own; None where calls are not limited. ``calls``: replaces the
        number of calls that most steps make. Raises BudgetExhausted."""
        async with TimeLimit(self._clocks, _GRACE) if self._clocks else contextlib.nullcontext():
            if not (self._limits_calls or self._limits_amounts):
                yield None
                return
            allowance = await self._next(self.calls if calls is None else calls)
            try:
                yield allowance
            finally:
                allowance.close()
                self._running -= 1
                self._step_ended.set()

    async def _next(self, calls: int) -> Allowance:
        """Wait until ``calls`` calls are available, or no other step runs. Then take as many of them as there are."""
        most_calls = calls
        async with self._turn:  # steps wait in their order
            if self._limits_calls:
                while self._running and self.scope.available() < calls:
                    self._step_ended.clear()
                    await self._step_ended.wait()
                calls = int(max(1, min(calls, self.scope.available())))  # at least 1: taking it raises if none is left
            else:
                calls = 0
            self.scope.take(calls)
            self._running += 1
            step = (
                OpenStep(next_position(self.scope.spending_limits().steps), most_calls)
                if self._limits_amounts
                else None
            )
            return Allowance(self.scope, calls, step)
