"""The order of steps and requests, and what is reserved for one request."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dspynb.scope.amounts import NOTHING, Amounts, Cost

if TYPE_CHECKING:
    from dspynb.scope.ledger import Ledger

__all__ = ["RESERVATION", "OpenStep", "Position", "Reservation", "next_position"]

Position = tuple[int, ...]
"""The position of a step or request: the numbers of the steps around it, outermost first, and its own number."""

_numbers = itertools.count()
"""Numbers of steps and requests that are not inside a step."""


def next_position(steps: Sequence[OpenStep]) -> Position:
    """The position of the next step or request inside open steps, of which the first is the innermost."""
    if not steps:
        return (next(_numbers),)
    return (*steps[0].position, next(steps[0].numbers))


@dataclass(eq=False, slots=True)
class OpenStep:
    """A step that has begun and has not ended: a row, an attempt, a proposal. ``calls``: about how many requests it
    sends at most."""

    position: Position
    calls: int
    numbers: Iterator[int] = field(default_factory=itertools.count)


_NO_NUMBERS: Iterator[int] = iter(())


class Reservation:
    """What one request may cost, and its position.

    ``steps``: the steps around it. ``count_prompt``: counts the tokens of the prompt exactly; None if they cannot be
    counted. ``numbers``: of the requests inside. ``amounts``: what each ledger has reserved for it. ``waits_in``: the
    ledgers in which it waits for its turn. ``is_started``: whether all ledgers have admitted it before. ``is_closed``:
    whether the request has ended, so that nothing is reserved for it any more.
    """

    __slots__ = (
        "amounts",
        "changed",
        "cost",
        "count_prompt",
        "is_closed",
        "is_started",
        "loop",
        "numbers",
        "position",
        "steps",
        "waits_in",
    )

    def __init__(
        self,
        position: Position,
        cost: Cost,
        steps: Sequence[OpenStep] = (),
        count_prompt: Callable[[], int | None] | None = None,
    ) -> None:
        self.position = position
        self.cost = cost
        self.steps = steps
        self.count_prompt = count_prompt
        self.numbers: Iterator[int] = _NO_NUMBERS
        self.amounts: dict[Ledger, Amounts] = {}
        self.waits_in: set[Ledger] | None = None
        self.is_started = False
        self.is_closed = False
        self.changed: asyncio.Event | None = None  # is set when a ledger has changed in which this one waits
        self.loop: asyncio.AbstractEventLoop | None = None

    def inner_position(self) -> Position:
        """The position of the next request inside this one."""
        if self.numbers is _NO_NUMBERS:
            self.numbers = itertools.count()
        return (*self.position, next(self.numbers))

    def cancel(self) -> None:
        """Give back what is still reserved."""
        for ledger in list(self.amounts):
            ledger.settle(self, NOTHING)

    def close(self) -> None:
        """Give back what is still reserved, at the end of the request."""
        self.is_closed = True
        if self.amounts:
            self.cancel()

    def notify(self) -> None:
        """Wake the task that waits for this reservation, which may be in another thread's loop."""
        if self.loop is None or self.changed is None:
            return
        try:
            self.loop.call_soon_threadsafe(self.changed.set)
        except RuntimeError:  # its loop is closed
            return


RESERVATION: ContextVar[Reservation | None] = ContextVar("dspynb_reservation", default=None)
"""The reservation of the request that is being made. Requests that a model makes meanwhile are made inside it."""
