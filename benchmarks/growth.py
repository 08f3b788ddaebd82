"""Cost as work grows: rows, attempts, candidates × examples, spans of a trace, the files of runs, each from small to
large. No model and no network: stubs answer at once, so what is measured is dspynb's own work.

    python benchmarks/growth.py [a part of the name of what grows, to measure no other]

Every figure comes from a fresh process. Writes benchmarks/growth.csv: what grows, its size, seconds, microseconds for
each one, MB of memory above what the process had before (its peak), MB of the file where there is one; medians of
several runs. ``power`` is the exponent of the seconds between a size and the one before it, a tenth of it: 1 is linear.
(The passes of Python's garbage collector over a large heap make about 1.1 of that.)
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

from report import read, today, written

ROUNDS = 3
REPLY = "[[ ## answer ## ]]\nfine\n\n[[ ## completed ## ]]"
EXAMPLES, TRIED = 1_000, 10
"""Of the candidates × examples: the examples, and how many of them each candidate is run on."""


def memory(what: str) -> float:
    """MB of this process: ``VmRSS`` now, ``VmHWM`` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


class Measure:
    """Seconds and memory of a block."""

    def __enter__(self) -> Measure:
        gc.collect()
        self.before, self.began = memory("VmRSS"), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.began
        self.mb = max(0.0, memory("VmHWM") - self.before)

    def told(self, **more: float) -> dict[str, float]:
        """For the parent process."""
        return {"seconds": self.seconds, "MB": self.mb, **more}


def prepared(folder: str | None = None) -> Any:
    """dspynb with a program that answers at once; pandas is loaded, which alone takes longer than the small sizes."""
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
    """Plain calls, one after the other, none of them kept."""
    dn, predict = prepared()

    async def main() -> Measure:
        await dn.evaluate(predict, data(20), right)
        with Measure() as took:
            for i in range(n):
                await predict(question=f"question {i}")
        return took

    return asyncio.run(main()).told()


def rows(n: int, folder: str, *, journal: bool = False) -> dict[str, float]:
    """An evaluation."""
    dn, predict = prepared(folder if journal else None)

    async def main() -> Measure:
        await dn.evaluate(predict, data(20), right)
        given = data(n)
        with Measure() as took:
            done = await dn.evaluate(predict, given, right)
            assert len(done.table) == n
        return took

    took = asyncio.run(main())
    return took.told(file=size_of(folder)) if journal else took.told()


def rows_kept(n: int, folder: str) -> dict[str, float]:
    """An evaluation with a run file."""
    return rows(n, folder, journal=True)


def size_of(folder: str) -> float:
    """MB of the largest run file."""
    from dspynb.running.journal import flush_journals

    flush_journals()
    return max(path.stat().st_size for path in Path(folder).glob("*.jsonl")) / 1e6


def reopened(n: int, folder: str) -> dict[str, float]:
    """The file of such a run, opened and made into a table."""
    rows_kept(n, folder)
    which = max(Path(folder).glob("*.jsonl"), key=lambda path: path.stat().st_size)
    return apart(f"growth.open_file({str(which)!r}, {n})") | {"file": which.stat().st_size / 1e6}


