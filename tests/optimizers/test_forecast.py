"""Forecasts of optimizers: the search is tried on made-up results, and probe rows are part of the run."""

from __future__ import annotations

import asyncio
import warnings

import pytest

import dspynb as dn
from dspynb.running.aio.virtual_loop import VirtualLoop
from tests.helpers import chat

TRAIN = [{"question": f"train {n}", "answer": "4"} for n in range(12)]
VAL = [{"question": f"val {n}", "answer": "4"} for n in range(20)]
NAMES = ("answer", "new_instruction", "proposed_instruction", "observations", "summary", "program_description")
COMMON = {"auto": None, "num_candidates": 2, "num_trials": 3}


class Priced:
    """A model that counts its calls and answers every second question well; proposals too."""

    name = "priced"
    price = {"input": 1000, "output": 1000}  # noqa: RUF012

    def __init__(self):
        self.calls = 0

    async def complete(self, request):
        self.calls += 1
        await asyncio.sleep(0)
        prompt = sum(len(message["content"].split()) for message in request.messages)
        fields = {}
        text = request.messages[-1]["content"]
        for name in NAMES:
            if f"[[ ## {name} ## ]]" in text:
                fields[name] = "4" if hash(text) % 2 else f"say {self.calls}"
        fields["module_description"] = "It answers."
        fields["discussion"] = "Well."
        fields["advice"] = '{"self": "Answer 4."}'
        return dn.LMReply(chat(**fields), usage=dn.Usage(1, prompt, 5, usd=None))


def metric(row, prediction):
    return dn.Score(float(prediction.answer == "4"), "It must be 4.")


MAKERS = {
    "COPRO": lambda **options: dn.COPRO(metric, breadth=2, depth=2, **options),
    "MIPROv2": lambda **options: dn.MIPROv2(metric, **COMMON, **options),
    "GEPA": lambda **options: dn.GEPA(metric, max_steps=4, **options),
    "SIMBA": lambda **options: dn.SIMBA(metric, minibatch_size=4, max_steps=2, num_candidates=2, **options),
    "BootstrapRandomSearch": lambda **options: dn.BootstrapRandomSearch(metric, num_candidates=2, **options),
    "BootstrapFewShot": lambda **options: dn.BootstrapFewShot(metric, **options),
}


def foreseen_and_run(make, **options):
    """The forecast and the run of an optimizer, and how many calls each made."""
    lm = Priced()
    program = dn.Predict("question -> answer", lm=lm)
    opt = make(**options)
    forecast = dn.run_sync(lambda: opt.forecast(program, TRAIN, VAL))
    probed = lm.calls
    better = opt.compile_sync(program, TRAIN, VAL)
    return forecast, better, probed, lm.calls


@pytest.mark.parametrize("name", MAKERS)
def test_every_optimizer_foresees_its_run_and_pays_for_no_row_twice(name):
    forecast, better, probed, calls = foreseen_and_run(MAKERS[name])
    run = dn.last_run()
    assert probed == 5
    assert run.id == forecast.run.id
    assert run.usage.calls == calls
    places = [(ended.candidate, ended.split, ended.row, ended.repeat) for ended in run.record.rollouts]
    assert len(places) == len(set(places))
    assert forecast.rollouts.low * 0.5 <= len(run.record.rollouts) <= forecast.rollouts.high * 2
    assert forecast.usd.point is not None

    lm = Priced()
    alone = MAKERS[name]().compile_sync(dn.Predict("question -> answer", lm=lm), TRAIN, VAL)
    assert alone.dump_state() == better.dump_state()
    assert lm.calls == calls


@pytest.mark.parametrize("budget", [dn.Budget(metric_calls=60), dn.Budget(calls=70), dn.Budget(usd=4.0)])
def test_the_budget_counts_the_probe_rows_once(budget):
    forecast, _, _, calls = foreseen_and_run(MAKERS["GEPA"], budget=budget)
    run = dn.last_run()
    spent = run.meter.spent
    assert spent["calls"] == calls == run.usage.calls
    assert spent["metric_calls"] == len(run.record.rollouts)
    assert spent["usd"] == pytest.approx(run.usage.usd)
    for name, limit in budget.limits().items():
        amount = {"metric_calls": forecast.rollouts, "calls": forecast.calls, "usd": forecast.usd}[name]
        assert amount.point <= 1.2 * limit


