"""``run_sync``: async work from plain code, on one long-lived event loop thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dspynb.errors import RunInterrupted

__all__ = ["run_sync"]

T = TypeVar("T")
_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def _forget() -> None:
    global _loop, _lock  # a forked child has the loop but not its thread
    _loop, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)


def _loop_thread() -> asyncio.AbstractEventLoop:
    global _loop  # noqa: PLW0603  # one loop a process, so that its connections are reused
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="dspynb-loop", daemon=True).start()
        return _loop


def run_sync(make: Callable[[], Awaitable[T]]) -> T:
    """Await ``make()`` on the loop thread, under the caller's scope, and return its result.

    Ctrl-C cancels it and raises KeyboardInterrupt, as in any sync code.
    """
    future: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(_under(make), _loop_thread())
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        raise
    except RunInterrupted as error:
        raise KeyboardInterrupt from error


async def _under(make: Callable[[], Awaitable[T]]) -> T:
    return await make()
