"""An event loop whose clock jumps to the next timer, so that a simulation of hours takes as long as its computing."""

from __future__ import annotations

import asyncio
import selectors

__all__ = ["VirtualLoop"]

_PATIENCE = 30.0
"""Seconds to wait for something outside of the loop, such as a thread, before the loop counts as stuck."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """``asyncio.Runner(loop_factory=VirtualLoop)``: where tasks only wait for timers, no time passes. Raises
    RuntimeError where they wait for something that does not come."""

    def __init__(self) -> None:
        self._selector_of_jumps = _JumpingSelector()
        super().__init__(self._selector_of_jumps)

    def time(self) -> float:
        """Seconds since the loop was made, with those that it has skipped."""
        return self._selector_of_jumps.skipped


class _JumpingSelector(selectors.SelectSelector):
    """Returns at once and notes the time that it should have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """The ready file objects. Waits only where the loop has no timer."""
        if timeout is None:
            events = super().select(_PATIENCE)
            if not events:
                raise RuntimeError("the simulation waits for something that does not come")
            return events
        events = super().select(0)
        if not events:
            self.skipped += max(0.0, timeout)
        return events
