"""The claim of the demo, measured on the embedded model."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path

import pytest

import dspynb as dn
from dspynb.demo import SUBJECTS, hints_or_not


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_hints_meet_the_threshold_on_most_subjects_where_samples_alone_hardly_ever_do(tmp_path):
    with dn.context(lm=dn.recorded(tmp_path / "replies.jsonl", lm=dn.LocalLM(seed=1))):
        table, _ = asyncio.run(hints_or_not())
    met = table["met threshold"] / len(SUBJECTS)
    assert len(SUBJECTS) == 24
    assert met["Refine, with hints"] >= 0.60
    assert met["BestOfN, no hints"] <= 0.15


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_readmes_first_example_runs_as_it_stands():
    readme = Path(__file__).parent.parent.joinpath("README.md").read_text(encoding="utf-8")
    code = re.search(r"## What it looks like\n\n```python\n(.*?)```", readme, re.DOTALL)[1]
    space = {"__name__": "__main__"}

    async def main():
        coroutine = eval(compile(code, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), space)  # noqa: S307
        assert inspect.isawaitable(coroutine)
        await coroutine
        await space["run"]

    asyncio.run(main())
    assert len(space["prediction"].run.attempts) > 1
    assert "Hint: Use fewer than 10 words" in str(space["prediction"].run.diff(1, 2))
