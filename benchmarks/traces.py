"""A trace of 10,000 spans: recording, saving, loading and converting to a table; time of each, and peak memory.

    python benchmarks/traces.py

Writes benchmarks/traces.csv: what, dspynb, limit, date; medians of several fresh processes. DSPy has no traces on disk
to compare with. Memory is that of the whole process, including pandas; the time to import pandas is included too. On a
machine with other work, look at the CPU time.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from report import today, write_results

HERE = Path(__file__).parent
ROUNDS = 5
LIMITS = {
    "all three, s": 2.0,
    "all three, s of CPU time": 2.0,
    "peak memory of the recording process, MB": 200.0,
    "peak memory of the loading process, MB": 200.0,
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
start = time.perf_counter()
cpu_start = time.process_time()
t.save(sys.argv[1])
figures = {"save": time.perf_counter() - start, "cpu": time.process_time() - cpu_start}
assert len(t.spans) == 10_000
"""
LOAD = """
import json, sys, time, dspynb as dn
figures = {}
start = time.perf_counter()
cpu_start = time.process_time()
loaded = dn.Trace.load(sys.argv[1])
figures["load"] = time.perf_counter() - start
start = time.perf_counter()
table = loaded.table()
figures["table"] = time.perf_counter() - start
figures["cpu"] = time.process_time() - cpu_start
assert len(table) == 10_000
"""
PEAK = """
figures["MB"] = next(int(l.split()[1]) / 1024 for l in open('/proc/self/status') if l.startswith('VmHWM'))
print(json.dumps(figures))
"""


def run(code: str, path: Path) -> dict[str, float]:
    """Run code in a fresh process, and return the figures that it prints."""
    process = subprocess.run([sys.executable, "-c", code + PEAK, str(path)], capture_output=True, text=True, check=True)
    return json.loads(process.stdout)


def main() -> None:
    """Measure, and write the medians."""
    path = HERE / "trace.tmp.jsonl"
    try:
        results = [(run(RECORD, path), run(LOAD, path)) for _ in range(ROUNDS)]
        size = path.stat().st_size / 1e6
    finally:
        path.unlink(missing_ok=True)
    rows = {
        "save, s": [recorded["save"] for recorded, _ in results],
        "load, s": [loaded["load"] for _, loaded in results],
        "table, with the import of pandas, s": [loaded["table"] for _, loaded in results],
        "all three, s": [recorded["save"] + loaded["load"] + loaded["table"] for recorded, loaded in results],
        "all three, s of CPU time": [recorded["cpu"] + loaded["cpu"] for recorded, loaded in results],
        "peak memory of the recording process, MB": [recorded["MB"] for recorded, _ in results],
        "peak memory of the loading process, MB": [loaded["MB"] for _, loaded in results],
        "file, MB": [size],
    }
    lines = [(what, f"{statistics.median(r):.4g}", LIMITS.get(what, ""), today()) for what, r in rows.items()]
    write_results("traces", ["what, 10000 spans", "dspynb", "limit", "date"], lines)


if __name__ == "__main__":
    main()
