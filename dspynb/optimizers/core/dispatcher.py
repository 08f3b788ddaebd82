"""The one queue of an optimizer's run: rollouts and proposals, started and recorded in the order of submission.

At most ``width`` at a time, each with its share of the budget. Where the budget cuts is a place in that order: what was
asked for before it is finished, what comes after is refused, whatever the timing.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from dspynb.errors import BudgetExhausted
from dspynb.running.aio.tasks import end_tasks
from dspynb.running.user_code import guarded
from dspynb.scope.budget import Allowance, Reserve

__all__ = ["Dispatcher", "OrderedResults"]

T = TypeVar("T")
U = TypeVar("U")
Job = Callable[[Allowance | None], Awaitable[Any]]


class Dispatcher:
    """``future = dispatcher.submit(job, calls)``; ``await dispatcher.close()`` at the end.

    ``calls``: about how many model calls a job makes at most.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._reserve = Reserve(1)
        self._queue: asyncio.Queue[tuple[int, Job, int, asyncio.Future[Any]]] = asyncio.Queue()
        self._workers: list[asyncio.Task[None]] = []
        self._asked = 0
        self._cut: float = math.inf  # the number of the first job that was refused
        self._spent: BudgetExhausted | None = None
        self._open: set[int] = set()  # jobs that may still run, or do
        self._running = 0
        self._context = contextvars.copy_context()  # jobs run in the scope of the run, not of whoever asks
        self._refused: list[asyncio.Future[Any]] = []

    def submit(self, job: Job, calls: int) -> asyncio.Future[Any]:
        """Ask for a job; its result, or error, comes in the future. BudgetExhausted where it was refused, once all
        that was asked for before the cut has ended."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_seen)
        number, self._asked = self._asked, self._asked + 1
        if number >= self._cut:
            self._refuse(future)
            return future
        self._open.add(number)
        self._queue.put_nowait((number, job, calls, future))
        if len(self._workers) < self.width:
            self._workers.append(asyncio.create_task(self._work(), context=self._context.copy()))
        return future

    def cut(self, error: BudgetExhausted) -> None:
        """Refuse whatever is asked for from now on."""
        self._end_at(self._asked, error)

    @property
    def spent(self) -> BudgetExhausted | None:
        """Why jobs are refused, if they are."""
        return self._spent

    def renew(self) -> None:
        """The budget has changed: jobs get their shares of it from now on. To be called while none is under way."""
        self._reserve = self._context.copy().run(Reserve, 1)

    async def close(self) -> None:
        """End what still runs."""
        await end_tasks(self._workers)

    async def _work(self) -> None:
        while True:
            number, job, calls, future = await self._queue.get()
            self._running += 1
            try:
                await guarded("the program", self._one, number, job, calls, future)
            finally:
                self._running -= 1
                self._open.discard(number)
                self._tell_refused()
            await asyncio.sleep(0)  # jobs that never wait leave the loop to others: who asked, a view, a stop

    async def _one(self, number: int, job: Job, calls: int, future: asyncio.Future[Any]) -> None:
        if number >= self._cut:
            self._refused.append(future)
            return
        if future.cancelled():
            return
        try:
            async with self._reserve.step(calls) as funds:
                result = await guarded("the program", job, funds)
        except asyncio.CancelledError:
            future.cancel()
            raise
        except BudgetExhausted as error:
            self._end_at(number, error)
            self._refused.append(future)
        except BaseException as error:  # it is the asker's to handle
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)

    def _end_at(self, number: int, error: BudgetExhausted) -> None:
        self._spent = self._spent or error
        self._cut = min(self._cut, number)

    def _refuse(self, future: asyncio.Future[Any]) -> None:
        self._refused.append(future)
        self._tell_refused()

    def _tell_refused(self) -> None:
        """Once nothing that counts is under way: till then it is not known what the run has."""
        if self._spent is None or self._running or any(number < self._cut for number in self._open):
            return
        refused, self._refused = self._refused, []
        for future in refused:
            if not future.done():
                future.set_exception(self._spent)


class OrderedResults:
    """Records results in the order of submission, whichever is there first."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self._last: asyncio.Future[None] | None = None  # done once the latest submission has been recorded

    def submit(self, work: Callable[[], Awaitable[T]], record: Callable[[T], U]) -> asyncio.Task[U]:
        """Start ``work`` as a task. Its result goes to ``record`` after the results of all earlier submissions; what
        ``record`` returns is the task's result."""
        before = self._last
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._last = mine

        async def in_order() -> U:
            try:
                result = await work()
                if before is not None:
                    await asyncio.wait([before])
                return record(result)
            finally:
                if not mine.done():
                    mine.set_result(None)

        return self.task(in_order)

    def task(self, work: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        """Start ``work`` as a task that ends with ``close`` at the latest. Nothing is recorded."""
        task = asyncio.get_running_loop().create_task(guarded("the optimizer", work))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(_seen)
        return task

    async def recorded(self) -> None:
        """Wait until everything submitted so far has been recorded."""
        if self._last is not None:
            await asyncio.wait([self._last])

    async def ended(self) -> None:
        """Wait until no task is running."""
        while self.tasks:
            await asyncio.wait(self.tasks)

    async def close(self) -> None:
        """Cancel what still runs."""
        await end_tasks(list(self.tasks))


def _seen(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()  # whoever waits for it is told; nobody may
