"""Many steps side by side: bounded, started in order, each with its share of the budget."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from dspynb.errors import BudgetExhausted, Halted
from dspynb.running.aio.tasks import end_tasks
from dspynb.running.run import Run
from dspynb.running.user_code import as_exception, guarded
from dspynb.scope.budget import Allowance, Meter, Reserve
from dspynb.scope.core import Layer, current_scope
from dspynb.scope.settings import setting

__all__ = ["caught", "pool_width", "run_pool"]

T = TypeVar("T")
Step = Callable[[int, Allowance | None], Awaitable[None]]

_SLICE = 0.01
"""Seconds after which steps that never wait leave the event loop to others: views, timers, the kernel."""


def pool_width(concurrency: int | None) -> int:
    """How many steps run at a time: the setting of ``configure`` for None."""
    limit: int = setting("concurrency") if concurrency is None else concurrency
    return limit


class run_pool:  # noqa: N801  # awaited like a function; an object, so that it can be told to start no more
    """``await run_pool(count, width, calls, step)``: ``step(number, allowance)`` for each number, started in order.

    ``calls``: about how many model calls a step makes at most. When the budget refuses a step, those under way are
    finished and BudgetExhausted is raised; ``stop()`` ends in the same way without an error. Other errors of a step are
    raised at once. ``run``, where it is set: the run whose work this is; the budget that a person sets for it holds
    from the next step on, once those under way have ended.
    """

    def __init__(self, count: int, width: int, calls: int, step: Step) -> None:
        self._todo, self._step = iter(range(count)), step
        self._width, self._calls = min(width, count), calls
        self._stopped = False
        self._slices = _Slices()
        self.spent: BudgetExhausted | None = None
        self.run: Run | None = None
        self._funds: Meter | None = None  # of a run that got a budget while it ran
        self._running, self._turn, self._ended = 0, asyncio.Lock(), asyncio.Event()

    def stop(self) -> None:
        """Start no further step."""
        self._stopped = True

    def __await__(self) -> Generator[Any, None, None]:
        return self._run().__await__()

    async def _run(self) -> None:
        self._reserve = Reserve(self._calls)
        workers = [asyncio.create_task(guarded("the program", self._work)) for _ in range(self._width)]
        try:
            await asyncio.gather(*workers)
        finally:
            await end_tasks(workers)
        if self.spent is not None:
            raise self.spent

    async def _work(self) -> None:
        try:
            await self._slices.between()
            for number in self._todo:
                if self.run is not None and self.run.steering.pending:
                    await self._steered(self.run, number)
                if self._stopped:
                    return
                self._running += 1
                try:
                    if self._funds is None:
                        await self._one(number)
                    else:
                        with Layer(None, funds=self._funds):
                            await self._one(number)
                finally:
                    self._running -= 1
                    self._ended.set()
                await self._slices.between()
        except BudgetExhausted as error:
            self.spent = self.spent or error
            self._stopped = True

    async def _one(self, number: int) -> None:
        if not self._reserve.limited:
            await self._step(number, None)
            return
        async with self._reserve.step() as funds:
            if not self._stopped:  # while it waited for its share
                await self._step(number, funds)

    async def _steered(self, run: Run, number: int) -> None:
        """Before a step: the budget that was asked for, if one was. Raises BudgetExhausted where more is spent."""
        async with self._turn:
            if not any(ask.action == "budget" for ask in run.steering.pending):
                return
            while self._running:
                self._ended.clear()
                await self._ended.wait()
            limits: dict[str, float] = {}
            for ask in run.steering.take_pending(lambda ask: ask.action == "budget"):
                run.record_intervention("budget", step=number, values=ask.values)
                limits.update(ask.values)
            if run.meter is not None:
                run.meter.limit(limits)
            else:
                self._funds = run.new_meter(limits)
                spent, rollouts, estimate = run.spending()
                calls = spent.calls + spent.retries
                self._funds.count(spent, calls=calls, metric_calls=rollouts, estimate=estimate)
            with Layer(None, funds=self._funds):
                current_scope().take()
                self._reserve = Reserve(self._calls)


class _Slices:
    """Shares the event loop between the workers of a pool together and everybody else."""

    def __init__(self) -> None:
        self._until, self._due = math.inf, False

    async def between(self) -> None:
        """Called between two steps: when the slice is over, the loop goes round before the next step begins."""
        while (now := time.perf_counter()) > self._until:
            if not self._due:
                self._due = True
                asyncio.get_running_loop().call_soon(self._renew)
            await asyncio.sleep(0)
        if self._until == math.inf:  # from the first step in it, so that each slice has one, however busy the loop is
            self._until = now + _SLICE

    def _renew(self) -> None:
        self._until, self._due = math.inf, False


async def caught(call: Awaitable[T]) -> T | Exception:
    """What a step comes to: its result or its error. Halted, a stop, and a cancellation of this task, pass through."""
    try:
        return await call
    except Halted:
        raise
    except Exception as error:
        return error
    except BaseException as error:
        exited = as_exception(error, "the program")
        if isinstance(exited, Exception):
            return exited  # the other steps are not concerned
        raise
