"""A trace of 10,000 spans: recorded, saved, loaded, tabulated; time of each and the peak of memory.

    python benchmarks/traces.py

Writes benchmarks/traces.csv: what, dspynb, limit, date; medians of several fresh processes. DSPy has no traces on disk
to compare with. Memory is that of the whole process, pandas included; so is the time
to import it. On a machine with other work, look at the processor time.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from report import today, written

HERE = Path(__file__).parent
ROUNDS = 5
LIMITS = {
    "all three, s": 2.0,
    "all three, s of processor time": 2.0,
    "peak of the process that made it, MB": 200.0,
    "peak of one that loads it, MB": 200.0,
}

RECORD = """
import asyncio, json, sys, time, dspynb as dn
dn.configure(view="off", runs_dir=None)
predict = dn.Predict("question, context -> answer", lm=dn.FunctionLM(lambda r: "[[ ## answer ## ]]\\n" + "word " * 20))
class Steps(dn.Module):
    def __init__(self):
        self.predict = predict
    async def forward(self, question):
        for i in range(4):
            await self.predict(question=question, context=f"{i} " + "fact " * 100)
        return {"answer": question}
async def main():
    program = Steps()
    with dn.trace() as t:
        for i in range(2000):
            await program(question=f"question {i}")
    return t
t = asyncio.run(main())
began, cpu = time.perf_counter(), time.process_time()
t.save(sys.argv[1])
took = {"save": time.perf_counter() - began, "cpu": time.process_time() - cpu}
assert len(t.spans) == 10_000
"""
LOAD = """
import json, sys, time, dspynb as dn
took = {}
began, cpu = time.perf_counter(), time.process_time()
back = dn.Trace.load(sys.argv[1])
took["load"] = time.perf_counter() - began
began = time.perf_counter()
table = back.table()
took["table"], took["cpu"] = time.perf_counter() - began, time.process_time() - cpu
assert len(table) == 10_000
"""
PEAK = """
took["MB"] = next(int(l.split()[1]) / 1024 for l in open('/proc/self/status') if l.startswith('VmHWM'))
print(json.dumps(took))
"""


def run(code: str, path: Path) -> dict[str, float]:
    """What a fresh process measured."""
    done = subprocess.run([sys.executable, "-c", code + PEAK, str(path)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Measure, write the medians."""
    path = HERE / "trace.tmp.jsonl"
    try:
        seen = [(run(RECORD, path), run(LOAD, path)) for _ in range(ROUNDS)]
        size = path.stat().st_size / 1e6
    finally:
        path.unlink(missing_ok=True)
    rows = {
        "save, s": [made["save"] for made, _ in seen],
        "load, s": [read["load"] for _, read in seen],
        "table, with the import of pandas, s": [read["table"] for _, read in seen],
        "all three, s": [made["save"] + read["load"] + read["table"] for made, read in seen],
        "all three, s of processor time": [made["cpu"] + read["cpu"] for made, read in seen],
        "peak of the process that made it, MB": [made["MB"] for made, _ in seen],
        "peak of one that loads it, MB": [read["MB"] for _, read in seen],
        "file, MB": [size],
    }
    lines = [(what, f"{statistics.median(r):.4g}", LIMITS.get(what, ""), today()) for what, r in rows.items()]
    written("traces", ["what, 10000 spans", "dspynb", "limit", "date"], lines)


if __name__ == "__main__":
    main()
