"""Reading ``run.status``, ``run.usage`` and ``repr(run)`` of short and long runs, live and reopened.

    python benchmarks/record.py

The record of an evaluation of 100 and of 100,000 rows, and the same from its file. Writes record.csv: the microseconds
of processor time that each of the three takes, and ``ratio``, beside the same of the shorter run: 1 means that the
length of a run does not matter. Opening the file is not counted.
"""

from __future__ import annotations

import json
import subprocess
import sys

from report import today, written

SIZES = (100, 100_000)
ROUNDS = 2

CODE = """
import json, sys, tempfile, time, timeit, dspynb as dn
from dspynb.events import PredictorCalled, RolloutEnded, RunEnded, RunStarted, SpanStarted
from dspynb.running.journal import write_journal
from dspynb.running.reader import RunReader
from pathlib import Path

def events(rows):
    yield RunStarted(span=1, kind="evaluate", name="Predict", inputs={"rows": rows})
    for row in range(rows):
        span, usage = 10 + 2 * row, dn.Usage(calls=1, prompt_tokens=90, completion_tokens=10, usd=0.001)
        yield SpanStarted(span=span, parent=1, kind="row", name=f"row {row}", row=row)
        call = {"predictor": "self", "uid": "u", "inputs": {}, "messages": (), "usage": usage}
        yield PredictorCalled(span=span + 1, parent=span, **call)
        yield RolloutEnded(span=span, parent=1, row=row, score=1.0, usage=usage)
    yield RunEnded(span=1, status="finished")

rows, path = int(sys.argv[1]), Path(tempfile.mkdtemp()) / "run.jsonl"
live = RunReader("run", events(rows))
write_journal(path, {"id": "run", "kind": "evaluate"}, live.record.events)
found = {}
for name, run in {"live": live, "reopened": dn.open_run(path)}.items():
    assert len(run.record.rollouts) == rows
    reads = {"run.status": lambda: run.status, "run.usage": lambda: run.usage, "repr(run)": lambda: repr(run)}
    for what, read in reads.items():
        times = timeit.repeat(read, number=1000, repeat=5, timer=time.process_time)
        found[f"{what}, {name}"] = min(times) * 1e3
print(json.dumps(found))
"""


def measured(rows: int) -> dict[str, float]:
    """Microseconds of each, in a fresh process; the fewest of several."""
    found: dict[str, float] = {}
    for _ in range(ROUNDS):
        command = [sys.executable, "-c", CODE, str(rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
        for what, took in json.loads(done.stdout.splitlines()[-1]).items():
            found[what] = min(took, found.get(what, took))
    return found


def main() -> None:
    """Measure, and write."""
    short, long = (measured(rows) for rows in SIZES)
    lines = []
    for what in short:
        for rows, found in zip(SIZES, (short, long), strict=True):
            lines.append([what, rows, f"{found[what]:.2f}", f"{found[what] / short[what]:.2f}", today()])
            print(*lines[-1], flush=True)
    written("record", ["reading", "rows", "µs", "ratio", "date"], lines)


if __name__ == "__main__":
    main()
