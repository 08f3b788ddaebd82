"""Limits of a model: concurrent calls, requests and tokens per minute, and retries."""

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

__all__ = ["LONGEST_RETRY_AFTER", "AdaptiveLimit", "Limits", "Pace", "backoff", "with_retries"]

T = TypeVar("T")
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 30.0
LONGEST_RETRY_AFTER = 60.0
"""Maximum number of seconds that a call without a deadline waits because the provider asks for it. Limits per minute
end in this time. Whether a call should wait for the end of a limit per day is for the user to say, with a deadline."""


class AdaptiveLimit:
    """A limit of concurrent calls that adapts to the provider. It starts at ``most``.

    A RateLimited error halves the limit, once per burst of errors; each success lets it grow back. ``async with
    limit:`` holds a slot; a cancelled waiter holds none.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self.running = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._older_calls = 0  # calls that had started before the limit was halved

    async def __aenter__(self) -> AdaptiveLimit:
        if self.running >= int(self.limit) or self._waiters:
            slot = asyncio.get_running_loop().create_future()
            self._waiters.append(slot)
            try:
                await slot
            except asyncio.CancelledError:
                if slot.done() and not slot.cancelled():
                    self._free()  # the slot was assigned just before the cancellation
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
        # A rate limit of a call that started before the limit was halved says nothing about the smaller limit.
        self._older_calls -= 1
        if self._older_calls <= 0:
            self.limit = max(1.0, self.limit / 2)
            self._older_calls = self.running

    def _free(self) -> None:
        self.running -= 1
        while self._waiters and self.running < int(self.limit):
            slot = self._waiters.popleft()
            if not slot.done():
                self.running += 1
                slot.set_result(None)


class Pace:
    """A rate limit as a bucket that fills steadily, and holds the units of one second.

    ``per_minute``: units per minute.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._level = per_minute / 60
        self._updated = clock()

    def take(self, units: float) -> float:
        """Take units now and return the seconds to wait before using them."""
        now = self._clock()
        capacity = self.per_minute / 60
        self._level = min(capacity, self._level + (now - self._updated) * self.per_minute / 60) - units
        self._updated = now
        return max(0.0, -self._level * 60 / self.per_minute)


class Limits:
    """The limits of one model. Each event loop has its own slots."""

    def __init__(self, concurrency: int, rpm: float | None, tpm: float | None) -> None:
        self.concurrency = concurrency
        self.rpm = rpm
        self.tpm = tpm
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
        """Whether requests or tokens per minute are limited."""
        return self._requests is not None or self._tokens is not None

    async def pace(self, tokens: float) -> None:
        """Wait until a request of about ``tokens`` tokens may start."""
        wait = 0.0
        if self._requests:
            wait = self._requests.take(1)
        if self._tokens:
            wait = max(wait, self._tokens.take(tokens))
        if wait > 0:
            await asyncio.sleep(wait)


def backoff(failures: int, retry_after: float | None) -> float:
    """Seconds to wait before the next try: about ``retry_after``, the provider's wish, or without one an exponential
    backoff with full jitter after ``failures`` failures."""
    if retry_after is not None:
        return retry_after * random.uniform(1.0, 1.1)  # noqa: S311  # spreads callers; no secret depends on it
    return random.uniform(0.0, min(_LONGEST_WAIT, _FIRST_WAIT * 2**failures))  # noqa: S311


def _check_wait(error: ModelError, wait: float, end: float | None) -> None:
    """Raise ``error`` if the call may not wait for ``wait`` seconds. ``end``: the time of its deadline, or None."""
    if end is not None:
        if time.monotonic() + wait <= end:
            return
        if error.retry_after is not None:
            error.advise(
                f"the provider asks to wait for {error.retry_after:.0f} s, which is after the deadline: try again "
                "later, or give dn.LM a longer deadline="
            )
        raise error
    if error.retry_after is not None and error.retry_after > LONGEST_RETRY_AFTER:
        error.advise(
            f"the provider asks to wait for {error.retry_after:.0f} s, and a call without deadline= waits for at most "
            f"{LONGEST_RETRY_AFTER:g} s: try again later, or give dn.LM a deadline= that is longer"
        )
        raise error


async def with_retries(
    attempt: Callable[[], Awaitable[T]],
    retries: int,
    deadline: float | None,
    before_retry: Callable[[ModelError], Awaitable[object]] | None = None,
) -> tuple[T, int]:
    """Call ``attempt`` until it succeeds. Returns the result and the number of failed tries.

    Retryable errors are retried at most ``retries`` times, and not later than ``deadline`` seconds from now. Without a
    deadline, an error whose provider asks to wait for more than ``LONGEST_RETRY_AFTER`` seconds is raised at once.
    ``before_retry`` is awaited with the error before each retry and can raise to prevent it. An error that is raised
    has the number of retries as ``error.retries``.
    """
    end = None if deadline is None else time.monotonic() + deadline
    for failures in range(retries + 1):
        try:
            return await attempt(), failures
        except ModelError as error:
            error.retries = failures
            if not error.retryable or failures == retries:
                raise
            wait = backoff(failures, error.retry_after)
            _check_wait(error, wait, end)
            if before_retry is not None:
                await before_retry(error)
            await asyncio.sleep(wait)
    raise AssertionError("unreachable")
