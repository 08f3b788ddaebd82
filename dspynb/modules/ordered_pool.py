"""Running many steps concurrently: bounded, started in order, each with an allowance of the budget."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from dspynb.errors import BudgetExhausted, Halted
from dspynb.running.aio.tasks import end_tasks
from dspynb.running.run import Run
from dspynb.running.user_code import as_exception, guarded
from dspynb.scope.allowances import Allowance, Allowances
from dspynb.scope.budget import Meter
from dspynb.scope.core import Layer, current_scope
from dspynb.scope.settings import setting

__all__ = ["pool_width", "result_or_error", "run_pool"]

T = TypeVar("T")
Step = Callable[[int, Allowance | None], Awaitable[None]]

_SLICE = 0.01
"""Seconds after which steps that never wait yield the event loop to views, timers and the kernel."""


def pool_width(concurrency: int | None) -> int:
    """How many steps run at the same time: ``concurrency``, or the setting of ``configure`` for None."""
    width: int = setting("concurrency") if concurrency is None else concurrency
    return width


class run_pool:  # noqa: N801  # awaited like a function; an object because of ``stop``
    """``await run_pool(count, width, calls, step)``: awaits ``step(number, allowance)`` for each number, started in
    order, at most ``width`` at the same time.

    ``calls``: about how many model calls a step makes at most. If the budget refuses a step, the running steps are
    finished and BudgetExhausted is raised. ``stop()`` ends in the same way, without an error. Other errors of a step
    are raised at once. ``run``: the run whose work the pool does, or None. If a person sets a budget for this run, the
    budget applies from the next step on, which starts after the running steps have ended.
    """

    def __init__(self, count: int, width: int, calls: int, step: Step) -> None:
        self._numbers = iter(range(count))
        self._step = step
        self._width = min(width, count)
        self._calls = calls
        self._stopped = False
        self._slices = _Slices()
        self.budget_error: BudgetExhausted | None = None
        self.run: Run | None = None
        self._funds: Meter | None = None  # of a run that got a budget while it ran
        self._running = 0
        self._budget_lock = asyncio.Lock()
        self._step_ended = asyncio.Event()

    def stop(self) -> None:
        """Start no further step."""
        self._stopped = True

    def __await__(self) -> Generator[Any, None, None]:
        return self._run().__await__()

    async def _run(self) -> None:
        self._allowances = Allowances(self._calls)
        workers = [asyncio.create_task(guarded("the program", self._work)) for _ in range(self._width)]
        try:
            await asyncio.gather(*workers)
        finally:
            await end_tasks(workers)
        if self.budget_error is not None:
            raise self.budget_error

    async def _work(self) -> None:
        try:
            await self._slices.yield_when_due()
            for number in self._numbers:
                if self.run is not None and self.run.steering.pending:
                    await self._apply_budget_requests(self.run, number)
                if self._stopped:
                    return
                self._running += 1
                try:
                    if self._funds is None:
                        await self._run_step(number)
                    else:
                        with Layer(None, funds=self._funds):
                            await self._run_step(number)
                finally:
                    self._running -= 1
                    self._step_ended.set()
                await self._slices.yield_when_due()
        except BudgetExhausted as error:
            if self.budget_error is None:
                self.budget_error = error
            self._stopped = True

    async def _run_step(self, number: int) -> None:
        if not self._allowances.limited:
            await self._step(number, None)
            return
        async with self._allowances.step() as funds:
            if not self._stopped:  # it may have been stopped while the step waited for its allowance
                await self._step(number, funds)

    async def _apply_budget_requests(self, run: Run, number: int) -> None:
        """Apply pending requests for a budget, before the step of this number. Raises BudgetExhausted if the new budget
        is already spent."""
        async with self._budget_lock:
            if not any(request.action == "budget" for request in run.steering.pending):
                return
            while self._running:
                self._step_ended.clear()
                await self._step_ended.wait()
            limits: dict[str, float] = {}
            for request in run.steering.take_pending(lambda request: request.action == "budget"):
                run.record_intervention("budget", step=number, values=request.values)
                limits.update(request.values)
            if run.meter is not None:
                run.meter.limit(limits)
            else:
                self._funds = run.new_meter(limits)
                spent, rollouts, estimate = run.spending()
                calls = spent.calls + spent.retries
                self._funds.count(spent, calls=calls, metric_calls=rollouts, estimate=estimate)
            with Layer(None, funds=self._funds):
                current_scope().take()
                self._allowances = Allowances(self._calls)


class _Slices:
    """Time slices of the event loop, which the workers of a pool share with all other tasks.

    Once a slice is over, workers queue, and each round of the loop lets one of them begin a slice. So a slice of steps
    that never wait wakes one worker, however many there are.
    """

    def __init__(self) -> None:
        self._until = math.inf  # the end of the slice; infinite before the first step
        self._queue: deque[asyncio.Future[None]] = deque()

    async def yield_when_due(self) -> None:
        """Called between two steps. When the slice is over, other tasks run before the next step begins."""
        now = time.perf_counter()
        if now > self._until:
            loop = asyncio.get_running_loop()
            turn = loop.create_future()
            self._queue.append(turn)
            if len(self._queue) == 1:
                loop.call_soon(self._begin_next)
            await turn
            now = time.perf_counter()
            self._until = math.inf
        if self._until == math.inf:
            self._until = now + _SLICE

    def _begin_next(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():  # its worker was not cancelled meanwhile
                turn.set_result(None)
                break
        if self._queue:
            asyncio.get_running_loop().call_soon(self._begin_next)


async def result_or_error(call: Awaitable[T]) -> T | Exception:
    """Await a call and return its result or its error. Raises Halted, and the cancellation of this task."""
    try:
        return await call
    except Halted:
        raise
    except Exception as error:
        return error
    except BaseException as error:
        failure = as_exception(error, "the program")
        if isinstance(failure, Exception):
            return failure  # so that the other steps continue
        raise
