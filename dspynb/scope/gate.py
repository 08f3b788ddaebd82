"""The gate at which the calls of paused runs wait."""

from __future__ import annotations

import asyncio
import threading
import weakref

from dspynb.scope.core import Scope

__all__ = ["GATE"]


class Gate:
    """Where the calls of paused runs wait. ``shut``: whether any run of this process is paused; all that is looked at
    while none is."""

    def __init__(self) -> None:
        self.shut = False
        self._paused: weakref.WeakSet[object] = weakref.WeakSet()
        self._waiting: dict[asyncio.Future[None], object] = {}
        self._lock = threading.Lock()

    def close(self, run: object) -> bool:
        """Let the run's calls wait; whether they did not before."""
        with self._lock:
            before = run in self._paused
            self._paused.add(run)
            self.shut = True
            return not before

    def open(self, run: object) -> bool:
        """Let them pass; whether they waited."""
        with self._lock:
            before = run in self._paused
            self._paused.discard(run)
            self.shut = bool(self._paused)
            waiting = [future for future, of in self._waiting.items() if of is run]
            for future in waiting:
                del self._waiting[future]
        for future in waiting:
            if not (loop := future.get_loop()).is_closed():
                loop.call_soon_threadsafe(_let_go, future)
        return before

    def holds(self, run: object) -> bool:
        """Whether the run is paused."""
        return self.shut and run in self._paused

    def holding(self, scope: Scope) -> object | None:
        """The innermost run of a scope that is paused."""
        ports = (layer.port for layer in scope.open_layers() if layer.port is not None)
        return next(filter(self.holds, ports), None)

    async def passed(self, scope: Scope) -> None:
        """Wait until no run of the scope is paused; a stop of any of them ends the waiting. Called only where the gate
        is shut."""
        while (run := self.holding(scope)) is not None:
            await scope.in_flight(self._wait(run))

    async def _wait(self, run: object) -> None:
        with self._lock:
            if run not in self._paused:
                return
            future = asyncio.get_running_loop().create_future()
            self._waiting[future] = run
        try:
            await future
        finally:
            with self._lock:
                self._waiting.pop(future, None)


GATE = Gate()


def _let_go(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
