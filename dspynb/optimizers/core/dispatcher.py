"""The one queue of an optimizer's run: rollouts and proposals, started and recorded in the order of submission.

At most ``width`` jobs run at a time, each with its share of the budget. The budget cuts at a place in that order: jobs
submitted before the cut are finished, jobs submitted after it are refused, whatever the timing.
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
from dspynb.scope.allowances import Allowance, Allowances

__all__ = ["Dispatcher", "OrderedResults"]

T = TypeVar("T")
U = TypeVar("U")
Job = Callable[[Allowance | None], Awaitable[Any]]


class Dispatcher:
    """Runs jobs in the order of submission: ``future = dispatcher.submit(job, calls)``, and ``await
    dispatcher.close()`` at the end."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._allowances = Allowances(1)
        self._queue: asyncio.Queue[tuple[int, Job, int, asyncio.Future[Any]]] = asyncio.Queue()
        self._workers: list[asyncio.Task[None]] = []
        self._submitted = 0
        self._cut: float = math.inf  # the number of the first job that is refused
        self._spent: BudgetExhausted | None = None
        self._unfinished: set[int] = set()  # numbers of queued and running jobs
        self._running = 0
        self._context = contextvars.copy_context()  # jobs run in the scope of the run, not of the submitter
        self._refused: list[asyncio.Future[Any]] = []

    def submit(self, job: Job, calls: int) -> asyncio.Future[Any]:
        """Submit a job that makes about ``calls`` model calls at most. The future gets its result or its error; for a
        refused job BudgetExhausted, once all jobs before the cut have ended."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_retrieve_exception)
        number = self._submitted
        self._submitted += 1
        if number >= self._cut:
            self._refused.append(future)
            self._fail_refused()
            return future
        self._unfinished.add(number)
        self._queue.put_nowait((number, job, calls, future))
        if len(self._workers) < self.width:
            self._workers.append(asyncio.create_task(self._work(), context=self._context.copy()))
        return future

    def cut(self, error: BudgetExhausted) -> None:
        """Refuse all jobs that are submitted from now on."""
        self._cut_at(self._submitted, error)

    @property
    def spent(self) -> BudgetExhausted | None:
        """The error with which jobs are refused; None while jobs are accepted."""
        return self._spent

    def renew_budget(self) -> None:
        """Give jobs their shares of the changed budget from now on. Must be called while no job is running."""
        self._allowances = self._context.copy().run(Allowances, 1)

    async def close(self) -> None:
        """Cancel running jobs."""
        await end_tasks(self._workers)

    async def _work(self) -> None:
        while True:
            number, job, calls, future = await self._queue.get()
            self._running += 1
            try:
                await guarded("the program", self._run_job, number, job, calls, future)
            finally:
                self._running -= 1
                self._unfinished.discard(number)
                self._fail_refused()
            await asyncio.sleep(0)  # jobs that never wait let the submitter, views and a stop run in between

    async def _run_job(self, number: int, job: Job, calls: int, future: asyncio.Future[Any]) -> None:
        if number >= self._cut:
            self._refused.append(future)
            return
        if future.cancelled():
            return
        try:
            async with self._allowances.step(calls) as funds:
                result = await guarded("the program", job, funds)
        except asyncio.CancelledError:
            future.cancel()
            raise
        except BudgetExhausted as error:
            self._cut_at(number, error)
            self._refused.append(future)
        except BaseException as error:  # the submitter handles it
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)

    def _cut_at(self, number: int, error: BudgetExhausted) -> None:
        self._spent = self._spent or error
        self._cut = min(self._cut, number)

    def _fail_refused(self) -> None:
        """Raise BudgetExhausted in refused futures, once no job before the cut is unfinished: until then the results of
        the run are not complete."""
        if self._spent is None or self._running or any(number < self._cut for number in self._unfinished):
            return
        refused = self._refused
        self._refused = []
        for future in refused:
            if not future.done():
                future.set_exception(self._spent)


class OrderedResults:
    """Records results in the order of submission, whichever is ready first."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self._last: asyncio.Future[None] | None = None  # done once the latest submission has been recorded

    def submit(self, work: Callable[[], Awaitable[T]], record: Callable[[T], U]) -> asyncio.Task[U]:
        """Start ``work`` as a task. Its result goes to ``record`` after the results of all earlier submissions; what
        ``record`` returns is the task's result."""
        previous = self._last
        recorded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._last = recorded

        async def in_order() -> U:
            try:
                result = await work()
                if previous is not None:
                    await asyncio.wait([previous])
                return record(result)
            finally:
                if not recorded.done():
                    recorded.set_result(None)

        return self.task(in_order)

    def task(self, work: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        """Start ``work`` as a task that ends with ``close`` at the latest. Nothing is recorded."""
        task = asyncio.get_running_loop().create_task(guarded("the optimizer", work))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(_retrieve_exception)
        return task

    async def wait_recorded(self) -> None:
        """Wait until everything submitted so far has been recorded."""
        if self._last is not None:
            await asyncio.wait([self._last])

    async def wait_ended(self) -> None:
        """Wait until no task is running."""
        while self.tasks:
            await asyncio.wait(self.tasks)

    async def close(self) -> None:
        """Cancel running tasks."""
        await end_tasks(list(self.tasks))


def _retrieve_exception(future: asyncio.Future[Any]) -> None:
    """Mark an exception as retrieved, so that asyncio logs nothing where nobody awaits the future."""
    if not future.cancelled():
        future.exception()
