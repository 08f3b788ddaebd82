"""Plain functions in threads of their own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_thread"]

T = TypeVar("T")


async def in_thread(fn: Callable[[], T], name: str) -> T:
    """``fn()`` in a thread that sees the caller's context; what it raises is raised here.

    Not ``asyncio.to_thread``: its few threads are shared by the whole loop, and the loop and the interpreter wait for
    them when they end, so that one function that hangs would hold up all. A cancelled caller leaves the thread behind.
    """
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    ended: asyncio.Future[None] = loop.create_future()
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(context.run(fn))
        except BaseException as error:  # also SystemExit: the caller says what to do with it
            errors.append(error)
        with contextlib.suppress(RuntimeError):  # the loop has closed; nobody waits
            loop.call_soon_threadsafe(_settle, ended)

    threading.Thread(target=work, name=name, daemon=True).start()
    await ended
    if errors:
        raise errors[0]
    return results[0]


def _settle(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
