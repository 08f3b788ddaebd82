"""Views show how much of a run's budget is used, and why a run ended before it."""

from __future__ import annotations

import dspynb as dn
from dspynb.events import RunEnded, RunStarted, Steered
from dspynb.running.record import RunRecord
from dspynb.views.html.static import static_html
from dspynb.views.run_facts import budget_uses, end_text, used_share
from dspynb.views.terminal.progress import Progress
from dspynb.views.view_model import ViewModel
from tests.evaluation.programs import frame, program, right


def test_a_run_with_a_budget_shows_used_and_limit():
    run = (
        dn.Evaluate(right, budget=dn.Budget(metric_calls=100, calls=8), concurrency=1).run_sync(program(), frame(4)).run
    )
    uses = {use.name: use.text for use in budget_uses(run.record)}
    assert uses["metric_calls"] == "4 of 100 rollouts"
    header = ViewModel(run.record).header()
    assert any(fact.startswith("budget: ") for fact in header["facts"])
    assert header["share"] == used_share(run.record) > 0
    assert "4 of 100 rollouts" in static_html(run.record)


def test_a_budget_that_cut_the_run_is_named():
    run = dn.Evaluate(right, budget=dn.Budget(metric_calls=2), concurrency=1).run_sync(program(), frame(4)).run
    assert run.status == "exhausted"
    assert "It ended because the budget of 2 metric calls is spent" in static_html(run.record)
    progress = Progress(ViewModel(run.record))
    progress.update()
    assert progress.share == 1.0
    assert "2 of 2 rollouts" in [fact.text for fact in progress.costs()]


def test_a_reopened_file_shows_the_same(tmp_path):
    dn.configure(runs_dir=tmp_path)
    run = dn.Evaluate(right, budget=dn.Budget(metric_calls=2), concurrency=1).run_sync(program(), frame(4)).run
    reopened = dn.open_run(run.id)
    assert end_text(reopened.record) == end_text(run.record) != ""
    assert ViewModel(reopened.record).header()["share"] == 1.0


def test_a_run_without_a_budget_shows_none():
    run = dn.Evaluate(right).run_sync(program(), frame(2)).run
    header = ViewModel(run.record).header()
    assert header["share"] is None
    assert not any("budget" in fact for fact in header["facts"])
    assert end_text(run.record) == ""


def test_a_changed_budget_counts():
    record = RunRecord()
    record.apply(RunStarted(span=1, kind="evaluate", name="x", budget={"calls": 10}))
    record.apply(Steered(span=2, parent=1, action="budget", values={"calls": 20, "usd": 3}))
    assert [use.text for use in budget_uses(record)] == ["0 of 20 calls", "0 of 3 USD"]


def test_an_early_end_says_what_was_used():
    record = RunRecord()
    record.apply(RunStarted(span=1, kind="gepa", name="x", budget={"metric_calls": 500}))
    record.apply(RunEnded(span=1, status="finished", reason="nothing was learned"))
    assert end_text(record) == "It ended before its budget was used (0 of 500 rollouts): nothing was learned"
