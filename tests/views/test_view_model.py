"""The rows of a run, read while it is active."""

from __future__ import annotations

import pytest

import dspynb as dn
from dspynb.events import RunStarted, SpanEnded, SpanStarted
from dspynb.running.record import RunRecord
from dspynb.views.view_model import ViewModel
from tests.views.fakes import a_batch, a_refine, an_attempt


def a_nested_evaluation():
    """Rows with searches in them, and in the first search's attempt a batch of its own."""
    yield RunStarted(span=1, kind="evaluate", name="Refine", inputs={"rows": 3})
    for row in range(3):
        yield SpanStarted(span=10 + row, parent=1, kind="row", name=f"row {row}", row=row)
        yield SpanStarted(span=20 + row, parent=10 + row, kind="search", name="Refine")
        for number in (1, 2):
            started, *rest = an_attempt(20 + row, number)
            yield started
            yield SpanStarted(span=100 * number + row, parent=started.span, kind="row", name="row 0", row=0)
            yield SpanEnded(span=100 * number + row, parent=started.span)
            yield from rest
    for row in range(3):
        yield SpanEnded(span=10 + row, parent=1, outputs={"sentence": "a"})


@pytest.mark.parametrize("make", [a_nested_evaluation, a_batch, a_refine])
def test_a_run_read_after_every_event_shows_the_same_as_one_read_at_its_end(make):
    events = list(make())
    watched = ViewModel(RunRecord())
    sent = {}
    for event in events:
        watched.note(watched.record.apply(event))
        rows, removed = watched.take_changes()
        sent |= {row["key"]: row for row in rows}
        for key in removed:
            sent.pop(key, None)
        header = watched.header()
    read = ViewModel(RunRecord(events))
    assert watched.snapshot()[1] == read.snapshot()[1]
    assert sent == {row["key"]: row for row in read.payloads()}
    assert {**header, "elapsed": 0} == {**read.header(), "elapsed": 0}
    assert len(sent) == 3


def test_a_batch_inside_an_attempt_has_no_rows_of_its_own():
    rows = ViewModel(RunRecord(a_nested_evaluation())).snapshot()[1]
    assert [row["key"] for row in rows] == ["10", "11", "12"]
    assert all(row["tokens"] == 14 for row in rows)  # both attempts of each


def test_the_reasoning_of_a_call_is_a_block_of_its_own_between_prompt_and_reply():
    async def think(request):
        usage = dn.Usage(calls=1, completion_tokens=90, reasoning_tokens=61)
        return dn.LMReply("answer: 4", reasoning="Two and two.", usage=usage)

    run = dn.Predict("question -> answer", lm=dn.FunctionLM(think)).run_sync(question="2+2?").run
    state = ViewModel(run.record)
    _, rows = state.snapshot()
    blocks = state.detail(rows[0]["key"])["blocks"]
    assert [block["kind"] for block in blocks] == ["sent", "sent", "reasoning", "reply", "record"]
    assert blocks[2]["heading"] == "self · reasoning · 61 tokens"
    assert blocks[2]["text"] == "Two and two."
