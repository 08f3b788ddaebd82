"""Budgets: never a call more than was given, whatever the timing, and running out is no failure."""

from __future__ import annotations

import asyncio
import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dspynb as dn
from dspynb.errors import AllAttemptsFailed, BudgetExhausted, ConfigurationError, Halted, ServerError
from tests.helpers import Caption, chat

run = asyncio.run


class Counting:
    """A model that counts its calls and takes random times to answer."""

    name = "counting"

    def __init__(self, seed=0, tokens=0, usd=0.0):
        self.calls, self.random, self.usage = 0, random.Random(seed), dn.Usage(1, tokens, 0, usd=usd)

    async def complete(self, request):
        self.calls += 1
        await asyncio.sleep(self.random.random() * 0.003)
        return dn.LMReply(chat(sentence=f"s{self.calls}"), usage=self.usage)


class Chain(dn.Module):
    """Calls its predictor as often as the subject says."""

    def __init__(self, lm):
        self.step = dn.Predict(Caption, lm=lm)

    def most_calls(self):
        return 3

    async def forward(self, subject):
        for _ in range(int(subject)):
            prediction = await self.step(subject=subject)
        return prediction


def test_a_call_beyond_the_budget_is_refused_before_it_is_sent():
    lm = Counting()
    predict = dn.Predict(Caption, lm=lm)

    async def main():
        with dn.Budget(calls=2) as meter:
            await predict(subject="a")
            await predict(subject="b")
            with pytest.raises(BudgetExhausted, match="budget of 2 calls is spent") as raised:
                await predict(subject="c")
        return meter, raised.value

    meter, error = run(main())
    assert lm.calls == 2
    assert meter.spent["calls"] == 2
    assert meter.left == {"calls": 0}
    assert error.run.status == "exhausted"


def test_refine_gives_its_best_when_the_budget_ends_it():
    lm = dn.ScriptedLM([chat(sentence=s) for s in ("a", "bbb", "cc")])
    refine = dn.Refine(dn.Predict(Caption, lm=lm), lambda row, p: len(p.sentence) / 10, n=5, hints="feedback")

    async def main():
        with dn.Budget(calls=2):
            return await refine(subject="x")

    prediction = run(main())
    assert prediction.sentence == "bbb"
    assert dn.last_run().status == "exhausted"
    assert dn.last_run().attempts.sentence.tolist()[:2] == ["a", "bbb"]


def test_a_budget_of_less_than_the_first_attempt_raises():
    async def main():
        with dn.Budget(calls=1):
            await dn.Predict(Caption, lm=Counting())(subject="a")
            await dn.BestOfN(dn.Predict(Caption, lm=Counting()), lambda row, p: 1.0)(subject="b")

    with pytest.raises(BudgetExhausted):
        run(main())


def test_rows_beyond_the_budget_are_budget_exhausted_and_no_failures():
    async def main():
        with dn.Budget(calls=4):
            return await dn.Predict(Caption, lm=Counting()).batch([{"subject": str(i)} for i in range(10)])

    rows = run(main())
    assert [type(row).__name__ for row in rows] == ["Prediction"] * 4 + ["BudgetExhausted"] * 6


@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_wave_is_cut_in_the_order_of_its_attempts(width):
    program = dn.Predict(Caption, lm=Counting(seed=width))

    async def main():
        with dn.Budget(calls=3):
            return await dn.BestOfN(program, lambda row, p: 0.5, n=8, width=width)(subject="x")

    run(main())
    attempts = dn.last_run().attempts
    assert attempts.score.notna().tolist()[:3] == [True] * 3
    assert not attempts.score.notna()[3:].any()


