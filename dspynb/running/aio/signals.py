"""Ctrl-C and the kernel's stop button: one SIGINT handler for all runs that something awaits in the foreground.

A kernel interrupt reaches Python only when the event loop next wakes, and arrives as a CancelledError in whatever task
the front end chose to cancel. So while runs are awaited, one handler marks them all interrupted, calls the handler
that was there before (it cancels the cell's or main task), and wakes the loops.

Only handlers of Python, asyncio, ipykernel and IPython are wrapped so. Any other, such as that of uvicorn, which lets
requests under way come to their end, is left as it is: it decides what a Ctrl-C does.
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
from _signal import SIGINT, default_int_handler, getsignal, signal  # those of `signal` spend 100 µs on making enums
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
    """A run, as far as signals care."""

    @property
    def interrupted(self) -> bool: ...

    def interrupt(self) -> None: ...


_waiting: dict[Interruptible, int] = {}  # how often each is waited for; a Counter's methods are in Python
_loops: dict[asyncio.AbstractEventLoop, int] = {}
_joined: dict[Joined, None] = {}  # in the order of their beginnings; more than one where a signal handler waits too
_previous: Any = None
_presses = 0


class foreground:  # noqa: N801  # a class and no generator: every outermost call goes through it
    """While inside, an interrupt reaches ``run``: on the main thread, or on a loop that the main thread waits for."""

    __slots__ = ("_counted", "_loop", "_on_main", "_run")

    def __init__(self, run: Interruptible) -> None:
        self._run = run

    def __enter__(self) -> None:
        self._on_main, self._loop = _on_main_thread(), running_loop()
        self._counted = self._on_main or _main_waits_for(self._loop)
        if self._counted:
            _add(_waiting, self._run)
            if self._loop is not None:
                _add(_loops, self._loop)
        if self._on_main:
            _install(self._run)
            if self._loop is not None:
                _wakes.begin(self._loop)

    def __exit__(self, *_: object) -> None:
        if self._counted:
            _drop(_waiting, self._run)
            if self._loop is not None:
                _drop(_loops, self._loop)
        if self._on_main:
            _restore()


class Bell:
    """One thread waits until it is rung: a ``threading.Event`` that is a lock and no more. A signal's exception in the
    middle of an Event, or of a concurrent future, can leave its lock taken, and whoever sets it later hangs."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def ring(self) -> None:
        """End the wait, now or when it begins."""
        with contextlib.suppress(RuntimeError):  # it was rung before
            self._lock.release()

    def until_rung(self, seconds: float = math.inf) -> None:
        """Wait, for so long at most."""
        until = time.monotonic() + seconds
        # In turns: a signal that comes right before a wait in the system is noticed only after it.
        while not self._lock.acquire(timeout=max(0.0, min(1.0, until - time.monotonic()))):
            if time.monotonic() >= until:
                return


class Joined(Bell):
    """A wait for work on the ``loop`` of another thread. Where the main thread waits, Ctrl-C rings it too, and
    ``pressed`` says so."""

    __slots__ = ("loop", "pressed")

    def __init__(self) -> None:
        super().__init__()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.pressed = False

    def press(self) -> None:
        self.pressed = True
        self.ring()


@contextlib.contextmanager
def joined() -> Iterator[Joined]:
    """While inside, this thread waits for work on another thread's loop; if it is the main one, for its signals too.
    A first Ctrl-C raises nothing inside: KeyboardInterrupt comes at the end at the latest."""
    wait = Joined()
    if not _on_main_thread():
        yield wait
        return
    try:
        _joined[wait] = None
        _install()
        yield wait
    finally:
        _joined.pop(wait, None)
        _restore()
    if wait.pressed:
        raise KeyboardInterrupt


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


def _install(new: Interruptible | None = None) -> None:
    global _previous, _presses  # noqa: PLW0603  # one process has one SIGINT handler
    current = getsignal(SIGINT)
    if current is _on_sigint:
        if _presses and all(run.interrupted for run in _waiting if run is not new):
            _presses = 0  # what was pressed was for runs that have not ended yet, as one that a torn loop left behind
    elif _wraps(current):
        _previous, _presses = current, 0
        signal(SIGINT, _on_sigint)


def _wraps(handler: Any) -> bool:
    """Whether the handler is one of those that only end a cell or script. Not so: None (set outside Python), SIG_IGN (a
    script begun in the background, a kernel between its cells), SIG_DFL, a server's, a user's own."""
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
    if not _waiting:
        _wakes.end()
    if not _waiting and not _joined and getsignal(SIGINT) is _on_sigint:
        signal(SIGINT, _previous)  # only if it is still ours: ipykernel swaps handlers around a cell


