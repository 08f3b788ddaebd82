"""Budgets that are too small, and budgets that change while requests wait."""

from __future__ import annotations

import asyncio
import re

import pytest

import dspynb as dn
from dspynb.scope.amounts import Amounts, Cost
from dspynb.scope.ledger import Ledger
from dspynb.scope.reservation import Reservation
from dspynb.scope.reserving import reserve
from tests.cases.providers import model
from tests.helpers import chat
from tests.lm.server import Server, reply

ROWS = [{"question": f"{number}?", "answer": "4"} for number in range(3)]
PRICE = {"input": 1.0, "output": 10.0}


def served(body, number):
    return {
        **reply(chat(answer="4")),
        "usage": {"prompt_tokens": 150, "completion_tokens": 50, "total_tokens": 200},
    }


@pytest.mark.parametrize(("unit", "amount"), [("tokens", 40), ("usd", 1e-6)])
def test_a_budget_too_small_for_one_request_says_what_it_needs_in_its_unit(unit, amount):
    """The number in the error is enough."""
    with Server(served) as server:
        ask = dn.Predict("question -> answer", lm=model(server, max_tokens=60, price=PRICE))
        with pytest.raises(dn.BudgetExhausted, match=unit.upper() if unit == "usd" else unit) as caught:
            dn.Evaluate(dn.metrics.exact_match(), budget=dn.Budget(**{unit: amount})).run_sync(ask, ROWS)
        assert server.bodies == []
        needed = float(re.search(r"may need ([\d.e-]+)", str(caught.value)).group(1))
        enough = dn.Budget(**{unit: round(needed) if unit == "tokens" else needed * 1.0001})
        done = dn.Evaluate(dn.metrics.exact_match(), budget=enough).run_sync(ask, ROWS[:1])
    assert len(done) == 1


def request_of(number, tokens):
    return Reservation((number,), Cost("m", tokens, 0, True))


@pytest.mark.parametrize(("limit", "is_admitted"), [(400, True), (90, False)])
def test_a_request_that_waits_is_decided_by_the_new_limit(limit, is_admitted):
    async def main():
        ledger = Ledger(Amounts(150, float("inf")))
        first = request_of(0, 100)
        await reserve([ledger], first)
        waiting = asyncio.create_task(reserve([ledger], request_of(1, 100)))
        await asyncio.sleep(0)
        assert not waiting.done()
        ledger.set_limit(Amounts(limit, float("inf")))
        if not is_admitted:  # it waits until the first one has settled, which may cost less
            ledger.settle(first, Amounts(100, 0.0))
        return await asyncio.gather(waiting, return_exceptions=True), ledger

    (outcome,), ledger = asyncio.run(main())
    assert (outcome is True) if is_admitted else isinstance(outcome, dn.BudgetExhausted)
    assert ledger.spent.tokens + ledger.reserved.tokens == (200 if is_admitted else 100)


@pytest.mark.parametrize("unit", ["calls", "metric_calls", "tokens", "usd", "seconds"])
@pytest.mark.parametrize("amount", [-1, 0, float("nan"), float("-inf"), "many"])
def test_an_amount_that_is_not_above_zero_is_refused(unit, amount):
    with pytest.raises(dn.errors.ConfigurationError, match=unit):
        dn.Budget(**{unit: amount})
