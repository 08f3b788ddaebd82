"""Evaluate beside DSPy's in the same run: 500 rows of 50 ms, instant rows, the journal, and a view that watches.

    python benchmarks/evaluate.py --peer /path/to/an/environment/with/dspy/bin/python

Models are stubs in the process, so that only the evaluators' own work is measured: 256 rows in flight, journal and view
off where not said otherwise. Writes benchmarks/evaluate.csv: medians of several runs, taken in turn; ``ratio`` is ours
divided by the figure that it is beside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile

from report import today, written

ROUNDS, IN_FLIGHT, SLOW, INSTANT, MANY = 5, 256, 500, 10_000, 100_000

OURS = """
import asyncio, json, sys, time, dspynb as dn
from dspynb.views.live.live_view import LiveView
from dspynb.views.live.notebook import pages
kind, rows, in_flight, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
dn.configure(view="off", runs_dir=folder if kind == "journal" else None)
async def answer(request):
    if kind == "slow":
        await asyncio.sleep(0.05)
    return "[[ ## answer ## ]]\\nfine\\n\\n[[ ## completed ## ]]"
predict = dn.Predict("question -> answer", lm=dn.FunctionLM(answer))
plan = dn.Evaluate(lambda row, prediction: prediction.answer == "fine", concurrency=in_flight)
def data(n):
    return [dn.Example(question=f"question {i}").with_inputs("question") for i in range(n)]
class Comm:  # a front end that takes what is sent as the widget does: as JSON
    def __init__(self, view):
        self.view = view
    def send(self, message):
        json.dumps(message)
    def snapshot(self):
        json.dumps(self.view.snapshot())
    def finish(self, record):
        pages(record)
async def longest_pause(pauses):
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        pauses.append(time.perf_counter() - began - 0.001)
async def main():
    await plan(predict, data(64))
    given, pauses, began = data(rows), [], time.perf_counter()
    run = plan.start(predict, given)
    if kind == "view":
        view = LiveView(run, asyncio.get_running_loop())
        run.watch(view.changed)
        view.open(Comm(view))
        watch = asyncio.create_task(longest_pause(pauses))
    done = await run
    took = time.perf_counter() - began
    assert float(done) == 1.0 and len(done) == rows
    peak = next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(json.dumps({"s": took, "MB": peak, "pause": max(pauses, default=0.0)}))
asyncio.run(main())
"""
PEER = """
import json, sys, time
from types import SimpleNamespace as N
import dspy
kind, rows, in_flight = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
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
    began = time.perf_counter()
    done = dspy.Evaluate(devset=data, metric=lambda row, prediction, trace=None: prediction.answer == "fine",
                         num_threads=in_flight, display_progress=False)(predict)
    assert done.score == 100.0
    return time.perf_counter() - began
evaluate(64)
print(json.dumps({"s": evaluate(rows)}))
"""


def run(python: str, code: str, kind: str, rows: int) -> dict[str, float]:
    """What a fresh process measured."""
    with tempfile.TemporaryDirectory() as folder:
        given = [python, "-c", code, kind, str(rows), str(IN_FLIGHT), folder]
        done = subprocess.run(given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure in turn, write the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="the Python of an environment with dspy")
    peer = parser.parse_args().peer
    kinds = {
        "slow": (sys.executable, OURS, "slow", SLOW),
        "peer slow": (peer, PEER, "slow", SLOW),
        "instant": (sys.executable, OURS, "instant", INSTANT),
        "peer instant": (peer, PEER, "instant", INSTANT),
        "journal": (sys.executable, OURS, "journal", INSTANT),
        "view": (sys.executable, OURS, "view", INSTANT),
        "many": (sys.executable, OURS, "instant", MANY),
    }
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, given in kinds.items():
            seen[name].append(run(*given))

    def median(kind: str, figure: str = "s", scale: float = 1.0) -> float:
        return scale * statistics.median(r[figure] for r in seen[kind])

    a_row, a_row_of_many = 1e3 / INSTANT, 1e3 / MANY
    peer_instant, ours_instant = median("peer instant", scale=a_row), median("instant", scale=a_row)
    rows = [
        ("500 rows of 50 ms, s", median("slow"), median("peer slow"), "dspy 3.4.1"),
        ("10,000 instant rows, ms a row", ours_instant, peer_instant, "dspy 3.4.1"),
        (
            "100,000 instant rows, ms a row",
            median("many", scale=a_row_of_many),
            peer_instant,
            "dspy 3.4.1, 10,000 rows",
        ),
        ("100,000 instant rows, peak MB", median("many", "MB"), 1024, "the limit"),
        ("10,000 rows with the journal, ms a row", median("journal", scale=a_row), ours_instant, "journal off"),
        ("10,000 rows with a view, longest pause, ms", median("view", "pause", 1e3), 100, "the limit"),
        ("10,000 rows with a view, ms a row", median("view", scale=a_row), ours_instant, "view off"),
    ]
    lines = [(what, f"{a:.4g}", f"{b:.4g}", f"{a / b:.3f}", beside, today()) for what, a, b, beside in rows]
    written("evaluate", ["what", "dspynb", "beside", "ratio", "beside what", "date"], lines)


if __name__ == "__main__":
    main()
