"""Amounts of tokens and USD that are reserved before a request is sent, and settled when its reply has arrived.

A ``Ledger`` belongs to one budget. Each request has a position: the numbers of the steps around it, outermost first,
and so its place in the order in which one step after the other would run. A request is admitted at once if the limit
also covers what earlier steps may still need; else it waits until these have ended or need less. No request overtakes
one that waits at an earlier position, and a refused request refuses all later ones. So the limit cuts the work at a
place in that order, whatever the timing.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import operator
import sys
import threading
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import NamedTuple

from dspynb.errors import BudgetExhausted

__all__ = [
    "NOTHING",
    "RESERVATION",
    "UNLIMITED",
    "Amounts",
    "Cost",
    "Ledger",
    "OpenStep",
    "Place",
    "Reservation",
    "count_prompt",
    "leave",
    "next_place",
    "reserve",
    "reserve_far",
]

Place = tuple[int, ...]
"""The place of a step or request: the numbers of the steps around it, outermost first, and its own number."""


class Amounts(NamedTuple):
    """A number of tokens and of US dollars."""

    tokens: float = 0.0
    usd: float = 0.0

    def plus(self, other: Amounts, times: float = 1) -> Amounts:
        """The sum with ``times`` times the other."""
        if times == 0:  # 0 times infinity is 0 here
            return self
        return Amounts(self.tokens + times * other.tokens, self.usd + times * other.usd)

    def within(self, limit: Amounts) -> bool:
        """Whether neither number is above that of the limit."""
        return self.tokens <= limit.tokens and self.usd <= limit.usd

    def largest(self, other: Amounts) -> Amounts:
        """The larger number of each."""
        return Amounts(max(self.tokens, other.tokens), max(self.usd, other.usd))


NOTHING = Amounts()
UNLIMITED = Amounts(math.inf, math.inf)
_FINITE = Amounts(sys.float_info.max, sys.float_info.max)


_numbers = itertools.count()
"""Numbers of steps and requests that are not inside a step."""


def next_place(steps: Sequence[OpenStep]) -> Place:
    """The place of the next step or request inside open steps, of which the first is the innermost."""
    if not steps:
        return (next(_numbers),)
    return (*steps[0].place, next(steps[0].numbers))


@dataclass(eq=False, slots=True)
class OpenStep:
    """A step that has begun and has not ended: a row, an attempt, a proposal. ``calls``: about how many requests it
    sends at most."""

    place: Place
    calls: int
    numbers: Iterator[int] = field(default_factory=itertools.count)


class Cost(NamedTuple):
    """What one request may cost.

    ``model``: the name of the model. ``prompt``: the largest number of tokens of the prompt. ``reply``: the largest
    number of tokens of the reply. ``is_bound``: whether no reply can be longer; else ``reply`` is an estimate until
    replies of the model have arrived. ``prompt_usd``, ``reply_usd``: the price of a token; None if it is unknown.
    ``call_usd``: the price of the request itself. ``may_report_usd``: whether the model may report its cost with the
    reply, where its price is unknown.
    """

    model: str
    prompt: int
    reply: float
    is_bound: bool
    prompt_usd: float | None = None
    reply_usd: float | None = None
    call_usd: float = 0.0
    may_report_usd: bool = True

    @property
    def has_price(self) -> bool:
        """Whether the price of a token is known."""
        return self.prompt_usd is not None and self.reply_usd is not None

    def is_covered_by(self, other: Cost) -> bool:
        """Whether no number is above that of the other cost."""
        mine = (self.prompt, self.reply, self.prompt_usd or 0, self.reply_usd or 0, self.call_usd)
        others = (other.prompt, other.reply, other.prompt_usd or 0, other.reply_usd or 0, other.call_usd)
        return all(map(operator.le, mine, others))

    def largest(self, other: Cost) -> Cost:
        """The larger number of each."""
        prompt_usd = reply_usd = None
        if self.prompt_usd is not None and other.prompt_usd is not None:
            prompt_usd = max(self.prompt_usd, other.prompt_usd)
        if self.reply_usd is not None and other.reply_usd is not None:
            reply_usd = max(self.reply_usd, other.reply_usd)
        return self._replace(
            prompt=max(self.prompt, other.prompt),
            reply=max(self.reply, other.reply),
            is_bound=self.is_bound and other.is_bound,
            prompt_usd=prompt_usd,
            reply_usd=reply_usd,
            call_usd=max(self.call_usd, other.call_usd),
        )

    def amounts(self, reply: float, usd: float) -> Amounts:
        """The cost with a reply of this length. ``usd``: the cost in USD if the price of a token is unknown."""
        if self.prompt_usd is not None and self.reply_usd is not None:  # has_price, which mypy does not follow
            usd = self.call_usd + self.prompt * self.prompt_usd + (reply * self.reply_usd if self.reply_usd else 0.0)
        return Amounts(self.prompt + reply, usd)


_NO_NUMBERS: Iterator[int] = iter(())


class Reservation:
    """What one request may cost, and its place.

    ``steps``: the steps around it. ``outer``: the reservation of the request inside which this one is made, such as by
    a model that calls other models. ``count_prompt``: counts the tokens of the prompt exactly; None if they cannot be
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
        "outer",
        "place",
        "steps",
        "waits_in",
    )

    def __init__(
        self,
        place: Place,
        cost: Cost,
        steps: Sequence[OpenStep] = (),
        outer: Reservation | None = None,
        count_prompt: Callable[[], int | None] | None = None,
    ) -> None:
        self.place = place
        self.cost = cost
        self.steps = steps
        self.outer = outer
        self.count_prompt = count_prompt
        self.numbers: Iterator[int] = _NO_NUMBERS
        self.amounts: dict[Ledger, Amounts] = {}
        self.waits_in: set[Ledger] | None = None
        self.is_started = False
        self.is_closed = False
        self.changed: asyncio.Event | None = None  # is set when a ledger has changed in which this one waits
        self.loop: asyncio.AbstractEventLoop | None = None

    def inner_place(self) -> Place:
        """The place of the next request inside this one."""
        if self.numbers is _NO_NUMBERS:
            self.numbers = itertools.count()
        return (*self.place, next(self.numbers))

    def cancel(self) -> None:
        """Give back what is still reserved."""
        for ledger in list(self.amounts):
            ledger.settle(self, NOTHING)

    def close(self) -> None:
        """Give back what is still reserved, at the end of the request."""
        self.is_closed = True
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
"""The reservation of the request that is being made."""