def apart(code: str) -> dict[str, float]:
    """What a process of its own found: what making the file took is not to be seen."""
    done = subprocess.run(
        [sys.executable, "-c", f"import growth; {code}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    )
    return dict(json.loads(done.stdout))


def open_file(path: str, n: int) -> None:
    """The table of a run file; printed for ``apart``."""
    dn, _ = prepared()
    with Measure() as took:
        assert len(dn.open_run(path).rollouts) == n
    print(json.dumps(took.told()))


def listed(n: int, folder: str) -> dict[str, float]:
    """``runs()`` over one run file of so many rows."""
    rows_kept(n, folder)
    which = max(Path(folder).glob("*.jsonl"), key=lambda path: path.stat().st_size)
    for path in Path(folder).glob("*.jsonl"):
        if path != which:
            path.unlink()
    return apart(f"growth.list_files({folder!r})") | {"file": which.stat().st_size / 1e6}


def list_files(folder: str) -> None:
    """The list of run files; printed for ``apart``."""
    dn, _ = prepared(folder)
    with Measure() as took:
        assert len(dn.runs()) == 1
    print(json.dumps(took.told()))


def attempts(n: int, _folder: str) -> dict[str, float]:
    """One Refine of so many attempts, in waves of 8, each with a hint, none of them good enough."""
    dn, predict = prepared()

    def reward(row: Any, prediction: Any) -> Any:  # noqa: ARG001
        return dn.Score(0.5, feedback="say it better")

    async def main() -> Measure:
        await dn.Refine(predict, reward, n=8, width=8)(question="x")
        with Measure() as took:
            run = dn.Refine(predict, reward, n=n, width=8).start(question="x")
            await run
            assert len(run.attempts) == n
        return took

    return asyncio.run(main()).told()


def candidates(n: int, _folder: str) -> dict[str, float]:
    """An optimizer that has so many cells of candidates × 1,000 examples, each candidate run on 10 of them; with the
    tables of candidates and scores, and the summary."""
    dn, predict = prepared()
    from dspynb.scope import Part

    class Many(dn.Optimizer):
        """Proposes texts and runs each on a few rows."""

        async def search(self, engine: Any) -> None:
            await engine.evaluate(engine.start)
            waiting = []
            for i in range(n // EXAMPLES):
                one = engine.candidate({"self": Part(instruction=f"Answer {i}.")}, origin="many", step=i)
                picked = engine.random("rows", i).sample(range(EXAMPLES), TRIED)
                waiting.append(engine.evaluate(one, picked, step=i))
                if len(waiting) == 64:
                    await asyncio.gather(*waiting)
                    waiting.clear()
            await asyncio.gather(*waiting)

    async def main() -> Measure:
        given = data(EXAMPLES)
        with Measure() as took:
            run = Many(right).start(predict, given, val=given)
            await run
            assert run.matrix.shape == (n // EXAMPLES + 1, EXAMPLES)
            assert len(run.candidates) == n // EXAMPLES + 1
            assert run.summary
        return took

    import warnings

    warnings.simplefilter("ignore", dn.DataOverlapWarning)
    return asyncio.run(main()).told()


def spans(n: int, folder: str) -> dict[str, float]:
    """A trace: saved, loaded, and made into a table."""
    dn, predict = prepared()
    path = Path(folder) / "trace.jsonl"

    async def main() -> Measure:
        with dn.trace() as t:
            for i in range(n):
                await predict(question=f"question {i}")
        with Measure() as took:
            t.save(path)
            assert len(dn.Trace.load(path).table()) == n
        return took

    return asyncio.run(main()).told(file=path.stat().st_size / 1e6)


KINDS: dict[str, tuple[Callable[[int, str], dict[str, float]], list[int]]] = {
    "plain calls": (calls, [100, 1_000, 10_000, 100_000]),
    "rows of an evaluation": (rows, [100, 1_000, 10_000, 100_000]),
    "the same, with a run file": (rows_kept, [100, 1_000, 10_000, 100_000]),
    "rows of a run file, opened as a table": (reopened, [100, 1_000, 10_000, 100_000]),
    "rows of a run file, listed by runs()": (listed, [100, 1_000, 10_000, 100_000]),
    "attempts of a Refine": (attempts, [10, 100, 1_000, 10_000]),
    "cells of candidates × examples, 1 % filled": (candidates, [10_000, 100_000, 1_000_000, 10_000_000]),
    "spans of a trace, saved, loaded, tabulated": (spans, [100, 1_000, 10_000, 100_000]),
}
HEADER = ["what grows", "size", "seconds", "µs each", "power", "MB", "file, MB", "date"]


def measured(what: str, size: int) -> dict[str, float]:
    """What a fresh process found."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, __file__, what, str(size), folder], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure, write the medians."""
    if len(sys.argv) == 4:
        what, size, folder = sys.argv[1:]
        print(json.dumps(KINDS[what][0](int(size), folder)))
        return
    lines: list[list[Any]] = []
    for what, (_, sizes) in KINDS.items():
        if len(sys.argv) == 2 and sys.argv[1] not in what:
            lines += [list(row.values()) for row in read("growth") if row["what grows"] == what]
            continue
        before = None
        for size in sizes:
            seen = [measured(what, size) for _ in range(ROUNDS)]
            found = {name: statistics.median(one[name] for one in seen) for name in seen[0]}
            seconds = found["seconds"]
            power = "" if before is None else f"{math.log10(seconds / before):.2f}"
            file = f"{found['file']:.3g}" if "file" in found else ""
            lines.append(
                [
                    what,
                    size,
                    f"{seconds:.4g}",
                    f"{1e6 * seconds / size:.3g}",
                    power,
                    f"{found['MB']:.1f}",
                    file,
                    today(),
                ]
            )
            print(*lines[-1], sep=" | ", flush=True)
            before = seconds
    written("growth", HEADER, lines)


if __name__ == "__main__":
    main()
