"""Evaluating with a synchronous metric that takes a while, beside the same metric in threads.

    python benchmarks/sync_metrics.py --peer /path/to/an/environment/with/gepa/bin/python

47 rows, 16 at a time, a model that answers at once, a metric that sleeps for 0.1 s. Beside it: a bare pool of 16
threads, and gepa 0.1.4's own parallel evaluator with 16 workers. Writes sync_metrics.csv: medians of several fresh
processes, imports not counted; ``ratio`` is the time divided by that of the bare pool (1: the same).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from report import today, written

ROUNDS, LONGEST = 3, 120

SIZES = """
import time
ROWS, AT_A_TIME, SECONDS = 47, 16, 0.1
def judged(*_):
    time.sleep(SECONDS)
    return 1.0
"""
OURS = (
    SIZES
    + """
import asyncio, dspynb as dn
dn.configure(view="off", runs_dir=None, cache=False)
predict = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "[[ ## answer ## ]]\\nfine"))
def metric(row, prediction):
    return judged()
async def main():
    await predict(question="what is imported with a first call is not counted")
    began = time.perf_counter()
    await dn.evaluate(predict, [{"question": str(i)} for i in range(ROWS)], metric, concurrency=AT_A_TIME)
    return time.perf_counter() - began
print(asyncio.run(main()))
"""
)
POOL = (
    SIZES
    + """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(AT_A_TIME) as pool:
    list(pool.map(judged, range(AT_A_TIME)))
    began = time.perf_counter()
    list(pool.map(judged, range(ROWS)))
    print(time.perf_counter() - began)
"""
)
THEIRS = (
    SIZES
    + """
from gepa.adapters.optimize_anything_adapter.optimize_anything_adapter import OptimizeAnythingAdapter
def evaluator(candidate, example=None, **_):
    return judged(), None, {}
adapter = OptimizeAnythingAdapter(evaluator=evaluator, parallel=True, max_workers=AT_A_TIME, cache_mode="off")
began = time.perf_counter()
adapter.evaluate(list(range(ROWS)), {"text": "x"}, capture_traces=False)
print(time.perf_counter() - began)
"""
)


def seconds(python: str, code: str) -> float:
    """What a fresh process measured; the median of several."""
    command = [python, "-c", code]
    done = [subprocess.run(command, capture_output=True, text=True, check=True, timeout=LONGEST) for _ in range(ROUNDS)]
    return statistics.median(float(one.stdout.splitlines()[-1]) for one in done)


def main() -> None:
    """Measure, write the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default=sys.executable, help="the Python of an environment with gepa==0.1.4")
    peer = parser.parse_args().peer
    floor = seconds(sys.executable, POOL)
    figures = {
        "a bare pool of 16 threads": floor,
        "dn.evaluate, concurrency=16": seconds(sys.executable, OURS),
        "gepa 0.1.4, 16 workers": seconds(peer, THEIRS),
    }
    lines = [[what, f"{figure:.3g}", f"{figure / floor:.3g}", today()] for what, figure in figures.items()]
    written("sync_metrics", ["47 synchronous metrics of 0.1 s", "seconds", "ratio", "date"], lines)


if __name__ == "__main__":
    main()
