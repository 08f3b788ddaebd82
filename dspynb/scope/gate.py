"""The gate at which the calls of paused runs wait."""

from __future__ import annotations

import asyncio
import threading
import weakref

from dspynb.scope.core import Scope

__all__ = ["GATE"]


class Gate:
    """Makes the calls of paused runs wait. ``shut``: whether any run of this process is paused; calls check only this
    flag while none is."""

    def __init__(self) -> None:
        self.shut = False
        self._paused: weakref.WeakSet[object] = weakref.WeakSet()
        self._waiting: dict[asyncio.Future[None], object] = {}
        self._lock = threading.Lock()

    def close(self, run: object) -> bool:
        """Pause the run's calls. Returns whether they were not paused before."""
        with self._lock:
            was_paused = run in self._paused
            self._paused.add(run)
            self.shut = True
            return not was_paused

    def open(self, run: object) -> bool:
        """Let the run's calls continue. Returns whether they were paused."""
        if not self.shut:  # each run that ends opens the gate
            return False
        with self._lock:
            was_paused = run in self._paused
            self._paused.discard(run)
            self.shut = bool(self._paused)
            waiting = [future for future, waiting_run in self._waiting.items() if waiting_run is run]
            for future in waiting:
                del self._waiting[future]
        for future in waiting:
            loop = future.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, future)
        return was_paused

    def holds(self, run: object) -> bool:
        """Whether the run is paused."""
        return self.shut and run in self._paused

    def holding(self, scope: Scope) -> object | None:
        """The innermost paused run of a scope, or None."""
        for layer in scope.open_layers():
            if layer.port is not None and self.holds(layer.port):
                return layer.port
        return None

    async def passed(self, scope: Scope) -> None:
        """Wait until no run of the scope is paused. A stop of any of these runs ends the waiting. Called only while the
        gate is shut."""
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


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