def test_a_budget_around_both_counts_each_call_once():
    with dn.Budget(calls=1000) as meter:
        *_, calls = foreseen_and_run(MAKERS["GEPA"])
    assert meter.spent["calls"] == calls


def test_what_a_budget_buys():
    lm = Priced()
    opt = dn.GEPA(metric, max_steps=50)
    forecast = dn.run_sync(lambda: opt.forecast(dn.Predict("question -> answer", lm=lm), TRAIN, VAL, probe=3))
    few = forecast.buys(dn.Budget(metric_calls=100))
    more = forecast.buys(dn.Budget(metric_calls=300))
    assert 0 < few.point < more.point
    assert forecast.unit == "mutation"
    assert lm.calls == 3
    with pytest.raises(dn.errors.ConfigurationError, match="too small"):
        forecast.buys(dn.Budget(metric_calls=2))


def test_without_a_probe_nothing_is_called():
    lm = Priced()
    opt = dn.GEPA(metric, max_steps=3)
    forecast = dn.run_sync(lambda: opt.forecast(dn.Predict("question -> answer", lm=lm), TRAIN, VAL, probe=0))
    assert lm.calls == 0
    assert forecast.run is None
    assert "no row of this program was run" in repr(forecast)
    assert forecast.usd.high > 2 * forecast.usd.low


def test_a_dry_run_never_calls_the_metric():
    called = []

    def noting(row, prediction, predictor=None):
        called.append(row)
        return dn.Score(0.5, "Say more.")

    opt = dn.GEPA(noting, max_steps=3)
    dn.run_sync(lambda: opt.forecast(dn.Predict("question -> answer", lm=Priced()), TRAIN, VAL, probe=2))
    assert len(called) == 2


def test_a_dry_run_issues_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt = dn.GEPA(lambda row, prediction: 3.0, max_steps=3)
        dn.run_sync(lambda: opt.forecast(dn.Predict("question -> answer", lm=Priced()), TRAIN, VAL, probe=2))


def test_the_file_of_a_forecast_can_be_resumed(tmp_path):
    dn.configure(runs_dir=tmp_path)
    lm = Priced()
    program = dn.Predict("question -> answer", lm=lm)
    forecast = dn.run_sync(lambda: MAKERS["GEPA"]().forecast(program, TRAIN, VAL))
    dn.run_sync(lambda: MAKERS["GEPA"]().resume(forecast.run.id, program, TRAIN, VAL))
    assert dn.last_run().usage.calls == lm.calls


def test_a_probe_larger_than_the_validation_rows_is_refused():
    opt = MAKERS["GEPA"]()
    with pytest.raises(dn.errors.ConfigurationError, match="20 rows"):
        dn.run_sync(lambda: opt.forecast(dn.Predict("question -> answer", lm=Priced()), TRAIN, VAL, probe=21))


def test_test_rows_are_foreseen():
    lm = Priced()
    program = dn.Predict("question -> answer", lm=lm)
    test = [{"question": f"test {n}", "answer": "4"} for n in range(10)]
    opt = dn.BootstrapFewShot(metric)
    forecast = dn.run_sync(lambda: opt.forecast(program, TRAIN, VAL, test=test))
    opt.compile_sync(program, TRAIN, VAL, test=test)
    assert forecast.rollouts.low <= len(dn.last_run().record.rollouts) + 10
    assert forecast.rollouts.high >= len(dn.last_run().record.rollouts) - 10


def test_forecasts_of_equal_probes_are_equal():
    dn.configure(runs_dir=None)  # else the second knows how long the proposals of the first were
    first, *_ = foreseen_and_run(MAKERS["COPRO"])
    second, *_ = foreseen_and_run(MAKERS["COPRO"])
    assert first.tokens == second.tokens


def test_a_loop_with_a_jumping_clock_takes_no_time():
    async def wait():
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert 3600 <= runner.run(wait()) < 3601


def test_a_run_that_ends_before_its_budget_says_why():
    opt = MAKERS["GEPA"](budget=dn.Budget(metric_calls=2000))
    opt.compile_sync(dn.Predict("question -> answer", lm=Priced()), TRAIN, VAL)
    run = dn.last_run()
    assert run.record.started.budget == {"metric_calls": 2000}
    assert run.record.ended.reason == "max_steps=4 mutations were made"
