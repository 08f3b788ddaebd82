"""Amounts of tokens and USD that are reserved before a request is sent, and settled when its reply has arrived.

A ``Ledger`` belongs to one budget. Each request has a position in the order in which one step after the other would
run: the numbers of the steps around it, outermost first. A request is admitted at once if the limit
also covers what earlier steps may still need; else it waits until these have ended or need less. No request overtakes
one that waits at an earlier position, and a refused request refuses all later ones. So the limit cuts the work at a
place in that order, whatever the timing.
"""

from __future__ import annotations

import math
import sys
import threading
from bisect import bisect_left, insort
from operator import attrgetter

from dspynb.errors import BudgetExhausted
from dspynb.scope.amounts import NOTHING, UNLIMITED, Amounts, Cost
from dspynb.scope.reply_lengths import ReplyLengths
from dspynb.scope.reservation import OpenStep, Position, Reservation

__all__ = ["Ledger", "unknown_price"]

_FINITE = Amounts(sys.float_info.max, sys.float_info.max)
_UNKNOWN_REPLY = 8_192
"""Tokens of a reply without a limit, while too few replies of the model are known."""
_position = attrgetter("position")


def unknown_price(model: str, limit: float) -> BudgetExhausted:
    """The error for a model whose price is unknown, under a budget with this limit of USD."""
    return BudgetExhausted(
        f"a budget of {limit:g} USD needs the price of {model}, which is unknown: give the model "
        'price={"input": …, "output": …} in USD per million tokens, or give a budget of calls= or tokens='
    )


