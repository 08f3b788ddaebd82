"""What an optimizer gains on unseen rows, measured on the embedded model."""

from __future__ import annotations

import asyncio

import pytest

import dspynb as dn
from dspynb.demo import SUBJECTS, Caption, short_and_blue

ROWS = dn.load_dataset("topics")
TRAIN, HELD_OUT = ROWS[:40], ROWS[50:]
METRIC = dn.metrics.exact_match("topic")


class Topic(dn.Signature):
    """Name the topic of the text."""

    text: str = dn.Input()
    topic: str = dn.Output()


async def optimized(seed):
    """The program with bootstrapped demos, and a comparison of it and the start on held-out rows."""
    program = dn.Predict(Topic, stop=["\n"])
    optimizer = dn.BootstrapFewShot(METRIC, max_bootstrapped_demos=3, max_labeled_demos=3, seed=seed)
    better = await optimizer.compile(program, TRAIN)
    return better, await dn.compare({"start": program, "optimized": better}, HELD_OUT, METRIC)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demos_of_its_own_successes_lift_accuracy_on_rows_it_has_not_seen():
    with dn.context(lm=dn.LocalLM(), view="off"):
        better, comparison = asyncio.run(optimized(seed=0))
    lift = comparison.difference("optimized", "start")
    assert len(HELD_OUT) >= 100
    assert len(better.demos) == 3
    assert lift.difference >= 0.2
    assert lift.low > 0


VALIDATION = (
    "summer", "a boat", "the kitchen", "a tree", "a piano", "the station", "a pond", "a sandwich", "the airport",
    "a rabbit", "a fence", "autumn", "a cup", "the field", "a shirt", "the river bank",
)  # fmt: skip
UNSEEN = (
    "a horse", "a bridge", "snow", "the sun", "a park", "a violin", "the forest", "a ship", "dinner", "a lake",
    "the office", "a castle", "the wind", "a balloon", "a shop", "a hill", "milk", "a cat", "an island", "a letter",
    "a flower", "a clock", "the theater", "spring", "a fish", "the village", "a farm", "dancing", "a bus", "the jungle",
    "lunch", "a waterfall", "the hospital", "a tent", "fog", "a ball", "the museum", "a valley", "juice", "a butterfly",
    "a harbor", "a newspaper", "a chair", "a lamp", "a hat", "a guitar", "the stars", "a window", "a door", "a road",
)  # fmt: skip


def met(row, prediction):
    """Fewer than 10 words and "blue", both."""
    return short_and_blue(row, prediction).value >= 1


async def distilled(seed):
    """A distilled Refine: how often one call of the program inside meets the reward, before and after."""
    refine = dn.Refine(dn.Predict(Caption), short_and_blue, n=3, temperature=0.7)
    train, val, unseen = ([{"subject": subject} for subject in some] for some in (SUBJECTS, VALIDATION, UNSEEN))
    better = await dn.DistillHints(rewrite=False, seed=seed).compile(refine, train, val)
    return better, await dn.compare({"start": refine.module, "distilled": better.module}, unseen, met)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_distilled_instruction_replaces_retries_on_unseen_subjects():
    assert len(set(UNSEEN)) == 50
    assert not set(UNSEEN) & {*SUBJECTS, *VALIDATION}
    with dn.context(lm=dn.LocalLM(seed=0), view="off"):
        better, comparison = asyncio.run(distilled(seed=0))
    assert better.module.instruction.endswith("\n\nHint: Use fewer than 10 words and the word 'blue'.")
    start, after = (comparison.evaluations[name] for name in ("start", "distilled"))
    assert (start.usage.calls, after.usage.calls) == (50, 50)
    assert float(start.score) <= 0.10
    assert float(after.score) >= 0.40
    assert comparison.difference("distilled").low > 0
