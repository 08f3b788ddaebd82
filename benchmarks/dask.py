"""An evaluation with a metric that computes: one and two Dask workers, compared with one and two plain processes.

    python benchmarks/dask.py

The model is in the process and answers at once; the metric takes about 30 or 100 ms of Python. One process evaluates
all rows. Then two plain processes evaluate half of the rows each. Then a DaskExecutor evaluates all rows, with one and
with two worker processes. Before the clock starts, processes and clusters are running and have evaluated a few rows.

Writes benchmarks/dask.csv: medians of several rounds; each round measures all of them one after the other. The speed-up
is relative to one process in the same round. The next column is relative to two plain processes in the same round.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from report import today, write_results

HERE = Path(__file__).parent
ROUNDS = 3
INSTANT = 400
"""Rows of the evaluation whose metric computes nothing."""
HEAVY = {0.03: 96, 0.1: 40}
"""Seconds that the metric takes → number of rows."""
KINDS = {
    "one": "one process",
    "plain": "two plain processes",
    "one worker": "one Dask worker",
    "dask": "two Dask workers",
}

# Passed with -c: a script in this folder would import this file instead of the library dask.
CODE = """
import asyncio, sys, dspynb as dn
kind = sys.argv[1]
rows, iterations, workers = map(int, sys.argv[2:])
dn.configure(view="off", runs_dir=None, lm=dn.FunctionLM(lambda request: "[[ ## answer ## ]]\\nfine"))
predict = dn.Predict("question -> answer")
def metric(row, prediction):
    total = 0
    for i in range(iterations):
        total += i * i
    return float(total >= 0)
def data(n):
    return [{"question": f"question {i}"} for i in range(n)]
async def main(executor):
    evaluate = dn.Evaluate(metric, executor=executor)
    await evaluate(predict, data(32))
    print("ready", flush=True)
    while sys.stdin.readline().strip():
        evaluation = await evaluate(predict, data(rows))
        assert len(evaluation) == rows and evaluation.score.mean == 1.0
        print("done", flush=True)
if kind == "dask":
    from distributed import LocalCluster
    with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as cluster:
        executor = dn.DaskExecutor(cluster)
        asyncio.run(main(executor))
        executor.close()
else:
    asyncio.run(main(None))
"""


class Workers:
    """Processes that are ready to evaluate ``rows`` rows each; `seconds` makes them do it."""

    def __init__(self, kind: str, processes: int, rows: int, iterations: int, workers: int = 0) -> None:
        command = [sys.executable, "-c", CODE, kind, str(rows), str(iterations), str(workers)]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE.parent)
            for _ in range(processes)
        ]
        self._wait_for("ready")

    def _wait_for(self, word: str) -> None:
        for process in self._processes:
            if process.stdout is None or process.stdout.readline().strip() != word:
                raise SystemExit("a measured process has ended")

    def seconds(self) -> float:
        """Evaluate in all processes at the same time, and return the seconds until the last one is done."""
        start = time.perf_counter()
        for process in self._processes:
            print("go", file=process.stdin, flush=True)
        self._wait_for("done")
        return time.perf_counter() - start

    def end(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.communicate("\n")


def iterations_for(seconds: float) -> int:
    """The number of loop iterations of the metric that take this many seconds on this machine."""
    total = 0
    count = 200_000
    start = time.perf_counter()
    for i in range(count):
        total += i * i
    return int(count * seconds / (time.perf_counter() - start))


def measure(iterations: int, rows: int, rounds: int) -> dict[str, list[float]]:
    """Seconds by round of one process, two plain processes, and one and two Dask workers."""
    kinds = {
        "one": Workers("plain", 1, rows, iterations),
        "plain": Workers("plain", 2, rows // 2, iterations),
        "one worker": Workers("dask", 1, rows, iterations, workers=1),
        "dask": Workers("dask", 1, rows, iterations, workers=2),
    }
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    try:
        for _ in range(rounds):
            for name, workers in kinds.items():
                seconds[name].append(workers.seconds())
    finally:
        for workers in kinds.values():
            workers.end()
    return seconds


def ratio(numerators: list[float], denominators: list[float]) -> float:
    """The median of the ratios of the rounds."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def main() -> None:
    """Measure, and write the table."""
    rows: list[tuple[str, float, float | str, float | str]] = []
    for seconds, count in HEAVY.items():
        times = measure(iterations_for(seconds), count, ROUNDS)
        metric = f"metric of {1e3 * seconds:.0f} ms, {count} rows: "
        for name, label in KINDS.items():
            ratios: tuple[float | str, float | str] = ("", "")
            if name != "one":
                ratios = (ratio(times["one"], times[name]), ratio(times["plain"], times[name]))
            rows.append((f"{metric}{label}, s", statistics.median(times[name]), *ratios))
    times = measure(0, INSTANT, ROUNDS)
    for name, label in KINDS.items():
        if name != "plain":
            per_row = 1e3 * statistics.median(times[name]) / INSTANT
            rows.append((f"nothing to compute: {label}, ms per row", per_row, "", ""))
    lines = []
    for what, *figures in rows:
        cells = [f"{figure:.3f}" if isinstance(figure, float) else figure for figure in figures]
        lines.append((what, *cells, os.cpu_count(), today()))
    header = ["what", "figure", "speed-up", "relative to two plain processes", "cores", "date"]
    write_results("dask", header, lines)


if __name__ == "__main__":
    main()
