"""How many calls at a time, how many a minute, and when to try again."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeVar
from weakref import WeakKeyDictionary

from dspynb.errors import ModelError, RateLimited

__all__ = ["AdaptiveLimit", "Limits", "Pace", "backoff", "with_retries"]

T = TypeVar("T")
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0


class AdaptiveLimit:
    """At most ``most`` calls at a time. A rate limit halves that, once a burst; each success lets it grow back.

    ``async with limit:`` holds a slot; a cancelled waiter holds none.
    """

    def __init__(self, most: int) -> None:
        self.most, self.limit = most, float(most)
        self.running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._halved_at = 0

    async def __aenter__(self) -> AdaptiveLimit:
        if self.running >= int(self.limit) or self._waiting:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._free()  # the slot had just been given to us
                raise
        else:
            self.running += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if isinstance(error, RateLimited):
            self._shrink()
        elif kind is None:
            self.limit = min(self.most, self.limit + 1 / self.limit)
        self._free()

    def _shrink(self) -> None:
        # Calls that were under way when it halved tell nothing about the smaller limit.
        self._halved_at -= 1
        if self._halved_at <= 0:
            self.limit = max(1.0, self.limit / 2)
            self._halved_at = self.running

    def _free(self) -> None:
        self.running -= 1
        while self._waiting and self.running < int(self.limit):
            turn = self._waiting.popleft()
            if not turn.done():
                self.running += 1
                turn.set_result(None)


class Pace:
    """At most so many units a minute: a bucket that fills steadily. ``wait(units)`` sleeps until they are there."""

    def __init__(self, a_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.a_minute, self._clock = a_minute, clock
        self._level, self._at = a_minute / 60, clock()  # a second's worth to begin with

    def take(self, units: float) -> float:
        """Take units now and return the seconds to wait for them."""
        now = self._clock()
        full = self.a_minute / 60
        self._level = min(full, self._level + (now - self._at) * self.a_minute / 60) - units
        self._at = now
        return max(0.0, -self._level * 60 / self.a_minute)


class Limits:
    """One model's limits; what belongs to an event loop is kept for each loop."""

    def __init__(self, concurrency: int, rpm: float | None, tpm: float | None) -> None:
        self.concurrency, self.rpm, self.tpm = concurrency, rpm, tpm
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, AdaptiveLimit] = WeakKeyDictionary()
        self._requests = Pace(rpm) if rpm else None
        self._tokens = Pace(tpm) if tpm else None

    @property
    def slots(self) -> AdaptiveLimit:
        """The slots of the running loop."""
        loop = asyncio.get_running_loop()
        slots = self._slots.get(loop)
        if slots is None:
            slots = self._slots[loop] = AdaptiveLimit(self.concurrency)
        return slots

    @property
    def paced(self) -> bool:
        """Whether requests or tokens a minute are limited."""
        return self._requests is not None or self._tokens is not None

    async def pace(self, tokens: float) -> None:
        """Wait until a request of about so many tokens may start."""
        waits = [self._requests.take(1) if self._requests else 0.0, self._tokens.take(tokens) if self._tokens else 0.0]
        if max(waits) > 0:
            await asyncio.sleep(max(waits))


def backoff(failures: int, retry_after: float | None) -> float:
    """Seconds to wait after so many failures: what the provider asked for, else exponential with full jitter."""
    if retry_after is not None:
        return retry_after * random.uniform(1.0, 1.1)  # noqa: S311  # spreads callers, keeps no secret
    return random.uniform(0.0, min(_LONGEST_WAIT, _FIRST_WAIT * 2**failures))  # noqa: S311


async def with_retries(
    attempt: Callable[[], Awaitable[T]],
    retries: int,
    deadline: float | None,
    may_retry: Callable[[ModelError], object] = lambda _: None,
) -> tuple[T, int]:
    """The result of the first try that succeeds, and how many failed before it (an error has that as ``retries``).

    ``may_retry`` is called with the error before each further try, and raises where there may be none. Only retryable
    errors are tried again, at most ``retries`` times, and not beyond ``deadline`` (seconds from now).
    """
    ends = None if deadline is None else time.monotonic() + deadline
    for failures in range(retries + 1):
        try:
            return await attempt(), failures
        except ModelError as error:
            wait = backoff(failures, error.retry_after)
            too_late = ends is not None and time.monotonic() + wait > ends
            error.retries = failures
            if not error.retryable or failures == retries or too_late:
                raise
            may_retry(error)
            await asyncio.sleep(wait)
    raise AssertionError("unreachable")
