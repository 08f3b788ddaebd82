"""Forecasts of evaluations and batches: probe rows are part of the run, and what is unknown is said."""

from __future__ import annotations

import asyncio
import math

import pytest

import dspynb as dn
from dspynb.forecasting.forecast import Estimate, Totals, estimate_of, with_unit
from dspynb.forecasting.probe import spread_rows
from tests.helpers import chat

ROWS = [{"question": "why " * (n % 7 + 1) + str(n), "answer": "4"} for n in range(40)]


class Priced:
    """A model that counts its calls; a token a word, and a dollar for 1,000 tokens."""

    name = "priced"

    def __init__(self, *, usage=True, price=True):
        self.calls = 0
        self._usage = usage
        if price:
            self.price = {"input": 1000, "output": 1000}
        else:
            self.reports_usd = False

    async def complete(self, request):
        self.calls += 1
        await asyncio.sleep(0)
        prompt = sum(len(message["content"].split()) for message in request.messages)
        usage = dn.Usage(1, prompt, 5, usd=None) if self._usage else dn.Usage(1, None, None, usd=None)
        return dn.LMReply(chat(answer="4"), usage=usage)


def forecast(make, **options):
    return dn.run_sync(lambda: make(**options))


def judge(**settings):
    return dn.Evaluate(dn.metrics.exact_match(), **settings)


def program(lm):
    return dn.Predict("question -> answer", lm=lm)


def test_the_true_cost_lies_in_the_interval():
    lm = Priced()
    plan = judge()
    ask = program(lm)
    foreseen = dn.run_sync(lambda: plan.forecast(ask, ROWS))
    run = plan.run_sync(ask, ROWS).run
    assert foreseen.rollouts.point == 40
    assert foreseen.calls.low <= 40 <= foreseen.calls.high
    assert foreseen.tokens.low <= run.usage.tokens <= foreseen.tokens.high
    assert foreseen.usd.low <= run.usage.usd <= foreseen.usd.high


def test_no_row_is_paid_for_twice():
    lm = Priced()
    plan = judge()
    ask = program(lm)
    foreseen = dn.run_sync(lambda: plan.forecast(ask, ROWS))
    assert lm.calls == 5
    result = plan.run_sync(ask, ROWS)
    assert lm.calls == 40
    assert result.run.id == foreseen.run.id
    assert len(result.run.rollouts) == len(result.run.calls) == 40
    assert len(result) == 40
    plan.run_sync(ask, ROWS)  # a further evaluation is one of its own
    assert lm.calls == 80


def test_a_second_forecast_only_runs_the_rows_that_it_lacks():
    lm = Priced()
    plan = judge()
    ask = program(lm)
    dn.run_sync(lambda: plan.forecast(ask, ROWS, probe=3))
    dn.run_sync(lambda: plan.forecast(ask, ROWS, probe=3))
    dn.run_sync(lambda: plan.forecast(ask, ROWS, probe=0))
    assert lm.calls == 3


@pytest.mark.parametrize("change", ["rows", "program", "settings"])
def test_another_evaluation_does_not_go_on_with_the_probe_rows(change):
    lm = Priced()
    plan = judge()
    ask = program(lm)
    dn.run_sync(lambda: plan.forecast(ask, ROWS))
    rows = ROWS[1:] if change == "rows" else ROWS
    if change == "program":
        ask = dn.Predict("question -> answer", lm=lm, instruction="Be brief.")
    if change == "settings":
        plan = judge(repeats=2)
    plan.run_sync(ask, rows)
    assert lm.calls == 5 + len(rows) * (2 if change == "settings" else 1)


def test_the_run_can_be_resumed_from_its_file(tmp_path):
    dn.configure(runs_dir=tmp_path)
    lm = Priced()
    foreseen = dn.run_sync(lambda: judge().forecast(program(lm), ROWS))
    assert dn.runs().status.tolist() == ["stopped"]
    result = dn.run_sync(lambda: judge().resume(foreseen.run.id, program(lm), ROWS))
    assert len(result) == 40
    assert lm.calls == 40


def test_the_budget_counts_the_probe_rows():
    lm = Priced()
    plan = judge(budget=dn.Budget(calls=12), concurrency=1)
    ask = program(lm)
    foreseen = dn.run_sync(lambda: plan.forecast(ask, ROWS))
    assert foreseen.calls.point == 12
    result = plan.run_sync(ask, ROWS)
    assert lm.calls == 12
    assert len(result) == 12
    assert result.run.meter.spent["calls"] == 12


def test_a_budget_around_both_counts_each_call_once():
    lm = Priced()
    ask = program(lm)
    plan = judge()
    with dn.Budget(calls=100) as meter:
        dn.run_sync(lambda: plan.forecast(ask, ROWS))
        plan.run_sync(ask, ROWS)
    assert meter.spent["calls"] == lm.calls == 40


def test_without_a_probe_nothing_is_called():
    lm = Priced()
    foreseen = dn.run_sync(lambda: judge().forecast(program(lm), ROWS, probe=0))
    assert lm.calls == 0
    assert foreseen.run is None
    assert foreseen.usd.high > 2 * foreseen.usd.low
    assert "no row of this program was run" in repr(foreseen)


