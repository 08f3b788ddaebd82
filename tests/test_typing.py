"""What type checkers see of a user's program."""

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


@pytest.mark.slow
def test_a_program_of_a_users_is_typed_and_compiling_it_keeps_its_class(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(CODE)
    flags = ["--strict", "--follow-imports=silent", f"--cache-dir={tmp_path}"]
    command = [sys.executable, "-m", "mypy", *flags, str(path)]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=root)
    lines = [line for line in done.stdout.splitlines() if "program.py" in line]
    assert len(lines) == len(REVEALED), done.stdout
    for line, word in zip(lines, REVEALED, strict=True):
        assert word in line
