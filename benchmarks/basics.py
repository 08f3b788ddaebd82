"""Import time, overhead of one call, and Refine by width, compared with DSPy (which makes one attempt at a time).

    python benchmarks/basics.py --peer /path/to/an/environment/with/dspy/bin/python

Writes benchmarks/basics.csv: what, dspynb, dspy, ratio, date. The figures are medians of several rounds. Each round
measures dspynb and DSPy one after the other.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

from report import today, write_results

ROUNDS = 5

IMPORT = """
import time; start = time.perf_counter()
{what}
seconds = time.perf_counter() - start
import json
peak = next(int(l.split()[1]) / 1024 for l in open('/proc/self/status') if l.startswith('VmHWM'))
print(json.dumps({{"s": seconds, "MB": peak}}))
"""
DSPYNB = """
import asyncio, json, time, dspynb as dn
dn.configure(view="off", runs_dir=None)
predict = dn.Predict("subject -> sentence", lm=dn.FunctionLM(lambda r: "[[ ## sentence ## ]]\\nhi"))
class Loop(dn.Module):
    def __init__(self):
        self.predict = predict
    async def forward(self, n):
        for _ in range(n):
            await self.predict(subject="x")
        return {}
async def slow(request):
    await asyncio.sleep(0.1)
    return "[[ ## sentence ## ]]\\nhi"
async def main():
    for _ in range(100):
        await predict(subject="x")
    start = time.perf_counter()
    for _ in range(500):
        await predict(subject="x")
    alone = (time.perf_counter() - start) / 500
    start = time.perf_counter()
    await Loop()(n=500)
    inside = (time.perf_counter() - start) / 500
    by_width = {}
    for width in (1, 2, 4, 8):
        slow_predict = dn.Predict("subject -> sentence", lm=dn.FunctionLM(slow))
        refine = dn.Refine(slow_predict, lambda r, p: 0.0, n=8, width=width, hints=lambda a, p, i: "again")
        start = time.perf_counter()
        await refine(subject="x")
        by_width[f"width {width}"] = time.perf_counter() - start
    print(json.dumps({"call": alone, "inside": inside, **by_width}))
asyncio.run(main())
"""
DSPY = """
import asyncio, json, time, warnings
warnings.simplefilter("ignore")
import dspy
from types import SimpleNamespace as N
def reply(text):
    return N(choices=[N(message=N(content=text, tool_calls=None), finish_reason="stop")], usage={}, model="x")
class Stub(dspy.LM):
    async def aforward(self, prompt=None, messages=None, **kw):
        return reply("[[ ## sentence ## ]]\\nhi\\n\\n[[ ## completed ## ]]")
    def forward(self, prompt=None, messages=None, **kw):
        time.sleep(0.1)
        advice = "[[ ## discussion ## ]]\\nx\\n\\n[[ ## advice ## ]]\\n{}\\n\\n[[ ## completed ## ]]"
        if "advice" in str(messages):
            return reply(advice)
        return reply("[[ ## sentence ## ]]\\nhi\\n\\n[[ ## completed ## ]]")
dspy.configure(lm=Stub("openai/x", cache=False))
predict = dspy.Predict("subject -> sentence")
async def main():
    for _ in range(50):
        await predict.acall(subject="x")
    start = time.perf_counter()
    for _ in range(200):
        await predict.acall(subject="x")
    return (time.perf_counter() - start) / 200
call = asyncio.run(main())
class Program(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("subject -> sentence")
    def forward(self, subject):
        return self.predict(subject=subject)
refine = dspy.BestOfN(Program(), N=8, reward_fn=lambda a, p: 0.0, threshold=1.0)
start = time.perf_counter()
refine(subject="x")
print(json.dumps({"call": call, "refine": time.perf_counter() - start}))
"""


def run(python: str, code: str) -> dict[str, float]:
    """Run code in a fresh process, and return the figures that it prints."""
    process = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(process.stdout.splitlines()[-1])


def main() -> None:
    """Measure all kinds in each round, and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="the Python of an environment with dspy")
    peer = parser.parse_args().peer
    first_use = "import dspynb as dn; dn.Predict, dn.Refine, dn.LM"
    kinds = {
        "import": (sys.executable, IMPORT.format(what="import dspynb")),
        "import and first names": (sys.executable, IMPORT.format(what=first_use)),
        "import dspy": (peer, IMPORT.format(what="import dspy")),
        "dspynb": (sys.executable, DSPYNB),
        "dspy": (peer, DSPY),
    }
    results: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, (python, code) in kinds.items():
            results[name].append(run(python, code))

    def median(kind: str, figure: str) -> float:
        return statistics.median(result[figure] for result in results[kind])

    rows = [
        ("import, s", median("import", "s"), median("import dspy", "s")),
        ("import and first use of names, s", median("import and first names", "s"), median("import dspy", "s")),
        ("import and first use of names, MB", median("import and first names", "MB"), median("import dspy", "MB")),
        ("one Predict with an instant stub, ms", 1e3 * median("dspynb", "call"), 1e3 * median("dspy", "call")),
        ("one Predict inside a program, ms", 1e3 * median("dspynb", "inside"), 1e3 * median("dspy", "call")),
    ]
    rows += [
        (f"8 attempts of 100 ms, width {n}, s", median("dspynb", f"width {n}"), median("dspy", "refine"))
        for n in (1, 2, 4, 8)
    ]
    lines = [(what, f"{a:.4g}", f"{b:.4g}", f"{a / b:.3f}", today()) for what, a, b in rows]
    write_results("basics", ["what", "dspynb", "dspy 3.4.1", "ratio", "date"], lines)


if __name__ == "__main__":
    main()
