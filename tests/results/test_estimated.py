"""Tables with costs say which tokens are estimated, in live and in reopened runs."""

from __future__ import annotations

import asyncio

import pytest

import dspynb as dn
from tests.cases.providers import model
from tests.helpers import chat
from tests.lm.server import Server, reply

ROWS = [{"question": f"{number}?", "answer": "4"} for number in range(4)]
TABLES = ("attempts", "rollouts", "costs", "candidates")


def without_usage(body, number):
    """A reply of a server that reports no usage."""
    answer = reply(chat(answer="4", proposed_instruction="Be brief.", proposed_prefix_for_output_field="Answer:"))
    answer.pop("usage", None)
    return answer


def columns_of(run):
    """The tables of a run that have estimates, with their sums."""
    sums = {}
    for name in TABLES:
        table = getattr(run, name)
        if "estimated" in table:
            sums[name] = int(table.estimated.sum())
    return sums


@pytest.fixture
def folder(tmp_path):
    dn.configure(runs_dir=tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore::dspynb.errors.UsageUnknownWarning")
def test_a_server_without_usage_marks_every_table(folder):
    with Server(without_usage) as server:
        ask = dn.Predict("question -> answer", lm=model(server))
        best = dn.BestOfN(ask, reward=lambda row, prediction: 1.0, n=2)
        done = dn.Evaluate(dn.metrics.exact_match(), budget=dn.Budget(tokens=100_000)).run_sync(best, ROWS)
        total = int(done.run.calls.estimated.sum())
        assert total > 0
        assert done.run.meter.estimated == total
        one_row = total // len(ROWS)  # the run has the attempts of the last row
        assert columns_of(done.run) == {"attempts": one_row, "rollouts": total, "costs": total}
        assert int(done.table.estimated.sum()) == total
        assert columns_of(dn.open_run(done.run.path)) == columns_of(done.run)
        opt = dn.COPRO(dn.metrics.exact_match(), breadth=2, depth=1, budget=dn.Budget(tokens=1_000_000))
        with dn.context(lm=model(server)):
            opt.compile_sync(dn.Predict("question -> answer"), ROWS)
        run = dn.last_run()
        assert columns_of(run)["candidates"] == columns_of(run)["rollouts"] > 0
        assert columns_of(dn.open_run(run.path)) == columns_of(run)


def test_a_request_that_timed_out_counts_its_reservation_in_every_table(folder):
    async def slow(body, number):
        await asyncio.sleep(0 if number > 1 else 5)
        return {**reply(chat(answer="4")), "usage": {"prompt_tokens": 50, "completion_tokens": 5, "total_tokens": 55}}

    with Server(slow) as server:
        lm = model(server, max_tokens=100, price={"input": 1, "output": 2}, timeout=0.5, retries=1)
        plan = dn.Evaluate(dn.metrics.exact_match(), concurrency=1, budget=dn.Budget(tokens=100_000))
        done = plan.run_sync(dn.Predict("question -> answer", lm=lm), ROWS)
    estimated = columns_of(done.run)
    assert estimated == {"rollouts": done.run.meter.estimated, "costs": done.run.meter.estimated}
    assert done.table.estimated.tolist()[0] == done.run.meter.estimated > 100
    assert columns_of(dn.open_run(done.run.path)) == estimated


def test_a_run_without_estimates_has_no_such_column():
    ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    done = dn.Evaluate(dn.metrics.exact_match()).run_sync(ask, ROWS)
    assert columns_of(done.run) == {}
