"""What an optimizer gains on rows it has not seen, measured on the embedded model."""

from __future__ import annotations

import asyncio

import pytest

import dspynb as dn

ROWS = dn.load_dataset("topics")
TRAIN, HELD_OUT = ROWS[:40], ROWS[50:]
METRIC = dn.metrics.exact_match("topic")


class Topic(dn.Signature):
    """Name the topic of the text."""

    text: str = dn.Input()
    topic: str = dn.Output()


async def optimized(seed):
    """The program with demos of its own successes, and how it and the start do on held-out rows."""
    program = dn.Predict(Topic, max_tokens=4, stop=["\n"])
    optimizer = dn.BootstrapFewShot(METRIC, max_bootstrapped_demos=3, max_labeled_demos=3, seed=seed)
    better = await optimizer.compile(program, TRAIN)
    return better, await dn.compare({"start": program, "optimized": better}, HELD_OUT, METRIC)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demos_of_its_own_successes_lift_accuracy_on_rows_it_has_not_seen():
    with dn.context(lm=dn.LocalLM(), view="off"):
        better, comparison = asyncio.run(optimized(seed=0))
    found = comparison.difference("optimized", "start")
    assert len(HELD_OUT) >= 100
    assert len(better.demos) == 3
    assert found.difference >= 0.2
    assert found.low > 0
