"""What was spent in a block of the scope."""

from __future__ import annotations

from dspynb.data import NO_USAGE, Usage
from dspynb.events import AttemptEnded, Event, PredictorCalled

__all__ = ["Tally"]


class Tally:
    """Counts every model call in a block, also those of rewards, judges and advisors, which no trace has.

    ``calls``: the calls, in the order in which they ended. ``attempts``: how many attempts of searches ended.
    """

    __slots__ = ("attempts", "calls")

    def __init__(self) -> None:
        self.calls: list[PredictorCalled] = []
        self.attempts = 0

    def emit(self, event: Event) -> None:
        """Count an event."""
        if isinstance(event, PredictorCalled):
            self.calls.append(event)
        elif isinstance(event, AttemptEnded) and event.state != "cancelled":
            self.attempts += 1

    @property
    def usage(self) -> Usage:
        """What the calls cost."""
        return sum((call.usage for call in self.calls), NO_USAGE)

    @property
    def cached(self) -> bool:
        """Whether there were calls and a cache answered all of them."""
        return bool(self.calls) and all(call.cached for call in self.calls)
