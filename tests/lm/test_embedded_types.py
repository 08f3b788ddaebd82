"""The embedded model keeps to the types of outputs, whatever the adapter. Slow: it runs the model."""

from __future__ import annotations

import asyncio
import enum
from typing import Annotated, Literal

import pytest
from pydantic import Field

import dspynb as dn
from tests.campaigns.embedded_model import MESSAGES, TASKS, Triage, accuracy
from tests.campaigns.embedded_rows import split

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROWS = 20
"""Rows of each task, of the 60 that ``python -m tests.campaigns.embedded_model`` reports."""
TOLERANCE = 0.1
"""For the smaller number of rows."""


@pytest.fixture(autouse=True)
def alone():
    with dn.context(view="off", runs_dir=None, cache=False, lm=dn.LocalLM()):
        yield


@pytest.mark.parametrize("output", TASKS)
def test_answers_of_a_type_are_read_and_mostly_right(output):
    _, all_rows, expected = TASKS[output]
    _, reported = split(all_rows, output)
    share, majority, failed = accuracy(output, reported[:ROWS])
    assert failed == 0
    assert share >= expected - TOLERANCE
    assert share > majority


def failures(signature, messages, adapter):
    rows = [{"message": message} for message in messages]
    program = dn.Predict(signature, adapter=adapter)
    evaluation = asyncio.run(dn.evaluate(program, rows, lambda row, prediction: 1.0))
    return [error for error in evaluation.exceptions if error is not None]


@pytest.mark.parametrize(("adapter", "count"), [(None, len(MESSAGES)), ("json", 3), ("chat", 2)])
def test_a_classifier_of_messages_has_no_failed_row(adapter, count):
    assert failures(Triage, MESSAGES[:count], adapter) == []


class Level(enum.Enum):
    LOW = 1
    HIGH = 2


class Everything(dn.Signature):
    """Sort the customer's message."""

    message: str = dn.Input()
    level: Level = dn.Output()
    reason: str = dn.Output()
    score: float = dn.Output(gt=0, le=1)
    change: int = dn.Output(ge=-40, lt=1250)
    tags: list[Literal["billing", "a login"]] = dn.Output()
    counts: Annotated[list[int], Field(max_length=3)] = dn.Output()
    pair: tuple[bool, float] = dn.Output()
    rank: int | None = dn.Output()


@pytest.mark.parametrize("adapter", ["prefill", "json", "chat"])
def test_all_types_beside_a_text_are_read(adapter):
    assert failures(Everything, MESSAGES[:1], adapter) == []
