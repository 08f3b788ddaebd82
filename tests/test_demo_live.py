"""The claim of the demo, measured on the embedded model."""

from __future__ import annotations

import asyncio

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
