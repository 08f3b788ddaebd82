"""Ctrl-C and the kernel's stop button: one SIGINT handler for all runs that are awaited in the foreground.

An interrupt of the kernel reaches Python only when the event loop next wakes, and arrives as a CancelledError in
whatever task the front end cancels. So while runs are awaited, one handler marks all of them as interrupted, calls the
previous handler (which cancels the task of the cell or the main task), and wakes the loops.

Only the handlers of Python, asyncio, ipykernel and IPython are wrapped in this way. Any other handler stays in place
and decides what Ctrl-C does: that of uvicorn, for example, lets the requests in progress end.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import functools
import math
import socket
import threading
import time
import weakref
from _signal import SIGINT, default_int_handler, getsignal, signal  # those of `signal` take 100 µs to create enums
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol, TypeVar

from dspynb.exits import handles_signals
from dspynb.processes import after_fork_in_child

try:
    from _signal import set_wakeup_fd
except ImportError:  # Pyodide
    set_wakeup_fd = None

__all__ = ["Interruptible", "foreground"]

T = TypeVar("T")


class Interruptible(Protocol):
    """The part of a run that signal handling uses."""

    @property
    def interrupted(self) -> bool: ...

    def interrupt(self) -> None: ...


_awaited_runs: dict[Interruptible, int] = {}  # run → how many times it is awaited; a Counter would be slower
_loops: dict[asyncio.AbstractEventLoop, int] = {}  # loop → how many awaited runs it has
_loop_waits: dict[LoopWait, None] = {}  # of the main thread, oldest first; several if a signal handler waits too
_previous: Any = None  # the handler that _on_sigint replaced
_presses = 0  # how often Ctrl-C was pressed since the handler was installed


class foreground:  # noqa: N801  # a class, since a generator would slow down every outermost call
    """A block in which an interrupt reaches ``run``. It is entered on the main thread, or on a loop for which the main
    thread waits."""

    __slots__ = ("_counted", "_loop", "_on_main", "_run")

    def __init__(self, run: Interruptible) -> None:
        self._run = run

    def __enter__(self) -> None:
        self._on_main, self._loop = _on_main_thread(), running_loop()
        self._counted = self._on_main or _main_waits_for(self._loop)
        if self._counted:
            _increment(_awaited_runs, self._run)
            if self._loop is not None:
                _increment(_loops, self._loop)
        if self._on_main:
            _install(self._run)
            if self._loop is not None:
                _wakeup.begin(self._loop)

    def __exit__(self, *_: object) -> None:
        if self._counted:
            _decrement(_awaited_runs, self._run)
            if self._loop is not None:
                _decrement(_loops, self._loop)
        if self._on_main:
            _restore()


class Bell:
    """One thread waits until another one rings: like a ``threading.Event``, but made of a single lock.

    If a signal raises an exception in the middle of a method of an Event or a concurrent future, its inner lock can
    stay locked, and the thread that sets it later hangs.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def ring(self) -> None:
        """End the wait now, or as soon as it begins."""
        with contextlib.suppress(RuntimeError):  # it was rung before
            self._lock.release()

    def until_rung(self, seconds: float = math.inf) -> None:
        """Wait until it is rung, for at most so many seconds."""
        until = time.monotonic() + seconds
        # In steps of a second: a signal that comes right before the wait in the system is handled only after it.
        while not self._lock.acquire(timeout=max(0.0, min(1.0, until - time.monotonic()))):
            if time.monotonic() >= until:
                return


class LoopWait(Bell):
    """A wait for work on the ``loop`` of another thread. If the main thread waits, Ctrl-C also rings it, and sets
    ``pressed``."""

    __slots__ = ("loop", "pressed")

    def __init__(self) -> None:
        super().__init__()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.pressed = False

    def press(self) -> None:
        self.pressed = True
        self.ring()


@contextlib.contextmanager
def loop_wait() -> Iterator[LoopWait]:
    """A block in which this thread waits for work on the loop of another thread.

    On the main thread, the first Ctrl-C rings the wait and raises nothing inside the block: KeyboardInterrupt is raised
    at its end, if the block has not raised it itself.
    """
    wait = LoopWait()
    if not _on_main_thread():
        yield wait
        return
    try:
        _loop_waits[wait] = None
        _install()
        yield wait
    finally:
        _loop_waits.pop(wait, None)
        _restore()
    if wait.pressed:
        raise KeyboardInterrupt


def interrupted() -> bool:
    """Whether SIGINT was received since the handler was installed."""
    return _presses > 0


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _on_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident


def _install(new_run: Interruptible | None = None) -> None:
    global _previous, _presses  # noqa: PLW0603  # one process has one SIGINT handler
    current = getsignal(SIGINT)
    if current is _on_sigint:
        if _presses and all(run.interrupted for run in _awaited_runs if run is not new_run):
            # The presses were meant for runs that have not ended yet, such as one that a broken loop left behind.
            _presses = 0
    elif _is_wrappable(current):
        _previous, _presses = current, 0
        signal(SIGINT, _on_sigint)


def _is_wrappable(handler: object) -> bool:
    """Whether a handler only ends a cell or a script, so that it can be wrapped. False for None (set outside Python),
    SIG_IGN (a script in the background, a kernel between cells), SIG_DFL, and the handlers of servers and users."""
    if handler is default_int_handler:
        return True
    while isinstance(handler, functools.partial):
        handler = handler.func
    if getattr(handler, "__func__", None) is _RUNNERS:
        return True
    module = getattr(handler, "__module__", None) or type(handler).__module__
    return isinstance(module, str) and module.partition(".")[0] in ("ipykernel", "IPython", "prompt_toolkit")


