"""Evaluating with a slow synchronous metric, compared with running the same metric in threads.

    python benchmarks/sync_metrics.py --peer /path/to/an/environment/with/gepa/bin/python

There are 47 rows, 16 at a time, a model that answers at once, and a metric that sleeps for 0.1 s. They are compared
with a plain pool of 16 threads, and with the parallel evaluator of gepa 0.1.4 with 16 workers. Writes sync_metrics.csv:
medians of several fresh processes, without imports; ``ratio`` is relative to the plain pool (1: the same).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from report import today, write_results

ROUNDS = 3
TIMEOUT = 120

SIZES = """
import time
ROWS = 47
AT_A_TIME = 16
SECONDS = 0.1
def slow_score(*_):
    time.sleep(SECONDS)
    return 1.0
"""
DSPYNB = (
    SIZES
    + """
import asyncio, dspynb as dn
dn.configure(view="off", runs_dir=None, cache=False)
predict = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "[[ ## answer ## ]]\\nfine"))
def metric(row, prediction):
    return slow_score()
async def main():
    await predict(question="imports of the first call are not counted")
    start = time.perf_counter()
    await dn.evaluate(predict, [{"question": str(i)} for i in range(ROWS)], metric, concurrency=AT_A_TIME)
    return time.perf_counter() - start
print(asyncio.run(main()))
"""
)
POOL = (
    SIZES
    + """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(AT_A_TIME) as pool:
    list(pool.map(slow_score, range(AT_A_TIME)))
    start = time.perf_counter()
    list(pool.map(slow_score, range(ROWS)))
    print(time.perf_counter() - start)
"""
)
GEPA = (
    SIZES
    + """
from gepa.adapters.optimize_anything_adapter.optimize_anything_adapter import OptimizeAnythingAdapter
def evaluator(candidate, example=None, **_):
    return slow_score(), None, {}
adapter = OptimizeAnythingAdapter(evaluator=evaluator, parallel=True, max_workers=AT_A_TIME, cache_mode="off")
start = time.perf_counter()
adapter.evaluate(list(range(ROWS)), {"text": "x"}, capture_traces=False)
print(time.perf_counter() - start)
"""
)


def seconds(python: str, code: str) -> float:
    """The median of the seconds that several fresh processes print."""
    command = [python, "-c", code]
    results = []
    for _ in range(ROUNDS):
        process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT)
        results.append(float(process.stdout.splitlines()[-1]))
    return statistics.median(results)


def main() -> None:
    """Measure, and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default=sys.executable, help="the Python of an environment with gepa==0.1.4")
    peer = parser.parse_args().peer
    pool_seconds = seconds(sys.executable, POOL)
    figures = {
        "a plain pool of 16 threads": pool_seconds,
        "dn.evaluate, concurrency=16": seconds(sys.executable, DSPYNB),
        "gepa 0.1.4, 16 workers": seconds(peer, GEPA),
    }
    lines = [[what, f"{figure:.3g}", f"{figure / pool_seconds:.3g}", today()] for what, figure in figures.items()]
    write_results("sync_metrics", ["47 synchronous metrics of 0.1 s", "seconds", "ratio", "date"], lines)


if __name__ == "__main__":
    main()
