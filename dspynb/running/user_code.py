"""Calling user code: what it raises that is no Exception becomes one, so that it costs one row and not the process."""

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
    """``"the metric f called sys.exit(3)"`` where user code raised what is no Exception; None for an Exception, and for
    what must pass as it is: a stop, a cancellation, Ctrl-C. ``who``: whose code it was."""
    if isinstance(error, Exception):
        return None
    if isinstance(error, asyncio.CancelledError):
        if not _from_inside(error):
            return None
        return f"{who} was cancelled from inside: it raised CancelledError, or awaited a task that had been cancelled"
    return f"{who} {exit_text(error)}" if is_exit(error) else None


def as_exception(error: BaseException, who: str) -> BaseException:
    """A UserCodeExit for what ``exit_of`` tells of, else the error itself."""
    text = exit_of(error, who)
    if text is None:
        return error
    exited = UserCodeExit(f"{text}; raise an Exception in its place")
    exited.__cause__ = error
    return exited


def reraise_as(kind: Callable[[str], Exception], error: BaseException, who: str) -> NoReturn:
    """Raise ``kind(text)`` from an error that user code raised. ``who``: whose code it was, for the text. Raises the
    error itself where it must pass as it is: a stop, a cancellation, Ctrl-C."""
    if isinstance(error, Exception):
        raise kind(f"{who} raised {type(error).__name__}: {error}") from error
    text = exit_of(error, who)
    if text is None:
        raise error
    raise kind(text) from error


async def guarded(who: str, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """``work(...)``, for a task of its own: asyncio lets SystemExit and KeyboardInterrupt of a task end the event loop.
    (Not an awaitable: of a task that is cancelled before it begins, it would be left unawaited.)"""
    try:
        return await work(*args, **kwargs)
    except BaseException as error:
        exited = as_exception(error, who)
        if exited is error:
            raise
        raise exited from error


def _from_inside(error: asyncio.CancelledError) -> bool:
    """Whether nobody cancelled the running task, nor the run that it belongs to: the code raised it by itself."""
    if isinstance(error, RunInterrupted):
        return False
    for layer in current_scope().open_layers():
        if getattr(layer.port, "stopped", False):
            return False  # a stop cancels tasks that the program made before the one that waits for them
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread without a loop
        return True
    return task is not None and not task.cancelling()
