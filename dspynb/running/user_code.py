"""Calling user code. If it raises SystemExit or similar, that becomes an Exception: one row fails, not the process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn, ParamSpec, TypeVar

from dspynb.errors import RunInterrupted, UserCodeExit
from dspynb.exits import exit_text, is_exit
from dspynb.scope.core import current_scope

__all__ = ["as_exception", "exit_of", "guarded", "reraise_as"]

P = ParamSpec("P")
T = TypeVar("T")


def exit_of(error: BaseException, who: str) -> str | None:
    """A text such as ``"the metric f called sys.exit(3)"`` for an error of user code that is not an Exception.

    None for an Exception, and for an error that must be raised unchanged: a stop, a cancellation, Ctrl-C. ``who``: the
    owner of the code, for the text.
    """
    if isinstance(error, Exception):
        return None
    if isinstance(error, asyncio.CancelledError):
        if not _from_inside(error):
            return None
        return f"{who} was cancelled from inside: it raised CancelledError, or awaited a task that had been cancelled"
    if is_exit(error):
        return f"{who} {exit_text(error)}"
    return None


def as_exception(error: BaseException, who: str) -> BaseException:
    """The error itself, or a UserCodeExit in its place where ``exit_of`` has a text for it."""
    text = exit_of(error, who)
    if text is None:
        return error
    exception = UserCodeExit(f"{text}; raise an Exception in its place")
    exception.__cause__ = error
    return exception


def reraise_as(kind: Callable[[str], Exception], error: BaseException, who: str) -> NoReturn:
    """Raise ``kind(text)`` from an error of user code, SystemExit included. Raises the error itself if it must pass
    unchanged: a stop, a cancellation, Ctrl-C. ``who``: the owner of the code, for the text."""
    if isinstance(error, Exception):
        raise kind(f"{who} raised {type(error).__name__}: {error}") from error
    text = exit_of(error, who)
    if text is None:
        raise error
    raise kind(text) from error


async def guarded(who: str, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Await ``work(...)``, and raise its errors as ``as_exception`` returns them. For the body of a new task, because
    SystemExit and KeyboardInterrupt in a task end asyncio's event loop.

    ``work`` is a function and not an awaitable: if the task is cancelled before it begins, an awaitable would never be
    awaited.
    """
    try:
        return await work(*args, **kwargs)
    except BaseException as error:
        exception = as_exception(error, who)
        if exception is error:
            raise
        raise exception from error


def _from_inside(error: asyncio.CancelledError) -> bool:
    """Whether user code raised a CancelledError itself: neither the running task nor its run was cancelled."""
    if isinstance(error, RunInterrupted):
        return False
    for layer in current_scope().open_layers():
        if getattr(layer.port, "stopped", False):
            return False  # a stop cancels the tasks that a program created before the task that waits for them
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread without a loop
        return True
    return task is not None and not task.cancelling()