_place = attrgetter("place")
_FEW = 5
"""Fewer replies of a model than these say too little about the length of the next one."""
_UNKNOWN_REPLY = 8_192
"""Tokens of a reply without a limit, while too few replies of the model are known."""
_PATIENCE = 5.0
"""Seconds for which a request waits for earlier steps while no request is under way."""
_MARGIN = 1.25
"""How much longer the next reply may be than the longest one so far."""


class _Replies:
    """What the replies of one model took, in the order of the places of their requests. It keeps few of them: the first
    ones, and each that is larger than all at earlier places."""

    __slots__ = ("_first", "_largest")

    def __init__(self) -> None:
        self._first: list[Place] = []
        self._largest: list[tuple[Place, Amounts]] = []  # the largest amounts up to each of these places

    def add(self, place: Place, amounts: Amounts) -> bool:
        """Add a reply. Returns whether this may change an estimate."""
        is_one_of_the_first = len(self._first) < _FEW or place < self._first[-1]
        if is_one_of_the_first:
            insort(self._first, place)
            del self._first[_FEW:]
        index = bisect_left(self._largest, place, key=itemgetter(0))
        most = self._largest[index - 1][1] if index else NOTHING
        if amounts.within(most):
            return is_one_of_the_first
        most = most.largest(amounts)
        later = self._largest[index:]
        del self._largest[index:]
        self._largest.append((place, most))
        for other_place, other in later:
            if not other.within(most):
                most = most.largest(other)
                self._largest.append((other_place, most))
        return True

    def most(self, before: Place | None = None) -> Amounts | None:
        """The largest amounts of replies at earlier places, with a margin; None for too few replies. ``before``: None
        for those at any place."""
        if len(self._first) < _FEW or (before is not None and self._first[-1] >= before):
            return None
        index = len(self._largest)
        if before is not None:
            index = bisect_left(self._largest, before, key=itemgetter(0))
        most = self._largest[index - 1][1] if index else NOTHING
        return Amounts(most.tokens * _MARGIN, most.usd * _MARGIN)


