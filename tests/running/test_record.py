"""The record of a run: the cost of reading it, the changes that it reports, and its queries."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import dspynb as dn
from dspynb.events import (
    AttemptChosen,
    AttemptEnded,
    AttemptStarted,
    CandidateProposed,
    CandidateScored,
    HintFailed,
    PredictorCalled,
    ProposalEnded,
    RolloutEnded,
    RunEnded,
    RunStarted,
    SpanEnded,
    SpanStarted,
    Steered,
)
from dspynb.running.reader import RunReader
from dspynb.running.record import RunRecord
from dspynb.running.record_changes import NOTHING


class Unreadable(list):
    """A list that may grow and be counted, but whose items may not be read."""

    def __iter__(self):
        raise AssertionError("all items are read")

    def __getitem__(self, index):
        raise AssertionError("an item is read")


def call(span, parent=1, **fields):
    usage = dn.Usage(calls=1, prompt_tokens=2, completion_tokens=1)
    fields = {"usage": usage, "model": "m", **fields}
    return PredictorCalled(span=span, parent=parent, predictor="self", uid="u", inputs={}, messages=(), **fields)


def without_rows(run):
    """The run, after everything in its record that grows with the number of rows was made unreadable."""
    record = run.record
    for name in ("events", "calls", "rollouts"):
        setattr(record, name, Unreadable(getattr(record, name)))
    for name in ("spans", "_parents", "_spans_in", "_last_call_in", "_previous_call"):
        setattr(record, name, None)
    return run


def test_status_usage_and_repr_read_no_events(tmp_path):
    done = dn.evaluate(dn.Predict("a -> b", lm=dn.FunctionLM(lambda _: "b: 1")), [{"a": "1"}] * 30, lambda row, p: 1.0)
    live = dn.run_sync(lambda: done).run
    summary = (live.status, live.usage, repr(live))
    reopened = dn.open_run(live.id)
    assert (reopened.status, reopened.usage, repr(reopened)) == summary
    for run in map(without_rows, (live, reopened)):
        assert (run.status, run.usage, repr(run)) == summary


def test_the_repr_of_a_run_of_many_searches_does_not_list_them(monkeypatch):
    record = RunRecord([RunStarted(span=1, kind="batch", name="Refine")])
    for search in range(10, 40, 10):
        record.apply(SpanStarted(span=search, parent=1, kind="search", name="Refine"))
        record.apply(AttemptStarted(span=search + 1, parent=search, attempt=1, wave=1))
    run = RunReader("a-run")
    run._record = record
    monkeypatch.setattr(RunRecord, "searches", None)
    assert "1 attempts" in repr(run)


def test_a_part_of_a_run_shares_its_record():
    best = dn.BestOfN(dn.Predict("a -> b", lm=dn.FunctionLM(lambda _: "b: 1")), lambda row, prediction: 1.0)
    prediction = best.run_sync(a="1")
    assert prediction.run.record is dn.last_run().record


# ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_apply_returns_the_keys_that_each_event_changed():
    record = RunRecord()
    steps = [
        (RunStarted(span=1, kind="refine", name="Refine"), (True, (), (), ())),
        (SpanStarted(span=2, parent=1, kind="search", name="Refine"), (False, (2,), (), ())),
        (AttemptStarted(span=3, parent=2, attempt=1, wave=1), (False, (3,), (), ())),
        (call(4, 3), (False, (3,), (), ("calls",))),
        (call(5, 1), (False, (), (), ("calls",))),
        (AttemptEnded(span=3, parent=2, state="scored", score=0.5), (False, (3,), (), ())),
        (HintFailed(span=2, parent=1, wave=2, error="no"), (False, (), (), ("hint_failures",))),
        (AttemptStarted(span=6, parent=2, attempt=2, wave=2), (False, (6,), (), ())),
        (AttemptEnded(span=6, parent=2, state="passed", score=1.0), (False, (6,), (), ())),
        (AttemptChosen(span=2, parent=1, attempt=1), (False, (3,), (), ())),
        (AttemptChosen(span=2, parent=1, attempt=2), (False, (3, 6), (), ())),
        (AttemptChosen(span=2, parent=1, attempt=2), NOTHING),
        (SpanEnded(span=2, parent=1), (False, (2,), (), ())),
        (SpanEnded(span=99, parent=1), NOTHING),
        (CandidateProposed(span=7, id="a", origin="start"), (False, (), ("a",), ())),
        (CandidateProposed(span=7, id="a", origin="start"), NOTHING),
        (CandidateProposed(span=8, id="b", origin="x"), (False, (), ("b",), ())),
        (scored("a", best="a"), (False, (), ("a", "a"), ("milestones",))),
        (scored("b", best="b"), (False, (), ("b", "b", "a"), ("milestones",))),
        (Steered(span=9, action="pin", values={"candidate": "a", "best": "a"}),
         (False, (), ("a", "a", "b"), ("steered",))),
        (Steered(span=9, action="pause"), (False, (), (), ("steered",))),
        (ProposalEnded(span=10, key="k"), (False, (), (), ("proposals",))),
        (RolloutEnded(span=11, row=0), (False, (), (), ("rollouts",))),
        (RunEnded(span=1, status="finished"), (True, (), (), ())),
    ]  # fmt: skip
    for event, expected in steps:
        changes = record.apply(event)
        assert tuple(changes) == tuple(expected), event
        assert bool(changes) == (changes != NOTHING)


def scored(candidate, best):
    return CandidateScored(span=12, candidate=candidate, split="val", rows=1, score=1.0, full=True, best=best)


def test_the_best_attempt_of_a_search_that_was_stopped_is_among_the_changes():
    record = RunRecord([RunStarted(span=1, kind="refine", name="Refine")])
    for number in (1, 2):
        record.apply(AttemptStarted(span=1 + number, parent=1, attempt=number, wave=1))
        record.apply(AttemptEnded(span=1 + number, parent=1, state="scored", score=0.5 * number))
    assert record.apply(RunEnded(span=1, status="stopped")).spans == (3,)


def test_a_watcher_gets_the_changes_of_each_event_until_the_run_ends():
    ask = dn.Predict("a -> b", lm=dn.FunctionLM(lambda _: "b: 1"))
    notifications = []

    async def main():
        run = ask.start(a="1")
        run.watch(lambda changes: notifications.append((changes, run.status, len(run.record.calls))))
        await run

    asyncio.run(main())
    assert [(changes.run, changes.grown) for changes, _, _ in notifications] == [
        (True, ()),
        (False, ("calls",)),
        (True, ()),
    ]
    assert [(status, calls) for _, status, calls in notifications] == [("running", 0), ("running", 1), ("finished", 1)]


def test_a_watcher_that_fails_is_removed_and_the_run_continues(caplog):
    ask = dn.Predict("a -> b", lm=dn.FunctionLM(lambda _: "b: 1"))
    received = []

    def failing(changes):
        received.append(changes)
        raise ValueError("it cannot draw")

    async def main():
        run = ask.start(a="1")
        run.watch(failing)
        other = received.append
        run.watch(other)
        run.unwatch(other)
        return (await run).b

    assert asyncio.run(main()) == "1"
    assert len(received) == 1
    assert "it cannot draw" in caplog.text


def test_a_listener_may_wait_for_a_thread_that_reads_the_run():
    best = dn.BestOfN(dn.Predict("a -> b", lm=dn.FunctionLM(lambda _: "b: 1")), lambda row, p: 0.5, n=2)
    readings = []

    def listen(event):
        readings.append(pool.submit(lambda: (len(run.attempts), run.usage.calls)).result(timeout=20))

    async def main():
        nonlocal run
        run = best.start(a="1")
        run.listen(listen)
        await run

    run = None
    with ThreadPoolExecutor(1) as pool:
        asyncio.run(main())
    assert len(readings) == len(run.record.events)
    assert readings[-1] == (2, 2)


# ── queries ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_calls_in_a_span_are_those_at_any_depth_in_the_order_in_which_they_ended():
    record = RunRecord([
        RunStarted(span=1, kind="call", name="Program"),
        SpanStarted(span=2, parent=1, kind="module", name="One"),
        SpanStarted(span=3, parent=2, kind="module", name="Two"),
        call(20, 3),
        call(21, 2),
        call(22, 1),
        call(23, 20),
    ])  # fmt: skip
    assert [c.span for c in record.calls_in(2)] == [20, 21, 23]
    assert [c.span for c in record.calls_in(1)] == [20, 21, 22, 23]
    assert [c.span for c in record.calls_in(99)] == []
    assert record.usage_in(3) == dn.Usage(calls=2, prompt_tokens=4, completion_tokens=2)
    assert record.spans_in(1) == [1, 2, 3]


def test_a_rollout_counts_the_calls_of_the_program_and_of_its_metric_separately():
    judge = dn.Predict("text -> good: bool", lm=dn.FunctionLM(lambda _: "good: true"))

    async def metric(row, prediction):
        return float((await judge(text=prediction.b)).good)

    async def main():
        return await dn.evaluate(dn.Predict("a -> b", lm=dn.FunctionLM(lambda _: "b: 1")), [{"a": "1"}] * 3, metric)

    run = asyncio.run(main()).run
    assert [(r.usage.calls, r.metric_usage.calls) for r in run.record.rollouts] == [(1, 1)] * 3
    assert [run.record.usage_in(r.span).calls for r in run.record.rollouts] == [2] * 3


class Starts(dn.Module):
    """Starts its step as a run of its own."""

    def __init__(self, step):
        self.step = step

    async def forward(self, a):
        return await self.step.start(a=a)


@pytest.mark.parametrize("depth", [1, 2])
def test_calls_of_a_run_that_a_program_starts_count_as_calls_of_the_program(depth):
    program = dn.Predict("a -> b", lm=dn.FunctionLM(lambda _: "b: 1"))
    for _ in range(depth):
        program = Starts(program)
    prediction = program.run_sync(a="1")
    assert (prediction.usage.calls, len(prediction.calls)) == (1, 1)
    best = dn.BestOfN(program, lambda row, prediction: 0.5, n=2)
    assert best.run_sync(a="1").usage.calls == 2
    scored = dn.evaluate(program, [{"a": "1"}] * 2, lambda row, prediction: 1.0)
    run = dn.run_sync(lambda: scored).run
    assert [r.usage.calls for r in run.record.rollouts] == [1, 1]


@pytest.mark.parametrize("unknown", [0, 3])
def test_usage_is_the_sum_of_the_calls_even_where_some_usage_is_unknown(unknown):
    usages = [dn.Usage(calls=1, prompt_tokens=n, completion_tokens=n, usd=0.1) for n in range(5)]
    usages[unknown] = dn.Usage(calls=1, prompt_tokens=None, usd=None)
    record = RunRecord([call(10 + n, usage=usage) for n, usage in enumerate(usages)])
    assert record.usage == sum(usages, dn.Usage())


# ── when a record is created ─────────────────────────────────────────────────────────────────────────────────────────
def test_a_small_run_has_no_record_until_somebody_reads_it():
    run = dn.Predict("a -> b", lm=dn.FunctionLM(lambda _: "b: 1")).run_sync(a="1").run
    assert run._record is None
    assert (run.status, run.usage.calls) == ("finished", 1)
    assert run._record is run.record


def test_a_record_that_was_read_early_grows_with_the_run():
    ask = dn.Predict("a -> b", lm=dn.FunctionLM(lambda _: "b: 1"))

    async def main():
        run = ask.start(a="1")
        record = run.record
        earlier_status = record.status
        await run
        return earlier_status, record.status, len(record.calls), run.record is record

    assert dn.run_sync(main) == ("pending", "finished", 1, True)


def test_the_record_of_a_long_run_is_updated_with_each_event_so_that_reading_it_is_cheap():
    ask = dn.Predict("a -> b", lm=dn.FunctionLM(lambda _: "b: 1"))

    class Many(dn.Module):
        def __init__(self):
            self.ask = ask

        async def forward(self, n):
            for _ in range(n):
                await self.ask(a="1")
            return {"unapplied": len(dn.last_run()._events), "applied": dn.last_run()._record is not None}

    result = Many().run_sync(n=400)
    assert result["applied"]
    assert result["unapplied"] == 0
    assert len(result.run.record.events) == len(result.run.record.calls) + 4


def test_threads_that_read_a_record_for_the_first_time_get_the_same_one():
    run = dn.Predict("a -> b", lm=dn.FunctionLM(lambda _: "b: 1")).run_sync(a="1").run
    start = threading.Barrier(8)
    records = []

    def read():
        start.wait()
        records.append(run.record)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, records))) == 1
    assert len(run.record.events) == 3
