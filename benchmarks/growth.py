"""Cost as work grows: rows, attempts, candidates × examples, spans of a trace and run files, from small to large.

    python benchmarks/growth.py [part of the name of what grows, to measure only that]

There is no model and no network. Stubs answer at once, so only the work of dspynb is measured. Every figure comes from
a fresh process. Writes benchmarks/growth.csv, with medians of several runs: what grows, its size, seconds, microseconds
per item, peak memory in MB above that of the process before, and MB of the file if there is one. ``power`` is the
exponent of the seconds between a size and the previous one, which is a tenth of it: 1 is linear. (Passes of Python's
garbage collector over a large heap make it about 1.1.)
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from report import read, today, write_results

ROUNDS = 3
REPLY = "[[ ## answer ## ]]\nfine\n\n[[ ## completed ## ]]"
EXAMPLES = 1_000
EXAMPLES_PER_CANDIDATE = 10
"""The number of examples on which each candidate runs, of all EXAMPLES."""


def memory(what: str) -> float:
    """MB of this process: ``VmRSS`` now, ``VmHWM`` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


class Measure:
    """Seconds and memory of a block."""

    def __enter__(self) -> Measure:
        gc.collect()
        self.memory_before = memory("VmRSS")
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.start
        self.mb = max(0.0, memory("VmHWM") - self.memory_before)

    def figures(self, **more: float) -> dict[str, float]:
        """The figures to send to the parent process."""
        return {"seconds": self.seconds, "MB": self.mb, **more}


def prepare(folder: str | None = None) -> Any:
    """dspynb and a program that answers at once. Also loads pandas, which alone takes longer than the small sizes."""
    import pandas as pd

    import dspynb as dn

    pd.to_datetime(pd.DataFrame({"at": [1.0]})["at"], unit="s", utc=True)

    dn.configure(view="off", runs_dir=folder)
    return dn, dn.Predict("question -> answer", lm=dn.FunctionLM(lambda _: REPLY))


def data(n: int) -> list[dict[str, Any]]:
    return [{"question": f"question {i}"} for i in range(n)]


def right(row: Any, prediction: Any) -> float:  # noqa: ARG001
    return float(prediction.answer == "fine")


def calls(n: int, _folder: str) -> dict[str, float]:
    """Plain calls, one after the other; none of them is recorded."""
    dn, predict = prepare()

    async def main() -> Measure:
        await dn.evaluate(predict, data(20), right)
        with Measure() as measured:
            for i in range(n):
                await predict(question=f"question {i}")
        return measured

    return asyncio.run(main()).figures()


def rows(n: int, folder: str, *, journal: bool = False) -> dict[str, float]:
    """An evaluation of ``n`` rows."""
    dn, predict = prepare(folder if journal else None)

    async def main() -> Measure:
        await dn.evaluate(predict, data(20), right)
        examples = data(n)
        with Measure() as measured:
            evaluation = await dn.evaluate(predict, examples, right)
            assert len(evaluation.table) == n
        return measured

    measured = asyncio.run(main())
    if journal:
        return measured.figures(file=size_of(folder))
    return measured.figures()


def rows_with_file(n: int, folder: str) -> dict[str, float]:
    """An evaluation of ``n`` rows, with a run file."""
    return rows(n, folder, journal=True)


def size_of(folder: str) -> float:
    """MB of the largest run file."""
    from dspynb.running.journal import flush_journals

    flush_journals()
    return largest_file(folder).stat().st_size / 1e6


def largest_file(folder: str) -> Path:
    """The largest run file in a folder."""
    return max(Path(folder).glob("*.jsonl"), key=lambda path: path.stat().st_size)


def reopened(n: int, folder: str) -> dict[str, float]:
    """Opening the run file of an evaluation of ``n`` rows as a table."""
    rows_with_file(n, folder)
    path = largest_file(folder)
    figures = measure_in_process(f"growth.open_file({str(path)!r}, {n})")
    return figures | {"file": path.stat().st_size / 1e6}


