"""Time of one call in programs of several shapes, beside DSPy in the same run.

    python benchmarks/shapes.py --peer /path/to/an/environment/with/dspy/bin/python

The shapes are those that DSRs (DSPy in Rust) publishes. Both sides get the same signature, demos, inputs and replies
from a model that answers at once, so only the toolkits' own work is measured; with a key in the environment, as most
have, since dspynb looks for keys in what it records. A plain call is not journaled, so the row with the journal is the
chain in `batch`.

Writes benchmarks/shapes.csv: what, milliseconds a call of both, ratio, date; medians of two seconds in each of several
fresh processes, taken in turn, and of the ratios of each turn.
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

from report import today, written

ROUNDS, SECONDS = 5, 2.0

OURS = """
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
PEER = """
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
    times, took = max(1, 20 // shape["calls"]), []
    end = time.perf_counter() + {seconds}
    while time.perf_counter() < end:
        began = time.perf_counter()
        await repeat(times)
        took.append((time.perf_counter() - began) / (times * shape["calls"]))
    print(json.dumps(statistics.median(took)))
asyncio.run(main())
"""


def shape(calls: int = 1, *, demos: int = 0, outputs: int = 1, context: int = 0, **how: bool) -> dict[str, Any]:
    """A program and what it is given; ``context`` in characters."""
    inputs = {"question": "What is the capital of France?"}
    if context:
        inputs["context"] = ("Paris is the capital of France. " * (context // 32 + 1))[:context]
    names = [f"answer_{i}" for i in range(outputs)] if outputs > 1 else ["answer"]
    told = dict.fromkeys(names, "It is Paris.")
    reply = "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in told.items()) + "\n\n[[ ## completed ## ]]"
    return {
        "calls": calls,
        "signature": f"{', '.join(inputs)} -> {', '.join(names)}",
        "demos": [{"question": f"What is the capital of country {i}?", **told} for i in range(demos)],
        "inputs": inputs,
        "reply": reply,
        "at_once": how.get("at_once", False),
        "journal": how.get("journal", False),
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


def measured(python: str, side: str, given: dict[str, Any]) -> float:
    """Milliseconds a call in a fresh process."""
    code = MEASURE.format(side=side, seconds=SECONDS)
    environment = {**os.environ, "OPENAI_API_KEY": "none-is-needed-here"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [python, "-c", code],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            check=True,
            env=environment,
            cwd=folder,
        )
    return 1e3 * float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure in turn, write the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="the Python of an environment with dspy")
    peer = parser.parse_args().peer
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in SHAPES}
    for _ in range(ROUNDS):
        for name, given in SHAPES.items():
            seen[name].append((measured(sys.executable, OURS, given), measured(peer, PEER, given)))
    lines = []
    for name, pairs in seen.items():
        ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        lines.append((name, f"{ours:.4g}", f"{theirs:.4g}", f"{ratio:.3f}", today()))
    written("shapes", ["what, ms a call", "dspynb", "dspy 3.4.1", "ratio", "date"], lines)


if __name__ == "__main__":
    main()
