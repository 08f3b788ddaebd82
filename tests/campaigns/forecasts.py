"""Forecasts of random runs, compared with what the provider then bills.

    python -m tests.campaigns.forecasts

Each trial draws a kind of run (an evaluation, a batch of Refines, MIPROv2, GEPA) with its rows and settings, makes a
forecast with the default probe, and runs it. The true cost, in USD, is that of the provider's ledger: probe rows and
run together. Of the trials of each kind,

- the true cost must be inside the 80 % interval in 75 to 95 %;
- the median width of the interval must be at most the estimate itself;
- the point must be within 25 % of the true cost in the median.

A trial fails if the run pays for a probe row twice. ``--trials`` (default: 100) of each kind, ``--seed``, ``--kinds``.
Prints the figures; exits with 1 if they are not met.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
import warnings

import dspynb as dn
from dspynb.lm import limits
from tests.campaigns.spending import PRICE, Served, rows_of, score

WIDTHS = (4, 16, 64)


class TwoSteps(dn.Module):
    """A program of two predictors."""

    def __init__(self):
        self.plan = dn.Predict("question -> plan")
        self.reply = dn.Predict("question, plan -> answer")

    async def forward(self, question):
        plan = (await self.plan(question=question)).plan
        return await self.reply(question=question, plan=plan)


# ── each returns a function that forecasts, and one that runs ─────────────────────────────────────────────────────────
def evaluate(program, rows, chance):
    judge = dn.Evaluate(score, concurrency=chance.choice(WIDTHS))
    return lambda: judge.forecast(program, rows), lambda: judge(program, rows)


def refine(program, rows, chance):
    search = dn.Refine(program, score, n=3, threshold=chance.choice((0.5, 0.7, 0.9)))
    return lambda: search.forecast(rows), lambda: search.batch(rows)


def mipro(program, rows, chance):
    opt = dn.MIPROv2(score, auto=None, num_candidates=chance.choice((3, 6)), num_trials=chance.choice((5, 10)))
    return searched(opt, program, rows)


def gepa(program, rows, chance):
    opt = dn.GEPA(score, max_steps=chance.choice((4, 8, 16)), seed=chance.randrange(100))
    return searched(opt, program, rows)


def searched(opt, program, rows):
    half = len(rows) // 2
    train = rows[:half]
    val = rows[half:]
    return lambda: opt.forecast(program, train, val), lambda: opt.compile(program, train, val)


KINDS = {"evaluate": evaluate, "Refine": refine, "MIPROv2": mipro, "GEPA": gepa}


def run_trial(kind, number, seed, served):
    """The forecast of a trial, and what the provider billed."""
    chance = random.Random(f"{seed} {kind} {number}")
    key = f"{kind}{seed}x{number}-a"
    lm = dn.LM("openai/m", api_base=f"{served.base}/{key}/v1", api_key="none", price=PRICE, cache=False, retries=3)
    rows = rows_of(chance.choice((30, 60, 120)), chance)
    with dn.context(lm=lm):
        program = dn.Predict("question -> answer") if chance.random() < 0.6 else TwoSteps()
        forecast, run = KINDS[kind](program, rows, chance)
        forecast = dn.run_sync(forecast)
        dn.run_sync(run)
    assert dn.last_run().id == forecast.run.id
    calls = dn.last_run().record.usage.calls
    return forecast, served.ledger(key), calls


def figures_of(kind, trials, seed, served):
    """How good the forecasts of a kind are, by the names of the figures."""
    inside = []
    widths = []
    errors = []
    calls = []
    for number in range(trials):
        forecast, ledger, call_count = run_trial(kind, number, seed, served)
        usd = forecast.usd
        inside.append(usd.low <= ledger["usd"] <= usd.high)
        widths.append((usd.high - usd.low) / usd.point)
        errors.append(abs(usd.point / ledger["usd"] - 1))
        calls.append(forecast.calls.low <= call_count <= forecast.calls.high)
    return {
        "inside": sum(inside) / trials,
        "width": statistics.median(widths),
        "error": statistics.median(errors),
        "calls inside": sum(calls) / trials,
    }


def is_good(figures):
    """Whether the figures are those that are promised."""
    return 0.75 <= figures["inside"] <= 0.95 and figures["width"] <= 1 and figures["error"] <= 0.25


def main():
    """Run the trials, and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    options = parser.parse_args()
    limits.backoff = lambda failures, retry_after: 0.002
    dn.configure(runs_dir=None, view="off")
    warnings.simplefilter("ignore")
    failed = False
    with tempfile.TemporaryDirectory() as folder, Served() as served:
        os.environ["DSPYNB_CACHE_DIR"] = folder
        for kind in options.kinds:
            began = time.time()
            figures = figures_of(kind, options.trials, options.seed, served)
            failed = failed or not is_good(figures)
            texts = ", ".join(f"{name} {value:.0%}" for name, value in figures.items())
            print(f"{kind}: {texts} ({options.trials} trials, {time.time() - began:.0f} s)", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
