"""``run_sync``: async work from plain code, on one long-lived event loop thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dspynb.errors import ScopeError
from dspynb.running.signals import interrupted, joined, running_loop
from dspynb.running.tasks import GRACE
from dspynb.scope import current_scope

__all__ = ["LoopThread", "run_sync"]

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, one for as long as the process lives, so that its connections are reused:
    begun when it is first asked for, and anew in a forked child, which has the loop but not its thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, running."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True).start()
            return self._loop


_THREAD = LoopThread("dspynb-loop")


def run_sync(make: Callable[[], Awaitable[T]]) -> T:
    """Await ``make()`` on the loop thread, under the caller's scope, and return its result.

    Ctrl-C cancels it and raises KeyboardInterrupt, as in any sync code; ``last_run()`` has what was done. Raises
    ScopeError when called on the loop thread itself, which would wait for itself.

    >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> dn.run_sync(lambda: ask.batch([{"question": "2+2?"}, {"question": "1+3?"}]))
    [Prediction(answer='4'), Prediction(answer='4')]
    """
    loop = _THREAD.loop()
    if running_loop() is loop:
        raise ScopeError("run_sync was called by code that run_sync runs; use `await` there")
    ended = threading.Event()
    with joined(loop):
        future: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(_until(make, ended), loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            ended.wait(GRACE)  # for the run to keep what it has
            raise
        except concurrent.futures.CancelledError:
            current_scope().admit(0)  # RunStopped, if it was cancelled by a stop
            if interrupted():  # the kernel's handler noted it, but did not raise
                raise KeyboardInterrupt from None
            raise asyncio.CancelledError from None


async def _until(make: Callable[[], Awaitable[T]], ended: threading.Event) -> T:
    try:
        return await make()
    finally:
        ended.set()
