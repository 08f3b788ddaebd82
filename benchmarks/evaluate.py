"""Evaluate compared with DSPy's: 500 rows of 50 ms, instant rows, the journal, and an open view.

    python benchmarks/evaluate.py --peer /path/to/an/environment/with/dspy/bin/python

Models are stubs in the process, so only the work of the evaluators is measured. 256 rows are in flight; journal and
view are off unless the row says otherwise. Writes benchmarks/evaluate.csv: medians of several rounds, each of which
measures all kinds one after the other. ``ratio`` is the figure of dspynb divided by the reference.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile

from report import today, write_results

ROUNDS = 5
IN_FLIGHT = 256
SLOW = 500
INSTANT = 10_000
MANY = 100_000

DSPYNB = """
import asyncio, json, sys, time, dspynb as dn
from dspynb.views.live.live_view import LiveView
from dspynb.views.live.notebook import pages
kind, folder = sys.argv[1], sys.argv[4]
rows, in_flight = int(sys.argv[2]), int(sys.argv[3])
dn.configure(view="off", runs_dir=folder if kind == "journal" else None)
async def answer(request):
    if kind == "slow":
        await asyncio.sleep(0.05)
    return "[[ ## answer ## ]]\\nfine\\n\\n[[ ## completed ## ]]"
predict = dn.Predict("question -> answer", lm=dn.FunctionLM(answer))
evaluate = dn.Evaluate(lambda row, prediction: prediction.answer == "fine", concurrency=in_flight)
def data(n):
    return [dn.Example(question=f"question {i}").with_inputs("question") for i in range(n)]
class Comm:  # a front end that serializes messages as JSON, as the widget does
    def __init__(self, view):
        self.view = view
    def send(self, message):
        json.dumps(message)
    def snapshot(self):
        json.dumps(self.view.snapshot())
    def finish(self, record):
        pages(record)
async def record_pauses(pauses):
    while True:
        start = time.perf_counter()
        await asyncio.sleep(0.001)
        pauses.append(time.perf_counter() - start - 0.001)
async def main():
    await evaluate(predict, data(64))
    examples = data(rows)
    pauses = []
    start = time.perf_counter()
    run = evaluate.start(predict, examples)
    if kind == "view":
        view = LiveView(run, asyncio.get_running_loop())
        run.watch(view.changed)
        view.open(Comm(view))
        watch = asyncio.create_task(record_pauses(pauses))
    evaluation = await run
    seconds = time.perf_counter() - start
    assert float(evaluation) == 1.0 and len(evaluation) == rows
    peak = next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(json.dumps({"s": seconds, "MB": peak, "pause": max(pauses, default=0.0)}))
asyncio.run(main())
"""
DSPY = """
import json, sys, time
from types import SimpleNamespace as N
import dspy
kind = sys.argv[1]
rows, in_flight = int(sys.argv[2]), int(sys.argv[3])
text = "[[ ## answer ## ]]\\nfine\\n\\n[[ ## completed ## ]]"
class Stub(dspy.LM):
    def forward(self, prompt=None, messages=None, **kw):
        if kind == "slow":
            time.sleep(0.05)
        return N(choices=[N(message=N(content=text, tool_calls=None), finish_reason="stop")], usage={}, model="x")
dspy.configure(lm=Stub("openai/x", cache=False))
predict = dspy.Predict("question -> answer")
def evaluate(n):
    data = [dspy.Example(question=f"question {i}").with_inputs("question") for i in range(n)]
    start = time.perf_counter()
    result = dspy.Evaluate(devset=data, metric=lambda row, prediction, trace=None: prediction.answer == "fine",
                           num_threads=in_flight, display_progress=False)(predict)
    assert result.score == 100.0
    return time.perf_counter() - start
evaluate(64)
print(json.dumps({"s": evaluate(rows)}))
"""


def run(python: str, code: str, kind: str, rows: int) -> dict[str, float]:
    """Run code in a fresh process, and return the figures that it prints."""
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-c", code, kind, str(rows), str(IN_FLIGHT), folder]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(process.stderr)
    return dict(json.loads(process.stdout.splitlines()[-1]))


def main() -> None:
    """Measure all kinds in each round, and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="the Python of an environment with dspy")
    peer = parser.parse_args().peer
    kinds = {
        "slow": (sys.executable, DSPYNB, "slow", SLOW),
        "dspy slow": (peer, DSPY, "slow", SLOW),
        "instant": (sys.executable, DSPYNB, "instant", INSTANT),
        "dspy instant": (peer, DSPY, "instant", INSTANT),
        "journal": (sys.executable, DSPYNB, "journal", INSTANT),
        "view": (sys.executable, DSPYNB, "view", INSTANT),
        "many": (sys.executable, DSPYNB, "instant", MANY),
    }
    results: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, arguments in kinds.items():
            results[name].append(run(*arguments))

    def median(kind: str, figure: str = "s", scale: float = 1.0) -> float:
        return scale * statistics.median(result[figure] for result in results[kind])

    per_row = 1e3 / INSTANT
    per_row_of_many = 1e3 / MANY
    dspy_instant = median("dspy instant", scale=per_row)
    dspynb_instant = median("instant", scale=per_row)
    rows = [
        ("500 rows of 50 ms, s", median("slow"), median("dspy slow"), "dspy 3.4.1"),
        ("10,000 instant rows, ms per row", dspynb_instant, dspy_instant, "dspy 3.4.1"),
        (
            "100,000 instant rows, ms per row",
            median("many", scale=per_row_of_many),
            dspy_instant,
            "dspy 3.4.1, 10,000 rows",
        ),
        ("100,000 instant rows, peak MB", median("many", "MB"), 1024, "the limit"),
        ("10,000 rows with the journal, ms per row", median("journal", scale=per_row), dspynb_instant, "journal off"),
        ("10,000 rows with a view, longest pause, ms", median("view", "pause", 1e3), 100, "the limit"),
        ("10,000 rows with a view, ms per row", median("view", scale=per_row), dspynb_instant, "view off"),
    ]
    lines = [(what, f"{a:.4g}", f"{b:.4g}", f"{a / b:.3f}", reference, today()) for what, a, b, reference in rows]
    write_results("evaluate", ["what", "dspynb", "reference", "ratio", "reference is", "date"], lines)


if __name__ == "__main__":
    main()
