"""``run_sync``: run async work from synchronous code, on one event loop thread that lives as long as the process."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from dspynb.errors import ScopeError, UserCodeExit
from dspynb.exits import exit_text
from dspynb.processes import after_fork_in_child
from dspynb.running.aio.signals import Bell, interrupted, loop_wait, running_loop
from dspynb.running.aio.tasks import GRACE
from dspynb.running.user_code import guarded
from dspynb.scope.core import current_scope

__all__ = ["LoopThread", "run_sync"]

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("dspynb")


class LoopThread:
    """An event loop in a thread of its own, which lives as long as the process so that connections are reused.

    The thread starts when the loop is first used. A forked child, which has the loop but not the thread, starts a new
    one.

    If a task that user code created raises SystemExit, or user code calls ``loop.stop()``, the loop returns; it is run
    again, so that nothing hangs. Code that awaits the task gets its exception. If nothing awaits it within ``GRACE``
    seconds, all work on the loop ends with UserCodeExit, as ``asyncio.run`` would end.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._reset()
        after_fork_in_child(self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending: set[_Pending] = set()
        self._failure: Exception | None = None  # the error because of which the last loop could not run any more

    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop. Starts it if it is not running."""
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                threading.Thread(target=self._serve, args=(loop,), name=self._name, daemon=True).start()
                self._loop = loop
            return self._loop

    def submit(
        self, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[T]:
        """Await ``work(...)`` on the loop. The future fails with UserCodeExit where user code ended the loop."""
        loop = self.loop()
        pending = _Pending(functools.partial(work, *args, **kwargs))
        with self._lock:
            self._pending.add(pending)
        future: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(pending.run(), loop)
        pending.future = future
        future.add_done_callback(lambda _: self._pending.discard(pending))
        if self._loop is not loop:  # the loop has ended meanwhile
            pending.lose(self._failure)
        return future

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            try:
                loop.run_forever()
                loop.call_soon(self._end_all, "the event loop of run_sync was stopped by user code (loop.stop())", None)
            except Exception as error:
                self._lost(loop, error)
                return
            except BaseException as error:  # SystemExit or KeyboardInterrupt of a task or callback
                loop.call_later(GRACE, self._end_all_unless_retrieved, error, _task_that_raised(error))

    def _end_all_unless_retrieved(self, error: BaseException, task: asyncio.Future[Any] | None) -> None:
        if getattr(task, "_log_traceback", True):  # False once the exception was retrieved
            self._end_all(f"a task or callback of user code {exit_text(error)}, which nothing awaited", error)

    def _end_all(self, text: str, error: BaseException | None) -> None:
        _log.error(text)
        for pending in list(self._pending):
            pending.end(text, error)

    def _lost(self, loop: asyncio.AbstractEventLoop, error: Exception) -> None:
        """Give up a loop that cannot run any more. A new one is created when it is next needed."""
        _log.error("the event loop of run_sync failed", exc_info=error)
        with self._lock:
            if self._loop is loop:
                self._loop, self._failure = None, error
            lost_work, self._pending = self._pending, set()
        for pending in lost_work:
            pending.lose(error)
        with contextlib.suppress(Exception):  # the loop is broken
            loop.close()


class _Pending:
    """Work on the loop whose caller waits for it."""

    def __init__(self, work: Callable[[], Awaitable[Any]]) -> None:
        self._work = work
        self._ended: tuple[str, BaseException | None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self.future: concurrent.futures.Future[Any] | None = None

    async def run(self) -> Any:
        self._task = asyncio.current_task()
        try:
            return await guarded("the code passed to run_sync", self._work)
        except asyncio.CancelledError:
            if self._ended is None:
                raise
            text, cause = self._ended
            raise UserCodeExit(text) from cause

    def end(self, text: str, error: BaseException | None) -> None:
        """Cancel the work, so that its future fails with UserCodeExit. Called on the loop."""
        if self._task is not None and not self._task.done():
            self._ended = text, error
            self._task.cancel()

    def lose(self, error: Exception | None = None) -> None:
        """End the work because the loop does not run any more. Its coroutine is closed, so that its runs end."""
        coroutine: Any = None if self._task is None else self._task.get_coro()
        if coroutine is not None:
            with contextlib.suppress(Exception):
                coroutine.close()
        if self.future is not None and not self.future.done():
            reason = f": {exit_text(error)}" if error else ""
            exception = UserCodeExit(f"the event loop of run_sync has ended{reason}")
            exception.__cause__ = error
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                self.future.set_exception(exception)


def _task_that_raised(error: BaseException) -> asyncio.Future[Any] | None:
    """The task that was running when the error left the event loop; None if the traceback does not show it.

    asyncio lets SystemExit and KeyboardInterrupt out of the loop. Their traceback has a frame of ``Handle._run``, and
    the callback of that handle is a bound method of the task.
    """
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code is asyncio.Handle._run.__code__:
            handle = frame.f_locals.get("self")
            task = getattr(getattr(handle, "_callback", None), "__self__", None)
            return task if isinstance(task, asyncio.Future) else None
        traceback = traceback.tb_next
    return None


_THREAD = LoopThread("dspynb-loop")


def run_sync(make: Callable[[], Awaitable[T]]) -> T:
    """Await ``make()`` on the loop thread, in the caller's scope, and return its result. For scripts; in a notebook,
    use ``await``.

    Ctrl-C cancels the work and raises KeyboardInterrupt, as in any synchronous code; ``last_run()`` has the results so
    far. Raises ScopeError when called on the loop thread itself, which would wait for itself, and UserCodeExit where
    user code ended the event loop: by ``loop.stop()``, or by SystemExit in a task that nothing awaits.

    >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> dn.run_sync(lambda: ask.batch([{"question": "2+2?"}, {"question": "1+3?"}]))
    [Prediction(answer='4'), Prediction(answer='4')]
    """
    ended = Bell()
    with loop_wait() as wait:
        wait.loop = _THREAD.loop()
        if running_loop() is wait.loop:
            raise ScopeError("run_sync was called by code that run_sync runs; use `await` there")
        future = _THREAD.submit(_await_and_ring, make, ended)
        future.add_done_callback(lambda _: wait.ring())
        wait.until_rung()
        if wait.pressed:
            future.cancel()
            ended.until_rung(GRACE)  # time for the run to record its results so far
            raise KeyboardInterrupt
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            current_scope().admit(0)  # raises RunStopped if the work was cancelled by a stop
            if interrupted():  # the kernel's handler noted the interrupt, but did not raise
                raise KeyboardInterrupt from None
            raise asyncio.CancelledError from None


async def _await_and_ring(make: Callable[[], Awaitable[T]], ended: Bell) -> T:
    try:
        return await make()
    finally:
        ended.ring()