class Ledger:
    """The amounts of one budget: ``limit``, ``spent``, ``reserved`` by requests that are under way. Thread-safe."""

    def __init__(self, limit: Amounts = UNLIMITED) -> None:
        self.limit = limit
        self.spent = NOTHING
        self.reserved = NOTHING
        self._under_way = 0
        self._largest: Amounts | None = NOTHING  # what is reserved for the largest request; None after a change
        self._costs: dict[str, Cost] = {}  # the largest cost of a request so far, by model, as that of later ones
        self._replies: dict[str, _Replies] = {}  # by model
        self._steps: list[OpenStep] = []
        self._calls: dict[OpenStep, int] = {}  # about how many requests each open step may still send
        self._calls_left = 0  # the sum of them
        self._waiting: list[Reservation] = []
        self._without_price: set[str] = set()  # models that have no price and did not report the cost of a reply
        self._cut: Place | None = None  # the place of the first request that was refused
        self._lock = threading.RLock()

    def set_limit(self, limit: Amounts) -> None:
        """Replace the limit. Requests that wait are decided again."""
        with self._lock:
            self.limit = limit
            self._cut = None
            self._largest = None
            self._wake()

    @property
    def limits_usd(self) -> bool:
        """Whether there is a limit of USD."""
        return self.limit.usd < math.inf

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left of a limit."""
        return self.spent.tokens >= self.limit.tokens or self.spent.usd >= self.limit.usd

    # ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def begin(self, step: OpenStep) -> None:
        """Count what a step may need until it ends."""
        with self._lock:
            insort(self._steps, step, key=_place)
            self._calls[step] = step.calls
            self._calls_left += step.calls

    def end(self, step: OpenStep) -> None:
        """Forget a step that has ended."""
        with self._lock:
            self._steps.remove(step)
            self._calls_left -= self._calls.pop(step)
            self._wake()

    # ── requests ──────────────────────────────────────────────────────────────────────────────────────────────────
    def take(self, request: Reservation, *, in_order: bool = True) -> bool:
        """Reserve what a request may cost. False if it must wait (``reserve`` does so). Raises BudgetExhausted.
        ``in_order``: whether it waits for what earlier steps may need."""
        with self._lock:
            in_order = in_order or self._under_way > 0
            try:
                amounts = self._admitted(request, in_order=in_order)
            except BudgetExhausted:
                self._leave(request)
                self._wake()
                raise
            if amounts is None:
                self.wait(request)
                return False
            self._leave(request)
            request.amounts[self] = amounts
            self.reserved = self.reserved.plus(amounts)
            self._under_way += 1
            self._wake()
            return True

    def take_if_far(self, request: Reservation) -> bool:
        """Reserve what a request may cost if the limit is far, as nearly always. False if it is not decided yet."""
        with self._lock:
            cost = request.cost
            if self._cut is not None or self._waiting or (self.limit.usd < math.inf and not cost.has_price):
                return False
            amounts = self._estimate(cost)
            if not self._is_far(self.spent.plus(self.reserved).plus(amounts), amounts):
                return False
            request.amounts[self] = amounts
            self.reserved = self.reserved.plus(amounts)
            self._under_way += 1
            return True

    def start(self, request: Reservation) -> None:
        """Note that a request starts which all ledgers have admitted: its steps have one less to send."""
        with self._lock:
            known = self._costs.get(request.cost.model)
            if known is None or not request.cost.is_covered_by(known):
                self._costs[request.cost.model] = request.cost if known is None else request.cost.largest(known)
                self._largest = None
            for step in request.steps:
                if self._calls.get(step, 0) > 0:
                    self._calls[step] -= 1
                    self._calls_left -= 1

    def is_far(self, request: Reservation) -> bool:
        """Whether the limit also covers, beside this request, all that open steps may need."""
        with self._lock:
            amounts = self._estimate(request.cost)
            return self._is_far(self.spent.plus(self.reserved).plus(amounts), amounts)

    def _is_far(self, total: Amounts, amounts: Amounts) -> bool:
        return total.plus(self._largest_with(amounts), self._calls_left).within(self.limit)

    def _largest_with(self, amounts: Amounts) -> Amounts:
        """These amounts, or what the largest request of any model would reserve now."""
        largest = self._largest
        if largest is None:
            largest = NOTHING
            for cost in self._costs.values():
                largest = largest.largest(self._estimate(cost))
            self._largest = largest
        return largest if amounts.within(largest) else amounts.largest(largest)

    def wait(self, request: Reservation) -> None:
        """Let no later request overtake this one."""
        with self._lock:
            if request.waits_in is None:
                request.waits_in = set()
            if self not in request.waits_in:
                request.waits_in.add(self)
                insort(self._waiting, request, key=_place)

    def leave(self, request: Reservation) -> None:
        """Wait no longer, such as after a cancellation."""
        with self._lock:
            self._leave(request)
            self._wake()

    def _leave(self, request: Reservation) -> None:
        if request.waits_in and self in request.waits_in:
            request.waits_in.remove(self)
            index = bisect_left(self._waiting, request.place, key=_place)
            while self._waiting[index] is not request:
                index += 1
            del self._waiting[index]

    def note_without_price(self, model: str) -> None:
        """Note that the cost of a reply is unknown. A limit of USD then admits no further request of the model, unless
        it has a price."""
        with self._lock:
            self._without_price.add(model)

    def settle(self, request: Reservation, actual: Amounts, reply: Amounts | None = None) -> None:
        """Replace the reservation of a request that has ended by what it cost. ``reply``: the tokens of its reply, and
        its cost in USD; None without a reply."""
        with self._lock:
            amounts = request.amounts.pop(self, None)
            if amounts is not None:
                self.reserved = self.reserved.plus(amounts, -1)
                self._under_way -= 1
                if not self._under_way:
                    self.reserved = NOTHING  # without the rounding errors of the sums
            if reply is not None:
                replies = self._replies.setdefault(request.cost.model, _Replies())
                if replies.add(request.place, reply):
                    self._largest = None
            self.spend(actual)

    def presume(self, request: Reservation) -> Amounts:
        """Count what a request may have cost whose reply nobody has read, and return it; nothing if nothing is reserved
        for it now. A reply without a limit counts as it is estimated; an unknown price counts nothing."""
        with self._lock:
            if self not in request.amounts:
                return NOTHING
            amounts = self._expected(request.cost)
            if amounts.usd == math.inf:
                amounts = amounts._replace(usd=0.0)
            self.settle(request, amounts)
            return amounts

    def spend(self, actual: Amounts) -> None:
        """Count an amount for which nothing was reserved."""
        with self._lock:
            self.spent = self.spent.plus(actual)
            self._wake()

    def _admitted(self, request: Reservation, *, in_order: bool) -> Amounts | None:
        """What to reserve for a request that may be sent now; None if it must wait. Raises BudgetExhausted."""
        place = request.place
        cost = request.cost
        if self._cut is not None and place > self._cut:
            raise self.refusal()
        if self.limit.usd < math.inf and not cost.has_price:
            self._check_price(cost)
        if self._waiting and self._waiting[0].place < place:
            return None
        used = self.spent.plus(self.reserved)
        amounts = self._estimate(cost)
        total = used.plus(amounts)
        if self._is_far(total, amounts):  # as nearly always
            return amounts
        amounts = self._estimate(cost, place)
        total = used.plus(amounts)
        if total.within(self.limit):
            if not in_order:
                return amounts
            is_covered = total.plus(self._largest_with(amounts), self._calls_before(place)).within(self.limit)
            return amounts if is_covered else None
        if self._under_way:
            return None
        if self._may_exceed(cost):
            return None if in_order and self._calls_before(place) else self._rest()
        if request.steps:  # other requests have no order in which all later ones would be refused
            self._cut = place if self._cut is None else min(self._cut, place)
        raise self.refusal(amounts if cost.is_bound and amounts.within(_FINITE) else cost.amounts(0, 0.0))

    def _check_price(self, cost: Cost) -> None:
        """Raise BudgetExhausted if the cost of a request in USD is neither known nor going to be reported."""
        if cost.may_report_usd and cost.model not in self._without_price:
            return
        raise BudgetExhausted(
            f"a budget of {self.limit.usd:g} USD needs the price of {cost.model}, which is unknown: give the model "
            'price={"input": …, "output": …} in USD per million tokens, or give a budget of calls= or tokens='
        )

    def _estimate(self, cost: Cost, before: Place | None = None) -> Amounts:
        """What to reserve for a request: 0 of what has no limit. ``before``: see ``_expected``."""
        amounts = self._expected(cost, before)
        tokens = amounts.tokens if self.limit.tokens < math.inf else 0.0
        return Amounts(tokens, amounts.usd if self.limit.usd < math.inf else 0.0)

    def _expected(self, cost: Cost, before: Place | None = None) -> Amounts:
        """What a request may cost. ``before``: counts replies at earlier places only."""
        replies = self._replies.get(cost.model)
        most = None if replies is None else replies.most(before)
        reply = min(cost.reply, _UNKNOWN_REPLY) if not cost.is_bound else cost.reply
        usd = math.inf if self.limit.usd < math.inf else 0.0
        if most is not None:
            usd = most.usd
            if not cost.is_bound:
                reply = min(reply, most.tokens)
        return cost.amounts(reply, usd)

    def _may_exceed(self, cost: Cost) -> bool:
        """Whether a request may be sent alone although its cost is not covered: its reply has no limit, or no price."""
        is_estimate = not cost.is_bound or (not cost.has_price and self.limit.usd < math.inf)
        return is_estimate and not self.is_spent and self.spent.plus(cost.amounts(0, 0.0)).within(self.limit)

    def _rest(self) -> Amounts:
        """What is left of the limits; 0 of one that is not set."""
        tokens = self.limit.tokens - self.spent.tokens
        usd = self.limit.usd - self.spent.usd
        return Amounts(0.0 if tokens == math.inf else tokens, 0.0 if usd == math.inf else usd)

    def refusal(self, amounts: Amounts = NOTHING) -> BudgetExhausted:
        """The error for a request that the limit does not cover."""
        problems = []
        for unit, name, spent, limit, needed in (
            ("tokens", "tokens", self.spent.tokens, self.limit.tokens, amounts.tokens),
            ("USD", "usd", self.spent.usd, self.limit.usd, amounts.usd),
        ):
            if limit < math.inf and (spent + needed > limit or not needed):
                if needed:
                    more = f", and the next call may need {needed:.6g}"
                else:
                    more = "" if self.is_spent else ", and an earlier call needs more than the rest"
                problems.append(
                    f"the budget of {limit:g} {unit} is spent: {spent:.6g} are used{more}; "
                    f"give a larger dn.Budget({name}=…) to continue"
                )
        return BudgetExhausted("; ".join(problems[:1]))

    def _calls_before(self, place: Place) -> int:
        """About how many requests open steps at earlier places may still send, at least one each. Steps around the
        place, and steps inside other counted ones, do not count."""
        calls = 0
        counted: Place | None = None
        for step in self._steps[: bisect_left(self._steps, place, key=_place)]:
            if place[: len(step.place)] == step.place:
                continue
            if counted is not None and step.place[: len(counted)] == counted:
                continue
            counted = step.place
            calls += max(1, self._calls[step])
        return calls

    def _wake(self) -> None:
        """Let the first request that waits try again; when it is decided, it wakes the next one."""
        if self._waiting:
            self._waiting[0].notify()


async def reserve(ledgers: Sequence[Ledger], request: Reservation) -> bool:
    """Reserve the cost of a request in all ledgers or in none, and wait for its turn where it must. Returns whether it
    had to wait. Raises BudgetExhausted."""
    in_order = True
    has_waited = False
    if request.changed is None:
        request.changed = asyncio.Event()
        request.loop = asyncio.get_running_loop()
    try:
        while True:
            request.changed.clear()
            if _take_from_all(ledgers, request, in_order=in_order):
                break
            has_waited = True
            in_order = await _is_woken(request.changed)
    except BaseException:
        leave(ledgers, request)
        raise
    _start(ledgers, request)
    return has_waited


def reserve_far(ledgers: Sequence[Ledger], request: Reservation) -> bool:
    """Reserve the cost of a request in all ledgers if their limits are far, else in none. Returns whether it did."""
    for ledger in ledgers:
        if not ledger.take_if_far(request):
            request.cancel()
            return False
    _start(ledgers, request)
    return True


def _start(ledgers: Sequence[Ledger], request: Reservation) -> None:
    if not request.is_started:
        request.is_started = True
        for ledger in ledgers:
            ledger.start(request)


async def _is_woken(changed: asyncio.Event) -> bool:
    """Wait for a change in a ledger, and return whether there was one within the time that steps may take on their own.
    A step can wait for something that a later one holds, such as a lock, and would otherwise wait for ever."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await changed.wait()
    except TimeoutError:
        return False
    return True


