"""Ctrl-C and the kernel's stop button: one SIGINT handler for all runs that something awaits in the foreground.

A kernel interrupt reaches Python only when the event loop next wakes, and arrives as a CancelledError in whatever task
the front end chose to cancel. So while runs are awaited, one handler marks them all interrupted, calls the handler
that was there before (it cancels the cell's or main task), and wakes the loops.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from _signal import SIG_IGN, SIGINT, getsignal, signal  # those of `signal` spend 100 µs on making enums
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol, TypeVar

__all__ = ["Interruptible", "foreground"]

T = TypeVar("T")


class Interruptible(Protocol):
    """A run, as far as signals care."""

    def interrupt(self) -> None: ...


_waiting: dict[Interruptible, int] = {}  # how often each is waited for; a Counter's methods are in Python
_loops: dict[asyncio.AbstractEventLoop, int] = {}
_joined: dict[asyncio.AbstractEventLoop, int] = {}  # loops of other threads that the main thread waits for
_previous: Any = None
_presses = 0


class foreground:  # noqa: N801  # a class and no generator: every outermost call goes through it
    """While inside, an interrupt reaches ``run``: on the main thread, or on a loop that the main thread waits for."""

    __slots__ = ("_counted", "_loop", "_on_main", "_run")

    def __init__(self, run: Interruptible) -> None:
        self._run = run

    def __enter__(self) -> None:
        self._on_main, self._loop = _on_main_thread(), running_loop()
        self._counted = self._on_main or self._loop in _joined
        if self._counted:
            _add(_waiting, self._run)
            if self._loop is not None:
                _add(_loops, self._loop)
        if self._on_main:
            _install()

    def __exit__(self, *_: object) -> None:
        if self._counted:
            _drop(_waiting, self._run)
            if self._loop is not None:
                _drop(_loops, self._loop)
        if self._on_main:
            _restore()


@contextlib.contextmanager
def joined(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """While inside, this thread waits for work on another thread's loop; if it is the main one, for its signals too."""
    if not _on_main_thread():
        yield
        return
    _add(_joined, loop)
    _install()
    try:
        yield
    finally:
        _drop(_joined, loop)
        _restore()


def interrupted() -> bool:
    """Whether SIGINT came since the handler was set."""
    return _presses > 0


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _on_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident


def _install() -> None:
    global _previous, _presses  # one process has one SIGINT handler
    current = getsignal(SIGINT)
    if current is not _on_sigint and current not in (None, SIG_IGN):
        # None: a handler set outside Python, which could not be called or put back. Ignored: a script begun in the
        # background, or a kernel between its cells
        _previous, _presses = current, 0
        signal(SIGINT, _on_sigint)


def _restore() -> None:
    if not _waiting and not _joined and getsignal(SIGINT) is _on_sigint:
        signal(SIGINT, _previous)  # only if it is still ours: ipykernel swaps handlers around a cell


def _add(counts: dict[T, int], key: T) -> None:
    counts[key] = counts.get(key, 0) + 1


def _drop(counts: dict[T, int], key: T) -> None:
    left = counts.pop(key) - 1
    if left > 0:
        counts[key] = left


def _on_sigint(signum: int, frame: FrameType | None) -> None:
    global _presses  # noqa: PLW0603
    _presses += 1
    for run in list(_waiting):
        run.interrupt()
    for loop in list(_loops):
        with contextlib.suppress(RuntimeError):  # a loop that closed meanwhile
            loop.call_soon_threadsafe(_nothing)
    if _presses == 1:
        _call(_previous, signum, frame)
    elif _in_task():
        # A second press means that a reward or tool is computing and never lets the loop run. A KeyboardInterrupt
        # would tear the kernel's loop down; a CancelledError inside the current task ends just that task.
        raise asyncio.CancelledError("interrupted twice")


def _call(handler: Callable[[int, FrameType | None], Any] | int | None, signum: int, frame: FrameType | None) -> None:
    if callable(handler):
        handler(signum, frame)


def _in_task() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


def _nothing() -> None:
    """Waking the loop is the point."""