def _main_waits_for(loop: asyncio.AbstractEventLoop | None) -> bool:
    return loop is not None and any(wait.loop is loop for wait in list(_joined))


def _add(counts: dict[T, int], key: T) -> None:
    counts[key] = counts.get(key, 0) + 1


def _drop(counts: dict[T, int], key: T) -> None:
    left = counts.pop(key) - 1
    if left > 0:
        counts[key] = left


@handles_signals
def _on_sigint(signum: int, frame: FrameType | None) -> None:
    global _presses  # noqa: PLW0603
    _presses += 1
    for run in list(_waiting):
        run.interrupt()
    for loop in list(_loops):
        _wake(loop)
    if not _joined and not any(loop.is_running() for loop in _loops):
        _call(_previous, signum, frame)  # nobody waits: runs that are left of a loop that a KeyboardInterrupt ended
    elif _presses == 1:
        for wait in list(_joined):
            wait.press()  # it raises KeyboardInterrupt where that can leave no lock taken
        if not (_joined and _previous is default_int_handler) and not _cancel_main(frame):
            _call(_previous, signum, frame)
    elif _in_task():
        # A second press means that a reward or tool is computing and never lets the loop run. A KeyboardInterrupt
        # would tear the kernel's loop down; a CancelledError inside the current task ends just that task.
        raise asyncio.CancelledError("interrupted twice")
    elif _previous is default_int_handler:
        _call(_previous, signum, frame)


def _cancel_main(frame: FrameType | None) -> bool:
    """Where Python's own handler would raise KeyboardInterrupt out of ``run_until_complete``, as in plain IPython, and
    leave its task behind: cancel that task, as ``asyncio.run`` does. Whether there was one."""
    if _previous is not default_int_handler:
        return False
    while frame is not None and frame.f_code.co_name != "run_until_complete":
        frame = frame.f_back
    if frame is None or frame.f_back is None or frame.f_back.f_globals.get("__name__") == "asyncio.runners":
        return False  # of asyncio.run, in which somebody has put Python's handler back: a kernel's own task
    main = frame.f_locals.get("future")
    if not isinstance(main, asyncio.Task) or main.done() or main.get_loop() not in _loops:
        return False
    main.add_done_callback(_as_interrupt)
    main.cancel()
    _wake(main.get_loop())
    return True


def _as_interrupt(main: asyncio.Task[Any]) -> None:
    """Have ``run_until_complete`` raise KeyboardInterrupt, as it would have without a run."""
    if main.cancelled():
        raise KeyboardInterrupt


def _wake(loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.suppress(RuntimeError):  # a loop that closed meanwhile
        loop.call_soon_threadsafe(_nothing)


class _Wakes:
    """Has a signal wake the loop of the main thread: Python calls a handler between two steps of its code, and one that
    comes right before the loop waits in the system would be called when the loop next wakes, in a minute perhaps.

    A socket of its own, that is never closed: that of a loop may be closed while it is still set, and its number be
    used again for a file.
    """

    def __init__(self) -> None:
        self._forget()
        after_fork_in_child(self._forget)

    def _forget(self) -> None:
        self._ends: tuple[socket.socket, socket.socket] | None = None
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        self._set = False

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on. Nothing where the loop, or a server, has its own way to be woken by signals."""
        if self._set or set_wakeup_fd is None or getsignal(SIGINT) is not _on_sigint:
            return
        if not self._reads(loop) or self._ends is None:
            return
        before = set_wakeup_fd(self._ends[1].fileno(), warn_on_full_buffer=False)
        self._set = before == -1
        if not self._set:
            set_wakeup_fd(before)

    def end(self) -> None:
        """No more."""
        if self._set and self._ends is not None:
            self._set = False
            now = set_wakeup_fd(-1)
            if now not in (-1, self._ends[1].fileno()):
                set_wakeup_fd(now)  # of somebody who came later

    def _reads(self, loop: asyncio.AbstractEventLoop) -> bool:
        if loop in self._loops:
            return True
        try:
            if self._ends is None:
                self._ends = socket.socketpair()
                for end in self._ends:
                    end.setblocking(False)
            loop.add_reader(self._ends[0].fileno(), self._drain)
        except (OSError, NotImplementedError, AttributeError):  # a loop of Windows wakes by itself; Pyodide has none
            return False
        self._loops.add(loop)
        return True

    def _drain(self) -> None:
        if self._ends is not None:
            with contextlib.suppress(OSError):
                self._ends[0].recv(4096)


_wakes = _Wakes()


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