class Ledger:
    """The amounts of one budget: ``limit``, ``spent``, ``reserved`` by requests that are under way. Thread-safe."""

    def __init__(self, limit: Amounts = UNLIMITED) -> None:
        self.limit = limit
        self.spent = NOTHING
        self.reserved = NOTHING
        self._under_way = 0
        self._largest: Amounts | None = NOTHING  # what is reserved for the largest request; None after a change
        self._costs: dict[str, Cost] = {}  # the largest cost of a request so far, by model, as that of later ones
        self._replies: dict[str, ReplyLengths] = {}  # by model
        self._steps: list[OpenStep] = []
        self._calls: dict[OpenStep, int] = {}  # about how many requests each open step may still send
        self._calls_left = 0  # the sum of them
        self._waiting: list[Reservation] = []
        self._without_price: set[str] = set()  # models that have no price and did not report the cost of a reply
        self._cut: Position | None = None  # the position of the first request that was refused
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
            if not self._steps or self._steps[-1].position < step.position:  # as nearly always
                self._steps.append(step)
            else:
                insort(self._steps, step, key=_position)
            self._calls[step] = step.calls
            self._calls_left += step.calls

    def end(self, step: OpenStep) -> None:
        """Forget a step that has ended."""
        with self._lock:
            self._steps.remove(step)
            self._calls_left -= self._calls.pop(step)
            if self._waiting:
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
            if self._cut is not None or self._waiting:
                return False
            cost = request.cost
            limit_tokens, limit_usd = self.limit
            if limit_usd != math.inf and (cost.prompt_usd is None or cost.reply_usd is None):
                return False
            amounts = self._estimate(cost)
            reserved_tokens = self.reserved[0] + amounts[0]  # the sums are written out, since this runs in every call
            reserved_usd = self.reserved[1] + amounts[1]
            tokens = self.spent[0] + reserved_tokens
            usd = self.spent[1] + reserved_usd
            if self._calls_left:
                most = self._largest_with(amounts)
                tokens += self._calls_left * most[0]
                usd += self._calls_left * most[1]
            if tokens > limit_tokens or usd > limit_usd:
                return False
            request.amounts[self] = amounts
            self.reserved = Amounts(reserved_tokens, reserved_usd)
            self._under_way += 1
            return True

    def start(self, request: Reservation) -> None:
        """Note that a request starts which all ledgers have admitted: its steps have one less to send."""
        with self._lock:
            cost = request.cost
            known = self._costs.get(cost.model)
            if known is None or not cost.is_covered_by(known):
                self._costs[cost.model] = cost if known is None else cost.largest(known)
                self._largest = None
            calls = self._calls
            for step in request.steps:
                left = calls.get(step, 0)
                if left > 0:
                    calls[step] = left - 1
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
                insort(self._waiting, request, key=_position)

    def leave(self, request: Reservation) -> None:
        """Wait no longer, such as after a cancellation."""
        with self._lock:
            self._leave(request)
            self._wake()

    def _leave(self, request: Reservation) -> None:
        if request.waits_in and self in request.waits_in:
            request.waits_in.remove(self)
            index = bisect_left(self._waiting, request.position, key=_position)
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
                self._under_way -= 1
                if self._under_way:
                    self.reserved = Amounts(self.reserved[0] - amounts[0], self.reserved[1] - amounts[1])
                else:
                    self.reserved = NOTHING  # without the rounding errors of the sums
            if reply is not None:
                replies = self._replies.get(request.cost.model)
                if replies is None:
                    replies = self._replies[request.cost.model] = ReplyLengths()
                if replies.add(request.position, reply):
                    self._largest = None
            self.spent = Amounts(self.spent[0] + actual[0], self.spent[1] + actual[1])
            if self._waiting:
                self._wake()

    def settle_unknown(self, request: Reservation) -> Amounts:
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
        position = request.position
        cost = request.cost
        if self._cut is not None and position > self._cut:
            raise self.refusal()
        if self.limits_usd and not cost.has_price:
            self._check_price(cost)
        if self._waiting and self._waiting[0].position < position:
            return None
        used = self.spent.plus(self.reserved)
        amounts = self._estimate(cost)
        total = used.plus(amounts)
        if self._is_far(total, amounts):  # as nearly always
            return amounts
        amounts = self._estimate(cost, position)
        total = used.plus(amounts)
        if total.within(self.limit):
            if not in_order:
                return amounts
            is_covered = total.plus(self._largest_with(amounts), self._calls_before(position)).within(self.limit)
            return amounts if is_covered else None
        if self._under_way:
            return None
        if self._may_exceed(cost):
            return None if in_order and self._calls_before(position) else self._rest()
        if request.steps:  # other requests have no order in which all later ones would be refused
            self._cut = position if self._cut is None else min(self._cut, position)
        raise self.refusal(amounts if cost.is_bound and amounts.within(_FINITE) else cost.amounts(0, 0.0))

    def _check_price(self, cost: Cost) -> None:
        """Raise BudgetExhausted if the cost of a request in USD is neither known nor going to be reported."""
        if cost.may_report_usd and cost.model not in self._without_price:
            return
        raise unknown_price(cost.model, self.limit.usd)

    def _estimate(self, cost: Cost, before: Position | None = None) -> Amounts:
        """What to reserve for a request: 0 of what has no limit. ``before``: see ``_expected``."""
        limit_tokens, limit_usd = self.limit
        tokens, usd = self._expected(cost, before)
        if limit_tokens == math.inf:
            tokens = 0.0
        if limit_usd == math.inf:
            usd = 0.0
        return Amounts(tokens, usd)

    def _expected(self, cost: Cost, before: Position | None = None) -> Amounts:
        """What a request may cost. ``before``: counts replies at earlier positions only."""
        if cost.is_bound and cost.has_price:
            return cost.amounts(cost.reply, 0.0)
        replies = self._replies.get(cost.model)
        most = None if replies is None else replies.most(before)
        reply = min(cost.reply, _UNKNOWN_REPLY) if not cost.is_bound else cost.reply
        usd = math.inf if self.limits_usd else 0.0
        if most is not None:
            usd = most.usd
            if not cost.is_bound:
                reply = min(reply, most.tokens)
        return cost.amounts(reply, usd)

    def _may_exceed(self, cost: Cost) -> bool:
        """Whether a request may be sent alone although its cost is not covered: its reply has no limit, or no price."""
        is_estimate = not cost.is_bound or (not cost.has_price and self.limits_usd)
        return is_estimate and not self.is_spent and self.spent.plus(cost.amounts(0, 0.0)).within(self.limit)

    def _rest(self) -> Amounts:
        """What is left of the limits; 0 of one that is not set."""
        tokens = self.limit.tokens - self.spent.tokens
        usd = self.limit.usd - self.spent.usd
        return Amounts(0.0 if tokens == math.inf else tokens, 0.0 if usd == math.inf else usd)

    def refusal(self, amounts: Amounts = NOTHING) -> BudgetExhausted:
        """The error for a request that the limit does not cover."""
        tokens_left = self.limit.tokens - self.spent.tokens
        is_about_tokens = tokens_left < math.inf and (amounts.tokens > tokens_left or not self.limits_usd)
        unit, name = ("tokens", "tokens") if is_about_tokens else ("USD", "usd")
        limit, spent, needed = (getattr(each, name) for each in (self.limit, self.spent, amounts))
        more = ""
        if needed:
            more = f", and the next call may need {needed:.6g}"
        elif not self.is_spent:
            more = ", and an earlier call needs more than the rest"
        return BudgetExhausted(
            f"the budget of {limit:g} {unit} is spent: {spent:.6g} are used{more}; "
            f"give a larger dn.Budget({name}=…) to continue"
        )

    def _calls_before(self, position: Position) -> int:
        """About how many requests open steps at earlier positions may still send, at least one each. Steps around the
        position, and steps inside other counted ones, do not count."""
        calls = 0
        counted: Position | None = None
        for step in self._steps[: bisect_left(self._steps, position, key=_position)]:
            if position[: len(step.position)] == step.position:
                continue
            if counted is not None and step.position[: len(counted)] == counted:
                continue
            counted = step.position
            calls += max(1, self._calls[step])
        return calls

    def _wake(self) -> None:
        """Let the first request that waits try again; when it is decided, it wakes the next one."""
        if self._waiting:
            self._waiting[0].notify()
