"""Random programs under random budgets, with a provider that keeps its own ledger.

    python -m tests.campaigns.spending

Each trial draws a program (rows, attempts, nested Refines, evaluations with judges, all optimizers), a budget in calls,
tokens, USD or seconds, how much is in flight, and whether replies have a limit. It runs twice, with different
latencies. A trial passes if

- calls: the provider billed no more than the budget;
- tokens and USD: neither, where replies have a limit; else at most 5 % more, or one reply's surplus if that is more;
- tokens and USD: at least 85 % of the budget are used, if the budget ended the run and no reservation was above 5 % of
  it, and both runs have finished the same work. Attempts at the same time, of which the first good one ends the others,
  are left out: what those may have cost counts, and timing decides how many there are;
- seconds: no request began after the limit, and the run ended within 0.5 s of it.

``--trials`` (default: 500), ``--seed``, ``--first``: the number of the first trial, ``--units``: of the budgets. Prints
for each unit how many trials passed and how much of their budgets was used; exits with 1 if a trial failed.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from pathlib import Path

import dspynb as dn
from dspynb.lm import limits
from dspynb.scope.amounts import NOTHING
from tests.campaigns.paid_server import PROMPT_PRICE, REPLY_PRICE

ROOT = Path(__file__).parents[2]
PRICE = {"input": PROMPT_PRICE * 1e6, "output": REPLY_PRICE * 1e6}
LIMIT = 300
"""Tokens of a reply, in trials whose replies have a limit."""
LATE = 0.5
"""Seconds in which a run ends after its time is over."""


class Served:
    """The provider, in a process of its own."""

    def __enter__(self):
        command = [sys.executable, "-m", "tests.campaigns.paid_server"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.base = self.process.stdout.readline().strip()
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(10)

    def ledger(self, key):
        """What a key has spent."""
        with urllib.request.urlopen(f"{self.base}/ledger/{key}", timeout=30) as response:  # noqa: S310  # loopback
            return json.load(response)


def number_in(text):
    """A number from 0 to 1 that a text decides."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def score(row, prediction):
    """A score with feedback that the answer decides."""
    value = number_in(row.question + prediction.answer)
    return dn.Score(round(value, 2), f"{value:.2f}: say more about {row.question}")


class Judged:
    """A metric that asks a model."""

    def __init__(self):
        self.judge = dn.Predict("question, answer -> verdict")

    async def __call__(self, row, prediction):
        verdict = await self.judge(question=row.question, answer=prediction.answer)
        return number_in(verdict.verdict)


def rows_of(count, chance):
    """Questions of different lengths."""
    return [{"question": f"{n}: " + "why " * chance.randint(1, 60), "answer": "x"} for n in range(count)]


METERS = []
"""The meters of budgets of blocks."""


# ── the work of a trial: each returns what was finished, in a form that can be compared ───────────────────────────────
def batch(program, rows, concurrency, budget):
    with budget as meter:
        METERS.append(meter)
        results = dn.run_sync(lambda: program.batch(rows, concurrency=concurrency))
    return [None if isinstance(result, dn.BudgetExhausted) else str(result) for result in results]


def evaluation(program, rows, concurrency, budget, metric=score):
    evaluate = dn.Evaluate(metric, concurrency=concurrency, budget=budget)
    result = evaluate.run_sync(program, rows)
    return result.table[["question", "predicted_answer", "score"]].to_csv()


def judged(program, rows, concurrency, budget):
    return evaluation(program, rows, concurrency, budget, Judged())


def refine(program, rows, concurrency, budget):
    return batch(dn.Refine(program, score, n=3, threshold=0.9), rows, concurrency, budget)


def wide(program, rows, concurrency, budget):
    return batch(dn.BestOfN(program, score, n=4, width=4, threshold=0.95), rows, concurrency, budget)


def optimizer(make):
    def work(program, rows, concurrency, budget):
        half = len(rows) // 2
        opt = make(metric=score, budget=budget, concurrency=concurrency)
        opt.compile_sync(program, rows[:half], rows[half:])
        candidates = dn.last_run().candidates
        return candidates[["score", "rollouts"]].to_csv() if "rollouts" in candidates else candidates.score.to_csv()

    return work


WORK = {
    "batch": batch,
    "evaluation": evaluation,
    "judged evaluation": judged,
    "nested Refine": refine,
    "wide BestOfN": wide,
    "COPRO": optimizer(lambda **options: dn.COPRO(breadth=3, depth=2, **options)),
    "MIPROv2": optimizer(lambda **options: dn.MIPROv2(auto=None, num_candidates=3, num_trials=5, **options)),
    "GEPA": optimizer(lambda **options: dn.GEPA(max_steps=8, **options)),
    "SIMBA": optimizer(lambda **options: dn.SIMBA(minibatch_size=8, max_steps=3, num_candidates=3, **options)),
    "bootstrap": optimizer(lambda **options: dn.BootstrapRandomSearch(num_candidates=3, **options)),
}
UNITS = ("tokens", "usd", "calls", "seconds")