_RUNNERS = asyncio.Runner._on_sigint  # type: ignore[attr-defined]  # what asyncio.run sets


def _restore() -> None:
    if not _awaited_runs:
        _wakeup.end()
    if not _awaited_runs and not _loop_waits and getsignal(SIGINT) is _on_sigint:
        signal(SIGINT, _previous)  # only if the handler was not replaced: ipykernel swaps handlers around a cell


def _main_waits_for(loop: asyncio.AbstractEventLoop | None) -> bool:
    return loop is not None and any(wait.loop is loop for wait in list(_loop_waits))


def _increment(counts: dict[T, int], key: T) -> None:
    counts[key] = counts.get(key, 0) + 1


def _decrement(counts: dict[T, int], key: T) -> None:
    count = counts.pop(key) - 1
    if count > 0:
        counts[key] = count


@handles_signals
def _on_sigint(signum: int, frame: FrameType | None) -> None:
    global _presses  # noqa: PLW0603
    _presses += 1
    for run in list(_awaited_runs):
        run.interrupt()
    for loop in list(_loops):
        _wake(loop)
    if not _loop_waits and not any(loop.is_running() for loop in _loops):
        # Nothing waits: the runs belong to a loop that a KeyboardInterrupt ended.
        _call_handler(_previous, signum, frame)
    elif _presses == 1:
        for wait in list(_loop_waits):
            wait.press()  # the wait raises KeyboardInterrupt where that cannot leave a lock locked
        if not (_loop_waits and _previous is default_int_handler) and not _cancel_main(frame):
            _call_handler(_previous, signum, frame)
    elif _in_task():
        # A second press means that a reward or tool computes without ever letting the loop run. A KeyboardInterrupt
        # would end the kernel's loop; a CancelledError inside the current task ends only that task.
        raise asyncio.CancelledError("interrupted twice")
    elif _previous is default_int_handler:
        _call_handler(_previous, signum, frame)


def _cancel_main(frame: FrameType | None) -> bool:
    """Cancel the task of ``run_until_complete``, as ``asyncio.run`` does. Returns whether there was such a task.

    In plain IPython, Python's own handler would raise KeyboardInterrupt out of ``run_until_complete``, and the task
    would never end.
    """
    if _previous is not default_int_handler:
        return False
    while frame is not None and frame.f_code.co_name != "run_until_complete":
        frame = frame.f_back
    if frame is None or frame.f_back is None or frame.f_back.f_globals.get("__name__") == "asyncio.runners":
        return False  # a kernel's own task: it runs in asyncio.run, where Python's handler was set again
    main = frame.f_locals.get("future")
    if not isinstance(main, asyncio.Task) or main.done() or main.get_loop() not in _loops:
        return False
    main.add_done_callback(_raise_interrupt)
    main.cancel()
    _wake(main.get_loop())
    return True


def _raise_interrupt(main: asyncio.Task[Any]) -> None:
    """Make ``run_until_complete`` raise KeyboardInterrupt, as it would without a run."""
    if main.cancelled():
        raise KeyboardInterrupt


def _wake(loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(_do_nothing)


class _SignalWakeup:
    """Lets signals wake the loop of the main thread.

    Python calls a signal handler between two steps of its code. If the signal comes right before the loop waits in the
    system, the handler is called only when the loop next wakes, perhaps a minute later. So the signal writes to a
    socket that the loop reads.

    The socket is never closed. A loop may close its own socket while that is still set for signals, and its number can
    be used again for a file.
    """

    def __init__(self) -> None:
        self._reset()
        after_fork_in_child(self._reset)

    def _reset(self) -> None:
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        self._is_set = False

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let signals wake this loop from now on. Does nothing if the loop or a server has its own way for that."""
        if self._is_set or set_wakeup_fd is None or getsignal(SIGINT) is not _on_sigint:
            return
        if not self._is_read_by(loop) or self._sockets is None:
            return
        earlier_fd = set_wakeup_fd(self._sockets[1].fileno(), warn_on_full_buffer=False)
        self._is_set = earlier_fd == -1
        if not self._is_set:
            set_wakeup_fd(earlier_fd)

    def end(self) -> None:
        """Let signals no longer wake a loop."""
        if self._is_set and self._sockets is not None:
            self._is_set = False
            current_fd = set_wakeup_fd(-1)
            if current_fd not in (-1, self._sockets[1].fileno()):
                set_wakeup_fd(current_fd)  # other code has set it since

    def _is_read_by(self, loop: asyncio.AbstractEventLoop) -> bool:
        if loop in self._loops:
            return True
        try:
            if self._sockets is None:
                self._sockets = socket.socketpair()
                for end in self._sockets:
                    end.setblocking(False)
            loop.add_reader(self._sockets[0].fileno(), self._drain)
        except (OSError, NotImplementedError, AttributeError):  # loops on Windows wake by themselves; Pyodide has none
            return False
        self._loops.add(loop)
        return True

    def _drain(self) -> None:
        if self._sockets is not None:
            with contextlib.suppress(OSError):
                self._sockets[0].recv(4096)


_wakeup = _SignalWakeup()


def _call_handler(
    handler: Callable[[int, FrameType | None], Any] | int | None, signum: int, frame: FrameType | None
) -> None:
    if callable(handler):
        handler(signum, frame)


def _in_task() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


def _do_nothing() -> None:
    """Does nothing: scheduling it wakes the loop."""
