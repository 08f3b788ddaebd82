"""The ledger of reserved tokens and USD: no limit is exceeded, and the cut does not depend on timing."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass

import pytest

from dspynb.errors import BudgetExhausted
from dspynb.scope.amounts import NOTHING, UNLIMITED, Amounts, Cost
from dspynb.scope.ledger import Ledger
from dspynb.scope.reservation import OpenStep, Reservation
from dspynb.scope.reserving import reserve

PRICE = 1e-6
LONGEST = 400


@dataclass(frozen=True)
class World:
    """Work that a seed describes. ``steps``: for each step the largest prompt, its real share, and the reply of each
    request. ``limits``: of the inner and of the outer budget."""

    steps: list[list[tuple[int, float, int]]]
    most_calls: int
    limits: tuple[Amounts, Amounts]
    is_bound: bool
    has_price: bool

    @classmethod
    def of(cls, seed):
        chance = random.Random(seed)
        most_calls = chance.randint(1, 4)
        steps = []
        for _ in range(chance.randint(1, 60)):
            requests = range(chance.randint(1, most_calls))
            steps.append([(chance.randint(20, 200), chance.uniform(0.5, 1), _reply(chance)) for _ in requests])
        tokens = chance.uniform(800, 30_000)
        inner = Amounts(math.inf, tokens * PRICE) if chance.random() < 0.5 else Amounts(tokens, math.inf)
        outer = Amounts(tokens * chance.choice([0.7, 2]), math.inf) if chance.random() < 0.3 else UNLIMITED
        return cls(steps, most_calls, (inner, outer), chance.random() < 0.5, chance.random() < 0.6)

    @property
    def is_exact(self):
        """Whether the largest cost of each request is known before it is sent."""
        return self.is_bound and (self.has_price or self.limits[0].usd == math.inf)

    def cost(self, prompt):
        price = PRICE if self.has_price else None
        return Cost("m", prompt, LONGEST if self.is_bound else 16_000, self.is_bound, price, price)

    @property
    def smallest_limit(self):
        return min(self.limits[0].tokens, self.limits[0].usd / PRICE, self.limits[1].tokens)


def _reply(chance):
    return min(LONGEST, int(chance.lognormvariate(4, 0.8)))


async def work(world, timing, width):
    """Do the work of a world; the numbers of the finished steps, the tokens spent, and the longest request."""
    chance = random.Random(timing)
    ledgers = [Ledger(limit) for limit in world.limits]
    numbers = iter(range(len(world.steps)))
    finished = set()
    longest = 0.0
    is_cut = False

    async def send(step, number, request):
        nonlocal longest
        prompt, share, reply = request
        reservation = Reservation((*step.position, number), world.cost(prompt), [step])
        await reserve(ledgers, reservation)
        await asyncio.sleep(chance.random() * 0.002 if chance.random() < 0.8 else 0)
        tokens = prompt * share + reply
        longest = max(longest, tokens)
        for ledger in ledgers:
            ledger.settle(reservation, Amounts(tokens, tokens * PRICE), Amounts(reply, tokens * PRICE))

    async def worker():
        nonlocal is_cut
        for number in numbers:
            if is_cut:
                return
            step = OpenStep((number,), world.most_calls)
            for ledger in ledgers:
                ledger.begin(step)
            try:
                for position, request in enumerate(world.steps[number]):
                    await send(step, position, request)
                finished.add(number)
            except BudgetExhausted:
                is_cut = True
            finally:
                for ledger in ledgers:
                    ledger.end(step)

    await asyncio.wait_for(asyncio.gather(*[worker() for _ in range(width)]), 60)
    assert all(ledger.reserved == NOTHING for ledger in ledgers)
    return finished, ledgers[0].spent.tokens, longest


@pytest.mark.parametrize("seed", range(60))
def test_the_same_steps_are_finished_at_any_concurrency_and_no_limit_is_exceeded(seed):
    world = World.of(seed)
    results = [asyncio.run(work(world, timing, width)) for timing, width in ((1, 1), (2, 3), (3, 8), (4, 64))]
    assert len({frozenset(finished) for finished, _, _ in results}) == 1
    for finished, spent, longest in results:
        surplus = 0 if world.is_exact else max(longest, 0.05 * world.smallest_limit)
        assert spent <= world.smallest_limit + surplus + 1e-6
        if len(finished) < len(world.steps) and longest <= 0.05 * world.smallest_limit:
            assert spent >= 0.85 * world.smallest_limit


def request(number, prompt, reply=0, *, steps=()):
    return Reservation((number,), Cost("m", prompt, reply, is_bound=True), list(steps))


def ledger_of(tokens):
    return Ledger(Amounts(tokens, math.inf))


def test_a_request_waits_for_those_under_way_and_none_overtakes_it():
    async def main():
        ledger = ledger_of(100)
        first = request(0, 80)
        await reserve([ledger], first)
        second = asyncio.create_task(reserve([ledger], request(1, 60)))
        third = asyncio.create_task(reserve([ledger], request(2, 10)))
        await asyncio.sleep(0.01)
        assert not second.done()
        assert not third.done()
        ledger.settle(first, Amounts(20, 0))
        await asyncio.gather(second, third)
        assert ledger.reserved.tokens == 70

    asyncio.run(main())


def test_the_first_refused_request_refuses_all_later_ones():
    async def main():
        ledger = ledger_of(100)
        step = OpenStep((3,), 1)
        with pytest.raises(BudgetExhausted, match=r"the budget of 100 tokens is spent: 0 are used, .* may need 150"):
            await reserve([ledger], request(3, 150, steps=[step]))
        with pytest.raises(BudgetExhausted, match="an earlier call needs more than the rest"):
            await reserve([ledger], request(4, 10))
        await reserve([ledger], request(2, 10))


def test_a_request_outside_of_steps_that_is_refused_leaves_the_rest_to_smaller_ones():
    async def main():
        ledger = ledger_of(100)
        with pytest.raises(BudgetExhausted, match="may need 150"):
            await reserve([ledger], request(3, 150))
        await reserve([ledger], request(4, 10))

    asyncio.run(main())


def test_a_larger_limit_admits_what_waits_and_what_was_refused():
    async def main():
        ledger = ledger_of(100)
        await reserve([ledger], request(0, 80))
        waiting = asyncio.create_task(reserve([ledger], request(1, 60)))
        await asyncio.sleep(0.01)
        ledger.set_limit(Amounts(200, math.inf))
        await waiting

    asyncio.run(main())


def test_a_request_that_is_cancelled_while_it_waits_lets_the_next_one_pass():
    async def main():
        ledger = ledger_of(100)
        await reserve([ledger], request(0, 60))
        waiting = asyncio.create_task(reserve([ledger], request(1, 60)))
        later = asyncio.create_task(reserve([ledger], request(2, 30)))
        await asyncio.sleep(0.01)
        assert not later.done()
        waiting.cancel()
        await later
        assert ledger.reserved.tokens == 90

    asyncio.run(main())


def test_what_an_earlier_step_may_still_need_is_not_given_to_a_later_one():
    async def main():
        ledger = ledger_of(100)
        step = OpenStep((0,), 2)
        ledger.begin(step)
        first = Reservation((0, 0), Cost("m", 40, 0, is_bound=True), [step])
        await reserve([ledger], first)
        later = asyncio.create_task(reserve([ledger], request(1, 40)))
        await asyncio.sleep(0.01)
        assert not later.done()
        ledger.settle(first, Amounts(40, 0))
        ledger.end(step)
        await later

    asyncio.run(main())


def test_two_ledgers_reserve_both_or_none():
    async def main():
        wide, narrow = ledger_of(1000), ledger_of(100)
        first = request(0, 80)
        await reserve([wide, narrow], first)
        second = asyncio.create_task(reserve([wide, narrow], request(1, 60)))
        await asyncio.sleep(0.01)
        assert wide.reserved.tokens == 80
        first.cancel()
        await second
        assert (wide.reserved.tokens, narrow.reserved.tokens) == (60, 60)

    asyncio.run(main())
