"""One and two Dask workers beside one and two plain processes, in the same run: an evaluation, its metric computes.

    python benchmarks/dask.py

A model in the process, which answers at once, and a metric of about 30 or 100 ms of Python. One process evaluates all
rows, then two plain processes half of them each, then a DaskExecutor with one and with two worker processes all of
them; processes and clusters are started and have evaluated a few rows before the clock runs. Writes
benchmarks/dask.csv: medians of several rounds, in which each is run in turn. The speed-up is over one process; ``of
plain`` is the share that Dask reaches of what two plain processes reach, in the same round.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from report import today, written

HERE = Path(__file__).parent
ROUNDS, INSTANT = 3, 400
HEAVY = {0.03: 96, 0.1: 40}
"""Seconds of the metric → rows."""
KINDS = {
    "one": "one process",
    "plain": "two plain processes",
    "one worker": "one Dask worker",
    "dask": "two Dask workers",
}

# Sent as text: a script in this folder would find itself where it imports dask.
CODE = """
import asyncio, sys, dspynb as dn
kind, rows, turns, workers = sys.argv[1], *map(int, sys.argv[2:])
dn.configure(view="off", runs_dir=None, lm=dn.FunctionLM(lambda request: "[[ ## answer ## ]]\\nfine"))
predict = dn.Predict("question -> answer")
def metric(row, prediction):
    total = 0
    for i in range(turns):
        total += i * i
    return float(total >= 0)
def data(n):
    return [{"question": f"question {i}"} for i in range(n)]
async def main(executor):
    plan = dn.Evaluate(metric, executor=executor)
    await plan(predict, data(32))
    print("ready", flush=True)
    while sys.stdin.readline().strip():
        done = await plan(predict, data(rows))
        assert len(done) == rows and done.score.mean == 1.0
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


class Measured:
    """Processes that evaluate ``rows`` each when they are told to."""

    def __init__(self, kind: str, processes: int, rows: int, turns: int, workers: int = 0) -> None:
        given = [sys.executable, "-c", CODE, kind, str(rows), str(turns), str(workers)]
        self._running = [
            subprocess.Popen(given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE.parent)
            for _ in range(processes)
        ]
        self._heard("ready")

    def _heard(self, word: str) -> None:
        for process in self._running:
            if process.stdout is None or process.stdout.readline().strip() != word:
                raise SystemExit("a process that is measured has ended")

    def seconds(self) -> float:
        """How long all of them take."""
        began = time.perf_counter()
        for process in self._running:
            print("go", file=process.stdin, flush=True)
        self._heard("done")
        return time.perf_counter() - began

    def end(self) -> None:
        """End them."""
        for process in self._running:
            process.communicate("\n")


def turns_of(seconds: float) -> int:
    """How often the metric goes round to take so long here."""
    began, total, count = time.perf_counter(), 0, 200_000
    for i in range(count):
        total += i * i
    return int(count * seconds / (time.perf_counter() - began))


def measured(turns: int, rows: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of one process, two plain ones, one and two workers, by round, taken in turn."""
    kinds = {
        "one": Measured("plain", 1, rows, turns),
        "plain": Measured("plain", 2, rows // 2, turns),
        "one worker": Measured("dask", 1, rows, turns, workers=1),
        "dask": Measured("dask", 1, rows, turns, workers=2),
    }
    seen: dict[str, list[float]] = {name: [] for name in kinds}
    try:
        for _ in range(rounds):
            for name, one in kinds.items():
                seen[name].append(one.seconds())
    finally:
        for one in kinds.values():
            one.end()
    return seen


def ratio(above: list[float], below: list[float]) -> float:
    """The median over the rounds of one round's ratio."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def main() -> None:
    """Measure, write, print."""
    rows: list[tuple[str, float, float | str, float | str]] = []
    for seconds, count in HEAVY.items():
        took = measured(turns_of(seconds), count, ROUNDS)
        metric = f"metric of {1e3 * seconds:.0f} ms, {count} rows: "
        for name, what in KINDS.items():
            figures = ("", "") if name == "one" else (ratio(took["one"], took[name]), ratio(took["plain"], took[name]))
            rows.append((f"{metric}{what}, s", statistics.median(took[name]), *figures))
    instant = measured(0, INSTANT, ROUNDS)
    for name, what in KINDS.items():
        if name == "plain":
            continue
        rows.append((f"nothing to compute: {what}, ms a row", 1e3 * statistics.median(instant[name]) / INSTANT, "", ""))
    lines = [
        (
            what,
            *(f"{figure:.3f}" if isinstance(figure, float) else figure for figure in figures),
            os.cpu_count(),
            today(),
        )
        for what, *figures in rows
    ]
    written("dask", ["what", "figure", "speed-up", "of plain", "cores", "date"], lines)


if __name__ == "__main__":
    main()
