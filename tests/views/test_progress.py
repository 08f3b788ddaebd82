"""The progress of a run, read after each event, agrees with the record of all events."""

from __future__ import annotations

import asyncio
from pathlib import Path

import dspynb as dn
from dspynb.events import RolloutEnded, RunEnded, RunStarted, SpanEnded, SpanStarted
from dspynb.running.journal import flush_journals
from dspynb.running.journal_reader import read_journal
from dspynb.running.record import RunRecord
from dspynb.running.tables.scores import scores_by_program
from dspynb.views import run_facts
from dspynb.views.terminal.progress import Progress, clock
from dspynb.views.texts import visible
from dspynb.views.view_model import ViewModel
from tests.evaluation.programs import frame, program, right
from tests.helpers import Caption, chat, echo_hint
from tests.views.fakes import a_batch, a_refine
from tests.views.test_candidates import optimized


def progress_after(events):
    """The progress of a run that was updated after each of these events."""
    progress = Progress(ViewModel(RunRecord()))
    for event in events:
        progress.state.note(progress.record.apply(event))
        progress.update()
    return progress


def test_attempts_are_counted_with_the_best():
    progress = progress_after(list(a_refine(3))[:-5])
    assert (progress.done_text(), progress.score_text()) == ("2 attempts", "best 0.6667")
    assert [fact.text for fact in progress.costs()] == ["2 calls", "14 tokens"]
    assert progress.share is None


def test_rows_are_counted_with_those_that_failed():
    progress = progress_after(list(a_batch(4, failing={1}))[:-1])
    assert (progress.done_text(), progress.score_text(), progress.share) == ("4/4 rows, 1 failed", "", 1.0)
    assert progress.errors() == ["ParseError: a sentence"]


def test_candidates_are_counted_with_the_best_score():
    progress = progress_after(optimized().record.events)
    assert (progress.done_text(), progress.score_text()) == ("3 candidates, 12 rollouts", "best 0.5")


def test_scores_are_those_of_the_record():
    runs = [
        dn.Evaluate(right, repeats=2, failure_score=-1)
        .run_sync(program(), frame(3).assign(question=["bad", "1", "2"]))
        .run,
        asyncio.run(dn.compare({"a": program(), "b": program()}, frame(4, wrong={1}), right)).run,
    ]
    for run in runs:
        progress = progress_after(run.record.events)
        assert progress.scores() == scores_by_program(run.record)
        assert progress.share == 1.0


def test_attempts_inside_rows_are_not_counted_and_a_row_has_the_score_of_its_chosen_attempt():
    def reward(row, prediction):
        return dn.Score(0.25 if prediction.sentence == "none" else 0.75, feedback="be brief")

    refine = dn.Refine(dn.Predict(Caption, lm=echo_hint()), reward, n=2)

    class Outer(dn.Module):
        def __init__(self):
            self.refine = dn.Refine(dn.Predict(Caption, lm=echo_hint()), lambda row, p: 0.5, n=2, hints="feedback")

        async def forward(self, subject):
            (first, _) = await self.refine.batch([{"subject": subject}, {"subject": "b"}])
            return first

    asyncio.run(refine.batch([{"subject": "a"}, {"subject": "b"}]))
    progress = progress_after(dn.last_run().record.events)
    assert (progress.done_text(), progress.score_text()) == ("2/2 rows", "mean 0.75")
    asyncio.run(Outer().batch([{"subject": "a"}, {"subject": "b"}]))
    assert progress_after(dn.last_run().record.events).done_text() == "2/2 rows"


def test_rows_cancelled_by_a_stop_are_not_done():
    requests = []

    async def stops(request):
        requests.append(request)
        if len(requests) == 4:
            dn.last_run().stop()
            await asyncio.sleep(10)
        return chat(answer="2")

    plan = dn.Evaluate(lambda row, p: 1.0, concurrency=1)
    asyncio.run(plan(dn.Predict("question -> answer", lm=dn.FunctionLM(stops)), frame(6)))
    flush_journals()
    assert progress_after(read_journal(Path(dn.last_run().path))[1]).done_text() == "3/6 rows"


def test_a_repeated_row_replaces_the_earlier_one():
    def row(span, score, error=None):
        yield SpanStarted(span=span, parent=1, kind="row", name="row 0", row=0)
        yield RolloutEnded(span=span, parent=1, row=0, score=score, error=error)

    events = [
        RunStarted(span=1, kind="evaluate", name="P", inputs={"rows": 2}),
        *row(2, None, "ServerError: down"),
        SpanStarted(span=3, parent=1, kind="row", name="row 1", row=1),
        SpanEnded(span=3, parent=1, error="halted"),
        RunEnded(span=1, status="stopped"),
        RunStarted(span=1, kind="evaluate", name="P", inputs={"rows": 2}),
        *row(4, 0.5),
    ]
    progress = progress_after(events)
    assert (progress.done_text(), progress.score_text()) == ("1/2 rows", "mean 0.5")
    assert progress.ended is None


def test_the_time_left_is_estimated_once_a_row_is_done(monkeypatch):
    events = list(a_batch(4))[:5]
    monkeypatch.setattr(run_facts.time, "time", lambda: events[0].at + 20)
    progress = progress_after(events)
    assert (progress.done_text(), progress.seconds, progress.seconds_left()) == ("2/4 rows", 20, 20)
    assert progress_after(events[:1]).seconds_left() is None


def test_times_read_as_clocks():
    assert [clock(s) for s in (0, 7.9, 61, 3600, 90061)] == ["0:00", "0:07", "1:01", "1:00:00", "25:01:01"]


def test_control_characters_become_visible_and_ordinary_text_stays():
    assert visible("a\x1b[31mb\x00\x9b\ud800\x7f") == "a\ufffd[31mb" + "\ufffd" * 4
    assert visible("x\u202egpj.exe\u2066\ufeff") == "xgpj.exe"
    assert visible("a\u00a0b\u2028c") == "a b c"
    ordinary = "naïve 数学 مرحبا 👩\u200d💻 क्\u200dष\n\tend"
    assert visible(ordinary) == ordinary