def measure_in_process(code: str) -> dict[str, float]:
    """Run code in a separate process, so that its figures exclude the time and memory of writing the file."""
    process = subprocess.run(
        [sys.executable, "-c", f"import growth; {code}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    )
    return dict(json.loads(process.stdout))


def open_file(path: str, n: int) -> None:
    """Measure opening a run file as a table, and print the figures for `measure_in_process`."""
    dn, _ = prepare()
    with Measure() as measured:
        assert len(dn.open_run(path).rollouts) == n
    print(json.dumps(measured.figures()))


def listed(n: int, folder: str) -> dict[str, float]:
    """Listing one run file of ``n`` rows with ``runs()``."""
    rows_with_file(n, folder)
    listed_path = largest_file(folder)
    for path in Path(folder).glob("*.jsonl"):
        if path != listed_path:
            path.unlink()
    figures = measure_in_process(f"growth.list_files({folder!r})")
    return figures | {"file": listed_path.stat().st_size / 1e6}


def list_files(folder: str) -> None:
    """Measure ``runs()``, and print the figures for `measure_in_process`."""
    dn, _ = prepare(folder)
    with Measure() as measured:
        assert len(dn.runs()) == 1
    print(json.dumps(measured.figures()))


def attempts(n: int, _folder: str) -> dict[str, float]:
    """One Refine of ``n`` attempts, in waves of 8, each with a hint; none reaches the threshold."""
    dn, predict = prepare()

    def reward(row: Any, prediction: Any) -> Any:  # noqa: ARG001
        return dn.Score(0.5, feedback="say it better")

    async def main() -> Measure:
        await dn.Refine(predict, reward, n=8, width=8)(question="x")
        with Measure() as measured:
            run = dn.Refine(predict, reward, n=n, width=8).start(question="x")
            await run
            assert len(run.attempts) == n
        return measured

    return asyncio.run(main()).figures()


def candidates(n: int, _folder: str) -> dict[str, float]:
    """An optimizer whose matrix candidates × 1,000 examples has ``n`` cells; each candidate runs on 10 examples.

    Includes the tables of candidates and scores, and the summary.
    """
    dn, predict = prepare()
    from dspynb.scope import Part

    class Many(dn.Optimizer):
        """Proposes instructions, and runs each on a few rows."""

        async def search(self, engine: Any) -> None:
            await engine.evaluate(engine.start)
            pending = []
            for i in range(n // EXAMPLES):
                candidate = engine.candidate({"self": Part(instruction=f"Answer {i}.")}, origin="many", step=i)
                chosen_rows = engine.random("rows", i).sample(range(EXAMPLES), EXAMPLES_PER_CANDIDATE)
                pending.append(engine.evaluate(candidate, chosen_rows, step=i))
                if len(pending) == 64:
                    await asyncio.gather(*pending)
                    pending.clear()
            await asyncio.gather(*pending)

    async def main() -> Measure:
        examples = data(EXAMPLES)
        with Measure() as measured:
            run = Many(right).start(predict, examples, val=examples)
            await run
            assert run.matrix.shape == (n // EXAMPLES + 1, EXAMPLES)
            assert len(run.candidates) == n // EXAMPLES + 1
            assert run.summary
        return measured

    import warnings

    warnings.simplefilter("ignore", dn.DataOverlapWarning)
    return asyncio.run(main()).figures()


def spans(n: int, folder: str) -> dict[str, float]:
    """A trace of ``n`` spans: saving, loading, and converting it to a table."""
    dn, predict = prepare()
    path = Path(folder) / "trace.jsonl"

    async def main() -> Measure:
        with dn.trace() as t:
            for i in range(n):
                await predict(question=f"question {i}")
        with Measure() as measured:
            t.save(path)
            assert len(dn.Trace.load(path).table()) == n
        return measured

    return asyncio.run(main()).figures(file=path.stat().st_size / 1e6)


KINDS: dict[str, tuple[Callable[[int, str], dict[str, float]], list[int]]] = {
    "plain calls": (calls, [100, 1_000, 10_000, 100_000]),
    "rows of an evaluation": (rows, [100, 1_000, 10_000, 100_000]),
    "rows of an evaluation with a run file": (rows_with_file, [100, 1_000, 10_000, 100_000]),
    "rows of a run file, opened as a table": (reopened, [100, 1_000, 10_000, 100_000]),
    "rows of a run file, listed by runs()": (listed, [100, 1_000, 10_000, 100_000]),
    "attempts of a Refine": (attempts, [10, 100, 1_000, 10_000]),
    "cells of candidates × examples, 1 % filled": (candidates, [10_000, 100_000, 1_000_000, 10_000_000]),
    "spans of a trace, saved, loaded, tabulated": (spans, [100, 1_000, 10_000, 100_000]),
}
HEADER = ["what grows", "size", "seconds", "µs each", "power", "MB", "file, MB", "date"]


def measure(what: str, size: int) -> dict[str, float]:
    """Measure one size in a fresh process, and return its figures."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.run(
            [sys.executable, __file__, what, str(size), folder], capture_output=True, text=True, check=False
        )
    if process.returncode:
        raise SystemExit(process.stderr)
    return dict(json.loads(process.stdout.splitlines()[-1]))


def measure_sizes(what: str, sizes: list[int]) -> list[list[Any]]:
    """The table lines of one thing that grows: the medians for each size."""
    lines: list[list[Any]] = []
    previous = None
    for size in sizes:
        results = [measure(what, size) for _ in range(ROUNDS)]
        medians = {name: statistics.median(result[name] for result in results) for name in results[0]}
        seconds = medians["seconds"]
        power = "" if previous is None else f"{math.log10(seconds / previous):.2f}"
        file = f"{medians['file']:.3g}" if "file" in medians else ""
        each = f"{1e6 * seconds / size:.3g}"
        lines.append([what, size, f"{seconds:.4g}", each, power, f"{medians['MB']:.1f}", file, today()])
        print(*lines[-1], sep=" | ", flush=True)
        previous = seconds
    return lines


def main() -> None:
    """Measure all things that grow, or one of them, and write the table."""
    if len(sys.argv) == 4:
        what, size, folder = sys.argv[1:]
        function, _ = KINDS[what]
        print(json.dumps(function(int(size), folder)))
        return
    lines: list[list[Any]] = []
    for what, (_, sizes) in KINDS.items():
        if len(sys.argv) == 2 and sys.argv[1] not in what:
            lines += [list(row.values()) for row in read("growth") if row["what grows"] == what]
        else:
            lines += measure_sizes(what, sizes)
    write_results("growth", HEADER, lines)


if __name__ == "__main__":
    main()
