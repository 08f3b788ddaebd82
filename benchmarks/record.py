"""The cost of reading ``run.status``, ``run.usage`` and ``repr(run)`` of short and long runs, live and reopened.

    python benchmarks/record.py

Uses the record of an evaluation of 100 and of 100,000 rows, and the record that is read from its file; opening the file
is not counted. Writes record.csv: the microseconds of CPU time of each reading, and ``ratio``, relative to the shorter
run. A ratio of 1 means that the length of a run does not matter.
"""

from __future__ import annotations

import json
import subprocess
import sys

from report import today, write_results

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
        span = 10 + 2 * row
        usage = dn.Usage(calls=1, prompt_tokens=90, completion_tokens=10, usd=0.001)
        yield SpanStarted(span=span, parent=1, kind="row", name=f"row {row}", row=row)
        call = {"predictor": "self", "uid": "u", "inputs": {}, "messages": (), "usage": usage}
        yield PredictorCalled(span=span + 1, parent=span, **call)
        yield RolloutEnded(span=span, parent=1, row=row, score=1.0, usage=usage)
    yield RunEnded(span=1, status="finished")

rows = int(sys.argv[1])
path = Path(tempfile.mkdtemp()) / "run.jsonl"
live = RunReader("run", events(rows))
write_journal(path, {"id": "run", "kind": "evaluate"}, live.record.events)
microseconds = {}
for name, run in {"live": live, "reopened": dn.open_run(path)}.items():
    assert len(run.record.rollouts) == rows
    reads = {"run.status": lambda: run.status, "run.usage": lambda: run.usage, "repr(run)": lambda: repr(run)}
    for what, read in reads.items():
        times = timeit.repeat(read, number=1000, repeat=5, timer=time.process_time)
        microseconds[f"{what}, {name}"] = min(times) * 1e3
print(json.dumps(microseconds))
"""


def measure(rows: int) -> dict[str, float]:
    """Microseconds of each reading, in fresh processes; the fastest of several rounds."""
    fastest: dict[str, float] = {}
    for _ in range(ROUNDS):
        command = [sys.executable, "-c", CODE, str(rows)]
        process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
        for what, microseconds in json.loads(process.stdout.splitlines()[-1]).items():
            fastest[what] = min(microseconds, fastest.get(what, microseconds))
    return fastest


def main() -> None:
    """Measure both sizes, and write the table."""
    results = [measure(rows) for rows in SIZES]
    short = results[0]
    lines = []
    for what in short:
        for rows, result in zip(SIZES, results, strict=True):
            lines.append([what, rows, f"{result[what]:.2f}", f"{result[what] / short[what]:.2f}", today()])
            print(*lines[-1], flush=True)
    write_results("record", ["reading", "rows", "µs", "ratio", "date"], lines)


if __name__ == "__main__":
    main()
