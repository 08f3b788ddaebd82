"""Time per call in programs of several shapes, compared with DSPy.

    python benchmarks/shapes.py --peer /path/to/an/environment/with/dspy/bin/python

The shapes are those that DSRs (DSPy in Rust) publishes. Both libraries get the same signature, demos, inputs and
replies from a model that answers at once, so only their own work is measured. A key is in the environment, as usual,
because dspynb searches for keys in the data that it records. A plain call is not journaled, so the row with the journal
runs the chain in `batch`.

Writes benchmarks/shapes.csv: what, milliseconds per call of both libraries, ratio, date. Each figure is a median over
two seconds in a fresh process. Several rounds measure both libraries one after the other; the table has the medians of
the rounds, and of the ratios in each round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from report import today, write_results

ROUNDS = 5
SECONDS = 2.0

DSPYNB = """
import asyncio, dspynb as dn
dn.configure(view="off", runs_dir="runs" if shape["journal"] else None)
lm = dn.FunctionLM(lambda request: shape["reply"])
steps = [dn.Predict(shape["signature"], demos=shape["demos"], lm=lm) for _ in range(shape["calls"])]
class Program(dn.Module):
    def __init__(self):
        self.steps = steps
    async def forward(self, **inputs):
        if shape["at_once"]:
            return (await asyncio.gather(*(step(**inputs) for step in self.steps)))[-1]
        for step in self.steps:
            answer = await step(**inputs)
        return answer
program = steps[0] if shape["calls"] == 1 else Program()
async def repeat(times):
    if shape["journal"]:
        return await program.batch([shape["inputs"]] * times, concurrency=1)
    for _ in range(times):
        await program(**shape["inputs"])
"""
DSPY = """
import warnings
warnings.simplefilter("ignore")
import asyncio, dspy
from types import SimpleNamespace as N
class Stub(dspy.LM):
    async def aforward(self, prompt=None, messages=None, **kw):
        message = N(content=shape["reply"], tool_calls=None)
        return N(choices=[N(message=message, finish_reason="stop")], usage={}, model="x")
dspy.configure(lm=Stub("openai/x", cache=False))
demos = [dspy.Example(**demo) for demo in shape["demos"]]
steps = [dspy.Predict(shape["signature"]) for _ in range(shape["calls"])]
for step in steps:
    step.demos = demos
class Program(dspy.Module):
    def __init__(self):
        super().__init__()
        self.steps = steps
    async def aforward(self, **inputs):
        if shape["at_once"]:
            return (await asyncio.gather(*(step.acall(**inputs) for step in self.steps)))[-1]
        for step in self.steps:
            answer = await step.acall(**inputs)
        return answer
program = steps[0] if shape["calls"] == 1 else Program()
async def repeat(times):
    for _ in range(times):
        await program.acall(**shape["inputs"])
"""
MEASURE = """
import json, statistics, sys, time
shape = json.loads(sys.stdin.read())
{side}
async def main():
    times = max(1, 20 // shape["calls"])
    seconds = []
    end = time.perf_counter() + {seconds}
    while time.perf_counter() < end:
        start = time.perf_counter()
        await repeat(times)
        seconds.append((time.perf_counter() - start) / (times * shape["calls"]))
    print(json.dumps(statistics.median(seconds)))
asyncio.run(main())
"""


def shape(calls: int = 1, *, demos: int = 0, outputs: int = 1, context: int = 0, **options: bool) -> dict[str, Any]:
    """The description of a program and its inputs, for both libraries; ``context`` is a number of characters."""
    inputs = {"question": "What is the capital of France?"}
    if context:
        inputs["context"] = ("Paris is the capital of France. " * (context // 32 + 1))[:context]
    names = [f"answer_{i}" for i in range(outputs)] if outputs > 1 else ["answer"]
    outputs = dict.fromkeys(names, "It is Paris.")
    fields = [f"[[ ## {name} ## ]]\n{text}" for name, text in outputs.items()]
    reply = "\n\n".join([*fields, "[[ ## completed ## ]]"])
    return {
        "calls": calls,
        "signature": f"{', '.join(inputs)} -> {', '.join(names)}",
        "demos": [{"question": f"What is the capital of country {i}?", **outputs} for i in range(demos)],
        "inputs": inputs,
        "reply": reply,
        "at_once": options.get("at_once", False),
        "journal": options.get("journal", False),
    }


SHAPES = {
    "one call": shape(),
    "chain of 10": shape(10),
    "chain of 50": shape(50),
    "chain of 50, journal on": shape(50, journal=True),
    "16 at once": shape(16, at_once=True),
    "16 demos": shape(demos=16),
    "64 demos": shape(demos=64),
    "16 outputs": shape(outputs=16),
    "50 KB of context": shape(context=50_000),
}


def measure(python: str, side: str, shape: dict[str, Any]) -> float:
    """Milliseconds per call in a fresh process."""
    code = MEASURE.format(side=side, seconds=SECONDS)
    environment = {**os.environ, "OPENAI_API_KEY": "none-is-needed-here"}
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.run(
            [python, "-c", code],
            input=json.dumps(shape),
            capture_output=True,
            text=True,
            check=True,
            env=environment,
            cwd=folder,
        )
    return 1e3 * float(json.loads(process.stdout.splitlines()[-1]))


def main() -> None:
    """Measure all shapes in each round, and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="the Python of an environment with dspy")
    peer = parser.parse_args().peer
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in SHAPES}
    for _ in range(ROUNDS):
        for name, program in SHAPES.items():
            pair = (measure(sys.executable, DSPYNB, program), measure(peer, DSPY, program))
            results[name].append(pair)
    lines = []
    for name, pairs in results.items():
        dspynb = statistics.median(pair[0] for pair in pairs)
        dspy = statistics.median(pair[1] for pair in pairs)
        ratio = statistics.median(a / b for a, b in pairs)
        lines.append((name, f"{dspynb:.4g}", f"{dspy:.4g}", f"{ratio:.3f}", today()))
    write_results("shapes", ["what, ms per call", "dspynb", "dspy 3.4.1", "ratio", "date"], lines)


if __name__ == "__main__":
    main()
