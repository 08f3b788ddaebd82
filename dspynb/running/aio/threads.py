"""Running a plain function in a new thread."""

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
    """Run ``fn()`` in a new thread, in the caller's context, and return its result. Raises the errors of ``fn``.

    ``asyncio.to_thread`` is not suitable: its few threads are shared by the whole loop, and both the loop and the
    interpreter wait for them at their end, so a function that hangs would block everything. If the caller is cancelled,
    the thread continues to run.
    """
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()
    ended: asyncio.Future[None] = loop.create_future()
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(context.run(fn))
        except BaseException as error:  # including SystemExit, which the caller handles
            errors.append(error)
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(_settle, ended)

    threading.Thread(target=work, name=name, daemon=True).start()
    await ended
    if errors:
        raise errors[0]
    return results[0]


def _settle(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