@settings(max_examples=60, deadline=None)
@given(
    needs=st.lists(st.integers(1, 3), min_size=1, max_size=12),
    calls=st.integers(1, 30),
    width=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_the_cut_is_where_it_would_be_one_row_after_the_other(needs, calls, width, seed):
    lm = Counting(seed)

    async def main():
        with dn.Budget(calls=calls):
            return await Chain(lm).batch([{"subject": str(n)} for n in needs], concurrency=width)

    finished = [not isinstance(row, Halted) for row in run(main())]
    fits = [sum(needs[: i + 1]) <= calls for i in range(len(needs))]
    assert finished == fits
    assert lm.calls <= calls


def test_nested_budgets_both_apply():
    lm = Counting()
    predict = dn.Predict(Caption, lm=lm)

    async def main():
        with dn.Budget(calls=5) as outer:
            for _ in range(3):
                with dn.Budget(calls=2) as inner:
                    await predict.batch([{"subject": "x"}] * 4)
        return outer, inner

    outer, inner = run(main())
    assert lm.calls == 5
    assert (outer.spent["calls"], inner.spent["calls"]) == (5, 1)


def test_calls_that_the_cache_answers_cost_nothing(tmp_path, monkeypatch):
    class Cached:
        async def complete(self, request):
            return dn.LMReply(chat(sentence="s"), cached=True, usage=dn.Usage(prompt_tokens=500))

    async def main():
        with dn.Budget(calls=1, tokens=600) as meter:
            for _ in range(5):
                await dn.Predict(Caption, lm=Cached())(subject="x")
        return meter

    assert run(main()).spent["calls"] == 0


def test_recorded_replies_take_no_call_though_requested_concurrently(tmp_path):
    lm = dn.recorded(tmp_path / "r.jsonl", lm=Counting())
    predict = dn.Predict(Caption, lm=lm)

    async def main():
        await predict(subject="x")
        with dn.Budget(calls=1) as meter:
            await asyncio.gather(*(predict(subject="x") for _ in range(5)))
            await predict(subject="y")
        return meter

    assert run(main()).spent["calls"] == 1


def test_repairs_are_calls():
    lm = dn.ScriptedLM(["no markers", chat(sentence="s")])

    async def main():
        with dn.Budget(calls=5) as meter:
            await dn.Predict(Caption, lm=lm)(subject="x")
        return meter

    assert run(main()).spent["calls"] == 2


def test_a_failed_call_is_a_call():
    async def main():
        with dn.Budget(calls=5) as meter:
            with pytest.raises(ServerError):
                await dn.Predict(Caption, lm=dn.ScriptedLM([ServerError("down")]))(subject="x")
        return meter

    assert run(main()).spent["calls"] == 1


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (dn.Budget(tokens=1000), "1000 tokens is spent: 600 are used, and the next call may need 5"),
        (dn.Budget(usd=0.5), "0.5 USD is spent"),
        (dn.Budget(seconds=1e-9), "seconds is over"),
    ],
)
def test_what_is_known_afterwards_stops_the_next_call(budget, says):
    lm = Counting(tokens=300, usd=0.2)

    async def main():
        with budget:
            for _ in range(9):
                await dn.Predict(Caption, lm=lm)(subject="x")

    with pytest.raises(BudgetExhausted, match=says):
        run(main())
    assert lm.calls <= 3


def test_a_budget_in_usd_raises_without_a_price():
    async def main():
        with dn.Budget(usd=5) as meter:
            await dn.Predict(Caption, lm=Counting(usd=None))(subject="x")
            assert meter.spent["usd"] is None
            await dn.Predict(Caption, lm=Counting(usd=None))(subject="x")

    with pytest.raises(
        BudgetExhausted, match="needs the price of counting, which is unknown.*or give a budget of calls= or tokens="
    ):
        run(main())


def test_running_out_passes_through_rewards_and_advisors():
    judge = dn.Predict("text -> grade: float", lm=dn.FunctionLM(lambda r: chat(grade="0.5")))

    async def reward(row, prediction):
        return (await judge(text=prediction.sentence)).grade

    async def main():
        with dn.Budget(calls=3):
            return await dn.Refine(dn.Predict(Caption, lm=Counting()), reward, n=5, hints="feedback")(subject="x")

    assert run(main()).score.value == 0.5
    assert dn.last_run().status == "exhausted"


