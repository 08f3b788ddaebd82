"""The time of a budget: it is counted without pauses, and ends what waits when it is over."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from statistics import median
from types import TracebackType

from dspynb.errors import BudgetExhausted

__all__ = ["Clock", "TimeLimit"]

_KEPT = 50
"""How many of the last calls of a model say how long the next one takes."""
_FEW = 3
"""Fewer calls than these say too little."""
_LONGEST_WAIT = 0.25
"""Seconds after which a limit is looked at again, since a run can be paused and can get another budget."""


class Clock:
    """Counts the seconds of one budget. ``limit``: how many there are; None for no limit. Thread-safe."""

    def __init__(self, limit: float | None = None) -> None:
        self.limit = limit
        self._began = time.monotonic()
        self._paused_since: float | None = None
        self._durations: dict[str, deque[float]] = {}  # of the last calls, by model
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """The seconds so far, without pauses."""
        paused_since = self._paused_since
        return (time.monotonic() if paused_since is None else paused_since) - self._began

    @property
    def left(self) -> float:
        """The seconds that are left; infinite without a limit."""
        return float("inf") if self.limit is None else self.limit - self.seconds

    def add(self, seconds: float) -> None:
        """Count seconds before the clock was set."""
        with self._lock:
            self._began -= seconds

    def pause(self) -> None:
        """Stop counting until ``resume``."""
        with self._lock:
            if self._paused_since is None:
                self._paused_since = time.monotonic()

    def resume(self) -> None:
        """Count again after ``pause``."""
        with self._lock:
            if self._paused_since is not None:
                self._began += time.monotonic() - self._paused_since
                self._paused_since = None

    def note(self, model: str, seconds: float) -> None:
        """Note how long a call of a model took."""
        with self._lock:
            self._durations.setdefault(model, deque(maxlen=_KEPT)).append(seconds)

    def expected(self, model: str) -> float:
        """How long the next call of a model takes: the median of its last calls; 0 if there are too few of them."""
        with self._lock:
            durations = self._durations.get(model, ())
            return median(durations) if len(durations) >= _FEW else 0.0

    def check(self, model: str | None = None) -> None:
        """Raise BudgetExhausted if the time is over, or if a call of ``model`` is expected to end after it."""
        if self.limit is None:
            return
        left = self.left
        if left <= 0:
            raise self.refusal()
        if model is not None and self.expected(model) > left:
            raise self.refusal(
                f": {left:.2g} s are left, and a call of {model} takes about {self.expected(model):.2g} s"
            )

    def refusal(self, reason: str = "") -> BudgetExhausted:
        """The error for work that the time does not allow."""
        limit = 0.0 if self.limit is None else self.limit
        return BudgetExhausted(
            f"the budget of {limit:g} seconds is over{reason}; give a larger dn.Budget(seconds=…) to continue"
        )


class TimeLimit:
    """``async with TimeLimit(clocks): …`` cancels what the block awaits when the time of one of the clocks is over, and
    then raises BudgetExhausted. ``grace``: seconds that the block has beyond it, so that what is inside ends first."""

    def __init__(self, clocks: Sequence[Clock], grace: float = 0.0) -> None:
        self._clocks = clocks
        self._grace = grace
        self._over: Clock | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # calls and steps are always in a task
        self._task = task
        self._earlier_cancellations = task.cancelling()
        for clock in self._clocks:
            clock.check()
        self._wait()

    def _wait(self) -> None:
        clock = min(self._clocks, key=lambda clock: clock.left)
        left = max(0.0, min(clock.left + self._grace, _LONGEST_WAIT))
        self._timer = asyncio.get_running_loop().call_later(left, self._look, clock)

    def _look(self, clock: Clock) -> None:
        """Cancel the task if the time is over; else wait on. Called by the loop, so that the task is waiting."""
        if clock.left + self._grace > 0:
            self._wait()
        else:
            self._over = clock
            self._timer = None
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._over is None:
            return
        is_last = self._task.uncancel() <= self._earlier_cancellations
        if is_last and isinstance(error, asyncio.CancelledError):
            raise self._over.refusal() from error
