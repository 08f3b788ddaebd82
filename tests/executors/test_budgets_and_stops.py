"""Budgets are never exceeded, Stop reaches the workers, and a run can be resumed locally or on a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

import dspynb as dn
from dspynb.events import PredictorCalled, RolloutEnded
from tests.executors.programs import Slow, calls_of, doubled, marks, program, refined, right, rows, without_times, wordy
from tests.helpers import chat
from tests.optimizers.worlds import TRAIN, VAL, World, events, one, optimized, outcome, small

run = asyncio.run


def spent(run):
    """The number of calls in the record of a run."""
    return sum(e.usage.calls for e in run.record.events if isinstance(e, PredictorCalled))


# ── budgets ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("limit", [1, 5, 7, 20])
def test_a_budget_of_calls_ends_the_run_where_it_ends_a_local_run(limit, dask):
    subjects = [{"subject": f"s{i}"} for i in range(6)]

    async def main(executor):
        evaluation = dn.Evaluate(wordy, executor=executor, concurrency=3, budget=dn.Budget(calls=limit))
        handle = evaluation.start(refined(), subjects)
        with contextlib.suppress(dn.BudgetExhausted):
            await handle
        return handle

    local, remote = run(main(None)), run(main(dask))
    assert (local.status, spent(local)) == (remote.status, spent(remote))
    assert spent(remote) <= limit
    assert without_times(local.rollouts).to_dict("records") == without_times(remote.rollouts).to_dict("records")
    assert calls_of(local) == calls_of(remote)


def test_a_meter_counts_the_usage_of_the_workers(dask):
    async def main(executor, **limits):
        with dn.Budget(**limits) as meter:
            await dn.evaluate(program(), rows(9, bad=[2]), right, executor=executor)
        return {name: meter.spent[name] for name in ("calls", "metric_calls", "tokens", "usd")}

    for limits in ({"calls": 100}, {"metric_calls": 100}, {"seconds": 1000.0}):
        assert run(main(None, **limits)) == run(main(dask, **limits))


def test_metric_calls_are_never_exceeded(dask):
    async def main():
        return await dn.evaluate(program(), rows(20), right, executor=dask, budget=dn.Budget(metric_calls=7))

    evaluation = run(main())
    assert len(evaluation) == 7
    assert evaluation.run.status == "exhausted"


class Greedy(dn.Module):
    """Makes more calls than ``most_calls`` says."""

    def __init__(self, calls):
        self.calls, self.predict = calls, dn.Predict("question -> answer", lm=dn.FunctionLM(doubled))

    async def forward(self, question):
        for i in range(self.calls):
            prediction = await self.predict(question=str(int(question) + i))
        return prediction


@pytest.mark.parametrize(("limit", "rows_done"), [(24, 4), (11, 1), (12, 2)])
def test_a_program_with_more_calls_than_it_declares_stays_within_the_budget(limit, rows_done, dask):
    async def main(executor):
        budget = dn.Budget(calls=limit)
        return await dn.evaluate(Greedy(6), rows(4), right, executor=executor, concurrency=1, budget=budget)

    local, remote = run(main(None)), run(main(dask))
    assert len(local) == len(remote) == rows_done
    assert spent(local.run) == spent(remote.run) <= limit


def test_tokens_are_counted_and_end_the_run(dask):
    async def main():
        lm = dn.FunctionLM(tokens)
        return await dn.evaluate(
            dn.Predict("question -> answer", lm=lm),
            rows(40),
            right,
            executor=dask,
            concurrency=2,
            budget=dn.Budget(tokens=2_000),
        )

    evaluation = run(main())
    assert evaluation.run.status == "exhausted"
    assert 1_400 <= evaluation.usage.tokens <= 2_000 + 2 * 200


def tokens(request):
    return dn.LMReply(chat(answer="1"), usage=dn.Usage(calls=1, prompt_tokens=180, completion_tokens=20))


# ── stop ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
async def asked_for(n, folder):
    """Wait until the models on the workers have received ``n`` requests."""
    while len(marks(folder, "asked")) < n:  # noqa: ASYNC110  # other processes ask
        await asyncio.sleep(0.02)


def test_stop_waits_for_no_call_and_cancels_the_calls_on_the_workers(dask, tmp_path):
    async def main():
        plan = dn.Evaluate(right, executor=dask, concurrency=8)
        handle = plan.start(dn.Predict("question -> answer", lm=Slow(tmp_path, 5.0)), rows(30))
        await asked_for(8, tmp_path)
        began = time.monotonic()
        handle.stop()
        with pytest.raises(dn.RunStopped):
            await handle
        return handle, time.monotonic() - began

    handle, seconds = run(main())
    assert seconds < 4  # the calls take 5 s
    assert handle.status == "stopped"
    marks_before = marks(tmp_path, "asked")
    time.sleep(5.5)
    assert marks(tmp_path, "answered") == []  # every call was cancelled
    assert marks(tmp_path, "asked") == marks_before  # and none was made


@pytest.mark.slow
def test_a_coordinator_that_is_cancelled_leaves_no_call_running(dask, tmp_path):
    async def main():
        slow = dn.Predict("question -> answer", lm=Slow(tmp_path, 5.0))
        task = asyncio.create_task(dn.evaluate(slow, rows(4), right, executor=dask))
        await asked_for(4, tmp_path)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        run(main())
    time.sleep(5.5)
    assert marks(tmp_path, "answered") == []


# ── resuming ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("first", "then"), [(True, True), (True, False), (False, True)])
def test_an_evaluation_is_resumed_locally_or_on_a_cluster(first, then, dask):
    async def main():
        plan = dn.Evaluate(right, executor=dask if first else None, budget=dn.Budget(metric_calls=5))
        part = await plan(program(), rows(12))
        resumed = dn.Evaluate(right, executor=dask if then else None).resume(part.run.path, program(), rows(12))
        return part, await resumed, await dn.evaluate(program(), rows(12), right)

    part, complete, straight = run(main())
    assert (len(part), len(complete)) == (5, 12)
    assert without_times(complete.table).to_dict("records") == without_times(straight.table).to_dict("records")
    assert len(events(complete.run, RolloutEnded)) == 12


def test_an_exhausted_optimizer_is_resumed_on_a_cluster_without_repeating_calls(dask):
    async def main(executor):
        part = await optimized(dn.GEPA, World(), executor=executor, budget=dn.Budget(calls=25))
        resumed = small(dn.GEPA, executor=executor).resume(part.path, one(World()), TRAIN, VAL)
        await resumed
        return part, resumed

    local, remote, complete = run(main(None)), run(main(dask)), run(optimized(dn.GEPA, World()))
    assert local[0].status == remote[0].status == "exhausted"
    assert outcome(local[1]) == outcome(remote[1])
    assert calls_of(local[1]) == calls_of(remote[1])
    assert outcome(remote[1])["winner"] == outcome(complete)["winner"]


def wrong(row, prediction):
    return 0.0


def test_a_recorded_call_of_an_unfinished_rollout_is_reused_by_a_worker(dask):
    apart = [{"question": str(100 * i), "answer": str(200 * i + 10)} for i in range(6)]

    async def main(executor):
        plan = {"max_bootstrapped_demos": 6, "max_rounds": 1, "executor": executor, "concurrency": 1}
        handle = dn.BootstrapFewShot(wrong, budget=dn.Budget(calls=27), **plan).start(Greedy(6), apart)
        await handle
        resumed = dn.BootstrapFewShot(wrong, **plan).resume(handle.path, Greedy(6), apart)
        await resumed
        return handle, resumed

    outcomes = []
    for executor in (None, dask):
        handle, resumed = run(main(executor))
        calls = events(resumed, PredictorCalled)
        fresh = [(str(e.messages), e.rollout) for e in calls if not e.cached]
        assert (handle.status, resumed.status) == ("exhausted", "finished")
        assert any(e.cached for e in calls)  # from the log of the resumed run
        assert len(set(fresh)) == len(fresh)  # none was made twice
        outcomes.append(outcome(resumed))
    assert outcomes[0] == outcomes[1]


@pytest.mark.slow
def test_stop_of_an_optimizer_reaches_the_workers(dask, tmp_path):
    async def main():
        slow = dn.Predict("question -> answer", lm=Slow(tmp_path, 5.0))
        handle = small(dn.GEPA, executor=dask).start(slow, TRAIN, VAL)
        await asked_for(4, tmp_path)
        began = time.monotonic()
        handle.stop()
        await handle
        return handle, time.monotonic() - began

    handle, seconds = run(main())
    assert seconds < 4  # the calls take 5 s
    assert handle.status == "stopped"
    time.sleep(5.5)
    assert marks(tmp_path, "answered") == []


# ── steering ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_paused_run_sends_no_further_row_and_can_be_continued_or_stopped(dask, tmp_path):
    async def main(ends):
        folder = tmp_path / ends
        folder.mkdir()
        plan = dn.Evaluate(right, executor=dask, concurrency=2)
        handle = plan.start(dn.Predict("question -> answer", lm=Slow(folder, 0.3)), rows(6))
        await asked_for(2, folder)
        handle.pause()
        await asyncio.sleep(1)
        marks_when_paused = marks(folder, "asked")
        await asyncio.sleep(0.7)
        assert marks(folder, "asked") == marks_when_paused
        assert len(marks_when_paused) == len(marks(folder, "answered")) < 6
        getattr(handle, ends)()
        return len(marks_when_paused), len(await handle)

    assert run(main("unpause"))[1] == 6
    sent_rows, rows_done = run(main("stop"))
    assert rows_done == sent_rows


def test_a_budget_that_is_set_while_rows_are_on_workers_holds_from_the_next_row(dask):
    async def main(executor):
        handle = dn.Evaluate(right, executor=executor, concurrency=2).start(program(), rows(20))
        handle.set_budget(metric_calls=4)
        evaluation = await handle
        return len(evaluation), handle.status

    assert run(main(dask)) == run(main(None)) == (4, "exhausted")


def test_hints_for_refines_on_workers_are_refused(dask):
    async def main(start):
        handle = start()
        with pytest.raises(dn.errors.SteeringError, match="on workers of a cluster accept none"):
            handle.suggest_hint("Say more.", row=1)
        assert handle.steerable == {"pause", "budget"}
        await handle

    subjects = [{"subject": f"s{i}"} for i in range(3)]
    run(main(lambda: dn.Evaluate(wordy, executor=dask).start(refined(), subjects)))
