"""Views of evaluations: each row has its score, feedback and error; a repeated row replaces the earlier one."""

from __future__ import annotations

import pytest

import dspynb as dn
from dspynb.data import Usage
from dspynb.events import RolloutEnded, RunEnded, RunStarted, SpanEnded, SpanStarted
from dspynb.running import RunReader
from dspynb.running.record import RunRecord
from dspynb.views.html.static import static_html
from dspynb.views.terminal.text import TextView, summary
from dspynb.views.view_model import ViewModel
from tests.evaluation.programs import frame, program, right
from tests.views.fakes import HOSTILE


def an_evaluation(end="finished", text="said"):
    """Four rows: one scored, one failed, one cancelled, one that never ended."""
    yield RunStarted(
        span=1, kind="evaluate", name="Predict", inputs={"rows": 4}, settings={"failure_score": -1.0}, at=1.0
    )
    for row in range(4):
        yield SpanStarted(span=10 + row, parent=1, kind="row", name=f"row {row}", inputs={"subject": text}, row=row)
    yield RolloutEnded(
        span=10, parent=1, row=0, outputs={"a": text}, score=1.0, feedback=text, seconds=0.5, usage=Usage(1, 7)
    )
    yield RolloutEnded(span=11, parent=1, row=1, error=f"ParseError: {text}", seconds=0.25)
    yield SpanEnded(span=12, parent=1, error="halted")
    yield RunEnded(span=1, status=end, at=2.0)


def resumed():
    yield from an_evaluation("stopped")
    yield RunStarted(
        span=1, kind="evaluate", name="Predict", inputs={"rows": 4}, settings={"failure_score": -1.0}, at=3.0
    )
    for row in (1, 2, 3):
        yield SpanStarted(span=20 + row, parent=1, kind="row", name=f"row {row}", row=row)
        yield RolloutEnded(span=20 + row, parent=1, row=row, outputs={"a": "b"}, score=0.0)
    yield RunEnded(span=1, status="finished", at=4.0)


def test_a_row_shows_its_score_feedback_error_and_costs():
    header, rows = ViewModel(RunRecord(an_evaluation())).snapshot()
    assert [row["state"] for row in rows] == ["done", "failed", "cancelled", "cancelled"]
    assert [row["score"] for row in rows] == [1.0, None, None, None]
    assert (rows[0]["feedback"], rows[0]["tokens"], rows[0]["seconds"]) == ("said", 7, 0.5)
    assert rows[1]["error"] == "ParseError: said"
    assert header["progress"] == "2 of 4 rows, 1 failed"
    assert header["result"] == "mean 0"  # the failed row counts as -1


def test_a_repeated_row_is_shown_once():
    header, rows = ViewModel(RunRecord(resumed())).snapshot()
    assert [row["label"] for row in rows] == ["0", "1", "2", "3"]
    assert {row["state"] for row in rows} == {"done"}
    assert (header["progress"], header["result"]) == ("4 of 4 rows", "mean 0.25")


def test_while_it_runs_a_row_that_has_not_ended_is_running():
    events = [event for event in an_evaluation() if not isinstance(event, RunEnded)]
    assert ViewModel(RunRecord(events)).snapshot()[1][3]["state"] == "running"


def test_hostile_text_of_an_evaluation_stays_text():
    page = static_html(RunRecord(an_evaluation(text=HOSTILE)))
    assert "<script>" not in page
    assert "<img" not in page
    page.encode()


@pytest.mark.parametrize("failure_score", [0.0, -1.0])
def test_the_mean_shown_is_that_of_the_evaluation(failure_score):
    rows = frame(8, wrong={1}).assign(question=["bad", *"1234567"])
    evaluation = dn.Evaluate(right, failure_score=failure_score).run_sync(program(), rows)
    for run in (evaluation.run, dn.open_run(evaluation.run.id)):
        assert ViewModel(run.record).snapshot()[0]["result"] == f"mean {float(evaluation):.4g}"
    assert "8 of 8 rows, 1 failed" in evaluation.run._repr_html_()


def test_repeats_have_different_labels():
    repeated = dn.Evaluate(right, repeats=2, concurrency=1).run_sync(program(), frame(2)).run
    labels = [row["label"] for row in ViewModel(repeated.record).snapshot()[1]]
    assert labels == ["0", "1", "0, repeat 1", "1, repeat 1"]


def test_compared_programs_have_different_labels():
    import asyncio

    run = asyncio.run(dn.compare({"a": program(), "b": program()}, frame(1), right)).run
    assert [row["label"] for row in ViewModel(run.record).snapshot()[1]] == ["a: 0", "b: 0"]
    assert summary(run.record).startswith("a, b: finished, 2 of 2 rows, mean 1")


def test_text_says_how_many_rows_are_done(capsys, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("dspynb.views.terminal.text.time.monotonic", lambda: next(clock))
    run = RunReader("a-run")
    view = TextView(run)
    view.open()
    for event in an_evaluation():
        view.changed(run.record.apply(event))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "1 of 4 rows done, 0 failed, mean 1"
    assert lines[-1] == "Predict: finished, 2 of 4 rows, 1 failed, mean 0"