async def count_prompt(ledgers: Sequence[Ledger], request: Reservation) -> None:
    """Near a limit, replace the largest number of tokens of a prompt by the exact one, if it can be counted. No later
    request overtakes this one meanwhile; ``reserve`` or ``leave`` must follow."""
    count = request.count_prompt
    if count is None or all(ledger.is_far(request) for ledger in ledgers):
        return
    request.count_prompt = None
    for ledger in ledgers:
        ledger.wait(request)
    try:
        prompt = await asyncio.to_thread(count)
    except BaseException:
        leave(ledgers, request)
        raise
    if prompt is not None:
        request.cost = request.cost._replace(prompt=min(prompt, request.cost.prompt))


def leave(ledgers: Sequence[Ledger], request: Reservation) -> None:
    """Let a request wait no longer."""
    for ledger in ledgers:
        ledger.leave(request)


def _take_from_all(ledgers: Sequence[Ledger], request: Reservation, *, in_order: bool) -> bool:
    """Reserve in all ledgers, or in none."""
    taken: list[Ledger] = []
    try:
        for ledger in ledgers:
            if not ledger.take(request, in_order=in_order):
                break
            taken.append(ledger)
        else:
            return True
    except BudgetExhausted:
        _give_back(taken, request)
        raise
    _give_back(taken, request)
    return False


def _give_back(ledgers: Iterable[Ledger], request: Reservation) -> None:
    for ledger in ledgers:
        ledger.settle(request, NOTHING)