def test_earlier_runs_of_the_program_say_what_it_costs(tmp_path):
    dn.configure(runs_dir=tmp_path)
    lm = Priced()
    done = judge().run_sync(program(lm), ROWS)
    foreseen = dn.run_sync(lambda: judge().forecast(program(lm), ROWS, probe=0))
    assert lm.calls == 40
    assert "40 rollouts of 1 earlier runs" in repr(foreseen)
    assert foreseen.usd.point == pytest.approx(done.run.usage.usd, rel=0.1)
    other = dn.Predict("question -> answer", lm=lm, instruction="Be brief.")
    assert "no row of this program" in repr(dn.run_sync(lambda: judge().forecast(other, ROWS, probe=0)))


def test_usd_are_missing_without_a_price():
    foreseen = dn.run_sync(lambda: judge().forecast(program(Priced(price=False)), ROWS))
    assert foreseen.usd == Estimate()
    assert math.isnan(foreseen.table.point["usd"])
    assert foreseen.tokens.point > 0
    assert "USD are unknown" in repr(foreseen)
    assert "unknown" in foreseen._repr_html_()
    with pytest.raises(dn.errors.ConfigurationError, match="price"):
        foreseen.buys(dn.Budget(usd=1))


def test_tokens_that_are_not_reported_are_estimated():
    foreseen = dn.run_sync(lambda: judge().forecast(program(Priced(usage=False)), ROWS))
    assert foreseen.tokens.point > 0
    assert "reports no tokens" in repr(foreseen)


def test_a_judge_is_counted():
    lm = Priced()
    plan = dn.Evaluate(
        dn.metrics.llm_judge("It is right.", lm=dn.FunctionLM(lambda request: "reasons: Yes.\nscore: 1"))
    )
    foreseen = dn.run_sync(lambda: plan.forecast(program(lm), ROWS))
    assert foreseen.calls.low <= 80 <= foreseen.calls.high
    assert foreseen.rollouts.point == 40


def test_what_a_budget_buys():
    foreseen = dn.run_sync(lambda: judge().forecast(program(Priced()), ROWS))
    assert foreseen.buys(dn.Budget(calls=10)).point == 10
    assert foreseen.buys(dn.Budget(metric_calls=400)) == Estimate(40, 40, 40)
    half = dn.Budget(usd=foreseen.usd.point / 2)
    assert foreseen.buys(half).point == pytest.approx(20, abs=1)
    with pytest.raises(dn.errors.ConfigurationError, match="takes a Budget"):
        foreseen.buys(0.5)


@pytest.mark.parametrize("probe", [-1, 1.5, math.nan, True, "5", 41])
def test_a_probe_that_cannot_be_run_is_refused(probe):
    lm = Priced()
    with pytest.raises(dn.errors.ConfigurationError, match="probe"):
        dn.run_sync(lambda: judge().forecast(program(lm), ROWS, probe=probe))
    with pytest.raises(dn.errors.ConfigurationError, match="probe"):
        dn.run_sync(lambda: program(lm).forecast(ROWS, probe=probe))
    assert lm.calls == 0


def test_a_batch_goes_on_with_its_probe_rows():
    lm = Priced()
    ask = program(lm)
    foreseen = dn.run_sync(lambda: ask.forecast(ROWS))
    results = dn.run_sync(lambda: ask.batch(ROWS))
    assert lm.calls == 40
    assert [result.answer for result in results] == 40 * ["4"]
    assert foreseen.usd.low <= dn.last_run().usage.usd <= foreseen.usd.high
    assert dn.last_run().id == foreseen.run.id


def test_a_batch_of_refines_counts_its_attempts():
    def reward(row, prediction):
        return dn.Score(0.5, "Say more.")

    lm = Priced()
    search = dn.Refine(program(lm), reward, n=3)
    foreseen = dn.run_sync(lambda: search.forecast(ROWS))
    dn.run_sync(lambda: search.batch(ROWS))
    assert foreseen.calls.low <= lm.calls <= foreseen.calls.high


def test_a_batch_without_rows_is_refused():
    with pytest.raises(dn.errors.InputError, match="no rows"):
        dn.run_sync(lambda: program(Priced()).forecast([]))


def test_failed_probe_rows_are_results_too():
    ask = program(dn.FunctionLM(lambda request: "no field"))
    plan = judge()
    foreseen = dn.run_sync(lambda: plan.forecast(ask, ROWS))
    assert foreseen.rollouts.point == 40
    assert len(plan.run_sync(ask, ROWS)) == 40


def test_probe_rows_stand_for_short_and_long_rows():
    rows = [{"text": "a" * size} for size in (9, 1, 2, 3, 100, 4, 5, 6)]
    assert spread_rows(rows, 2) == [0, 3]  # of 3 and 9 letters
    assert spread_rows(rows, 8) == list(range(8))
    assert spread_rows(rows, 0) == []


def test_estimates_are_written_for_people():
    assert str(Estimate(0.4237, 0.31, 0.6)) == "0.424 (0.31 to 0.6)"
    assert str(Estimate()) == "unknown"
    assert str(Estimate(40, 40, 40)) == "40"
    assert estimate_of([1.0, None]) == Estimate()
    assert with_unit(Estimate(11, 8, 14), "mutation") == "about 11 mutations (8 to 14)"
    assert with_unit(Estimate(1, 1, 1), "row") == "1 row"


def test_a_budget_has_room_for_a_part_of_a_course():
    course = Totals(100, 200, 1000, 2.0, 60, 10)
    assert course.within(dn.Budget(usd=1.0)).count == 5
    assert course.within(dn.Budget(seconds=6, calls=150)).count == 1
    assert course.within(dn.Budget(calls=200)) == course