def test_a_task_that_outlives_a_spent_run_makes_no_call():
    lm = Counting()
    predict = dn.Predict(Caption, lm=lm)
    late = []

    class Leaving(dn.Module):
        def __init__(self):
            self.step = predict

        async def forward(self, subject):
            late.append(asyncio.ensure_future(self.later()))
            return await self.step(subject=subject)

        async def later(self):
            await asyncio.sleep(0.05)
            return await self.step(subject="late")

    async def main():
        with dn.Budget(calls=1):
            await Leaving()(subject="x")
        with pytest.warns(dn.ScopeClosedWarning), pytest.raises(BudgetExhausted):
            await late[0]

    run(main())
    assert lm.calls == 1


def test_all_attempts_failing_still_raises_all_attempts_failed():
    async def main():
        with dn.Budget(calls=9):
            lm = dn.FunctionLM(lambda r: 1 / 0)
            await dn.BestOfN(dn.Predict(Caption, lm=lm), lambda row, p: 1.0, n=2)(subject="x")

    with pytest.raises(AllAttemptsFailed):
        run(main())


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({}, "at least one limit"),
        ({"calls": 0}, "whole number of at least 1, or None, got 0"),
        ({"calls": 2.5}, "whole number"),
        ({"usd": -1}, "a number above 0"),
        ({"seconds": float("nan")}, "a number above 0"),
        ({"tokens": True}, "whole number"),
    ],
)
def test_a_budget_with_wrong_limits_raises_when_created(limits, says):
    with pytest.raises(ConfigurationError, match=says):
        dn.Budget(**limits)


def test_a_budget_is_a_value():
    budget = dn.Budget(calls=3, usd=1.5)
    assert pickle.loads(pickle.dumps(budget)) == budget
    assert budget != dn.Budget(calls=3)


def search(n=5):
    return dn.BestOfN(dn.Predict(Caption), lambda row, prediction: 0.0, n=n)


def test_most_calls_of_a_program_is_the_sum_over_its_modules():
    def look(subject: str) -> str:
        return subject

    class Holds(dn.Module):
        def __init__(self, *inner):
            self.inner = {"all": list(inner)}

    react = dn.ReAct(Caption, [look], max_iterations=7)
    assert react.most_calls() == 9
    assert Holds(react).most_calls() == react.map(lambda p: p).most_calls() == 9
    assert Holds(react, search(), dn.Predict(Caption)).most_calls() == 9 + 10 + 2
    assert Holds(react, Holds(react)).most_calls() == 18
    assert dn.MultiChainComparison(Caption, m=4).most_calls() == 2 + 4 * 2
    assert dn.MultiChainComparison(Caption, m=4, sampler=None).most_calls() == 2


def test_most_calls_of_a_program_that_contains_itself_is_finite():
    class Child(dn.Module):
        def __init__(self, parent):
            self.parent, self.predict = parent, dn.Predict(Caption)

    class Parent(dn.Module):
        def __init__(self):
            self.child = Child(self)
            self.search = dn.BestOfN(self.child, lambda row, prediction: 0.0, n=3)

    assert Parent().most_calls() >= 6


def test_the_cut_of_a_wrapped_search_is_the_same_whatever_the_timing():
    class Wrapped(dn.Module):
        def __init__(self):
            self.search = search(n=4)

        async def forward(self, subject):
            return await self.search(subject=subject)

    def answered(seed):
        lm = Counting(seed)
        with dn.context(lm=lm), dn.Budget(calls=9):
            rows = run(Wrapped().batch([{"subject": str(i)} for i in range(4)], concurrency=4))
        return [isinstance(row, dn.Prediction) for row in rows], lm.calls

    assert {str(answered(seed)) for seed in range(8)} == {str(([True, True, False, False], 9))}
