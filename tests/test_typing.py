"""A type checker accepts programs of users, and finds the mistakes in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import pandas as pd

import dspynb as dn


class Answer(dn.Module):
    def __init__(self) -> None:
        self.predict = dn.Predict("question -> answer")

    async def forward(self, question: str) -> dn.Prediction:
        return await self.predict(question=question)


def metric(row: dn.Example, prediction: dn.Prediction) -> float:
    return float(prediction.answer == row.answer)


async def main() -> None:
    better = await dn.GEPA(metric).compile(Answer(), [{"question": "2+2?", "answer": "4"}])
    reveal_type(better)
    reveal_type(dn.COPRO(metric).compile_sync(Answer(), pd.DataFrame({"question": ["2+2?"]})))
    reveal_type(await dn.evaluate(Answer(), [dn.Example(question="2+2?")], metric))
    reveal_type(await better.batch([{"question": "2+2?"}]))
    await dn.Refine(Answer(), metric).compile("nonsense")
"""
REVEALED = ["Answer", "Answer", "Evaluation", "list[", "has no attribute"]


SETTINGS = """
from typing import Any

import dspynb as dn
from dspynb.optimizers import Engine


def metric(row: dn.Example, prediction: dn.Prediction) -> float:
    return float(prediction.answer == row.answer)


class Rounds(dn.Optimizer):
    rounds: int = 3

    async def search(self, engine: Engine) -> None:
        await engine.evaluate(engine.start)


class ByHand(dn.Optimizer):
    def __init__(self, metric: Any, texts: list[str], **common: Any) -> None:
        super().__init__(metric, **common)
        self.texts = texts

    async def search(self, engine: Engine) -> None:
        await engine.evaluate(engine.start)


dn.GEPA(metric, max_steps=3, seed=1, temperature=None, budget=dn.Budget(calls=3))
dn.DistillHints()
dn.DistillHints(metric, level=0.9)
Rounds(metric, rounds=4, patience=2)
ByHand(metric, ["a"], seed=3)
reveal_type(dn.SIMBA(metric).max_demos)
dn.COPRO(metric, bredth=3)
dn.GEPA(metric, auto="tiny")
dn.MIPROv2()
Rounds(metric, rounds="x")
"""
REFUSED = [
    'Revealed type is "int"',
    'Unexpected keyword argument "bredth"',
    'Argument "auto"',
    "Missing positional argument",
    'Argument "rounds"',
]


CALLS = """
import dspynb as dn


def metric(row: dn.Example, prediction: dn.Prediction) -> float:
    return 1.0


dn.configure(lm="openai/gpt-4.1-mini", concurrency=3, runs_dir=None)
lm = dn.LM("openai/gpt-4.1-mini", temperature=0, max_tokens=5, stop=["end"], engine="direct", extra_headers={"a": "b"})
ask = dn.Predict("question -> answer", lm=lm, temperature=0.5, seed=1)
refine = dn.Refine(ask, metric, 3, hints="feedback", hint_as="field", budget=None)
rows = [{"question": "2+2?", "answer": "4"}]


async def main() -> None:
    await dn.evaluate(refine, rows, metric, repeats=2, budget=dn.Budget(calls=1, usd=0.5), inputs=["question"])
    await dn.compare({"a": ask}, rows, metric, repeats="2")
    await dn.evaluate(ask, rows, metric, repets=2)
    dn.LM("openai/gpt-4.1-mini", temperature="hot")
    dn.Predict("question -> answer", temprature=1)
    dn.configure(view="windows")
"""
WRONG = [
    'Unexpected keyword argument "budget"',
    'Argument "repeats"',
    'Unexpected keyword argument "repets"',
    'Argument "temperature"',
    'Unexpected keyword argument "temprature"',
    'Argument "view"',
]
PROGRAMS = [(CODE, REVEALED), (SETTINGS, REFUSED), (CALLS, WRONG)]


@pytest.mark.slow
@pytest.mark.parametrize(("code", "messages"), PROGRAMS, ids=["programs", "settings", "calls"])
def test_a_type_checker_knows_the_class_of_a_program_and_every_setting(code, messages, tmp_path):
    path = tmp_path / "program.py"
    path.write_text(code)
    flags = ["--strict", "--follow-imports=silent", f"--cache-dir={tmp_path}"]
    command = [sys.executable, "-m", "mypy", *flags, str(path)]
    root = Path(__file__).parent.parent
    process = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=root)
    lines = [line for line in process.stdout.splitlines() if "program.py" in line and '" defined in "' not in line]
    assert len(lines) == len(messages), process.stdout
    for line, message in zip(lines, messages, strict=True):
        assert message in line