def draw_trial(number, seed):
    """The facts of a trial."""
    chance = random.Random(f"{seed} {number}")
    unit = chance.choices(UNITS, (4, 4, 2, 1))[0]
    kind = chance.choice(list(WORK))
    tokens = round(10 ** chance.uniform(3.3, 5.3))
    amounts = {
        "tokens": tokens,
        "usd": tokens * (PROMPT_PRICE * 0.7 + REPLY_PRICE * 0.3),
        "calls": max(2, tokens // 400),
        "seconds": chance.uniform(0.1, 1.5),
    }
    return {
        "number": number,
        "kind": kind,
        "unit": unit,
        "amount": amounts[unit],
        "rows": chance.choice((12, 40, 120)),
        "concurrency": chance.choice((1, 4, 16, 64)),
        "limited": chance.random() < 0.6,
        "cached": chance.random() < 0.2,
    }


def run_once(trial, served, latency):
    """Run a trial, and return its facts."""
    key = f"{trial['number']}{'c' if trial['cached'] else ''}-{latency}"
    chance = random.Random(trial["number"])
    rows = rows_of(trial["rows"], chance)
    if trial["cached"]:
        rows += rows[: len(rows) // 2]
    lm = dn.LM(
        "openai/m",
        api_base=f"{served.base}/{key}/v1",
        api_key="none",
        price=PRICE,
        cache=trial["cached"],
        retries=3,
        max_tokens=LIMIT if trial["limited"] else None,
    )
    budget = dn.Budget(**{trial["unit"]: trial["amount"]})
    done = None
    began = time.time()
    with dn.context(lm=lm):
        program = dn.Predict("question -> answer")
        try:
            done = WORK[trial["kind"]](program, rows, trial["concurrency"], budget)
        except dn.BudgetExhausted:
            done = "nothing"
        except dn.errors.OptimizerError:  # five proposals in a row failed
            done = "gave up"
        except dn.errors.ConfigurationError as error:  # too little for the first step of an optimizer
            done = "refused" if "too small" in str(error) else f"failed: {error}"
    took = time.time() - began
    run = dn.last_run()
    meter = METERS.pop() if METERS else run.meter
    ledger = None if meter is None else meter.ledger
    largest = 0.0
    if ledger is not None:
        amounts = ledger._largest_with(NOTHING)
        largest = amounts.tokens if trial["unit"] == "tokens" else amounts.usd
    facts = {"done": done, "status": run.status, "took": took, "began": began, "largest": largest}
    return {**facts, **{f"billed {name}": value for name, value in served.ledger(key).items()}}


def problems_of(trial, runs):
    """What is wrong with a trial."""
    if any(str(run["done"]).startswith("failed") for run in runs):
        yield runs[0]["done"]
    unit, amount = trial["unit"], trial["amount"]
    is_race = trial["kind"] == "wide BestOfN"
    for run in runs:
        if unit == "seconds":
            if run["billed last"] > run["began"] + amount + 0.05:
                yield f"a request began {run['billed last'] - run['began'] - amount:.2f} s after the limit"
            if run["took"] > amount + LATE + 0.3 and run["status"] == "exhausted":
                yield f"it ended {run['took'] - amount:.2f} s after the limit"
            continue
        billed = run[f"billed {unit}"]
        if unit == "calls" or trial["limited"]:
            most = amount
        else:
            surplus = run["billed largest"] * (REPLY_PRICE if unit == "usd" else 1)
            most = max(1.05 * amount, amount + surplus)
        if billed > most * (1 + 1e-9):
            yield f"{billed:.6g} of {amount:.6g} {unit} were billed"
        is_fine = unit != "calls" and 0 < run["largest"] <= 0.05 * amount
        if run["status"] == "exhausted" and is_fine and not is_race and billed < 0.85 * amount:
            yield f"only {billed / amount:.0%} of {amount:.6g} {unit} were used"
    if unit in ("tokens", "usd") and not is_race and runs[0]["done"] != runs[1]["done"]:
        yield "the two runs have finished different work"


def main():
    """Run the trials, and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--units", nargs="*", default=UNITS, choices=UNITS)
    options = parser.parse_args()
    limits.backoff = lambda failures, retry_after: 0.002
    dn.configure(runs_dir=None, view="off")
    warnings.simplefilter("ignore")
    counts = collections.Counter()  # of trials, by unit
    failures = collections.Counter()
    used = collections.defaultdict(list)
    began = time.time()
    with tempfile.TemporaryDirectory() as folder, Served() as served:
        os.environ["DSPYNB_CACHE_DIR"] = folder
        for number in range(options.first, options.first + options.trials):
            trial = draw_trial(number, options.seed)
            if trial["unit"] not in options.units:
                continue
            counts[trial["unit"]] += 1
            runs = [run_once(trial, served, latency) for latency in ("a", "b")]
            problems = list(problems_of(trial, runs))
            if problems:
                failures[trial["unit"]] += 1
                print(trial, *problems, sep="\n    ", flush=True)
            if trial["unit"] != "seconds" and runs[0]["status"] == "exhausted":
                used[trial["unit"]].append(runs[0][f"billed {trial['unit']}"] / trial["amount"])
    for unit, count in counts.items():
        line = f"{unit}: {count - failures[unit]} of {count} trials passed"
        if used[unit]:
            shares = sorted(used[unit])
            line += f"; {len(shares)} were ended by the budget, with {statistics.median(shares):.1%} used in the median"
            line += f", {shares[0]:.1%} at least, {shares[-1]:.1%} at most"
        print(line)
    failed = failures.total()
    print(f"{counts.total() - failed} of {counts.total()} trials passed, in {time.time() - began:.0f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
