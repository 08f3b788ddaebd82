"""Budgets of seconds: nothing starts that would end too late, and what is under way is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

import dspynb as dn
from dspynb.scope.clock import Clock, TimeLimit
from tests.cases.providers import model
from tests.helpers import chat
from tests.lm.server import Server, reply

ROWS = [{"question": f"{number}?", "answer": "4"} for number in range(64)]
FOREVER = 60


def waiting(seconds=FOREVER, first=0):
    """A model that takes so many seconds, after ``first`` calls that take none."""
    begun = []

    async def answer(request):
        begun.append(time.monotonic())
        await asyncio.sleep(0 if len(begun) <= first else seconds)
        return chat(answer="4")

    model = dn.FunctionLM(answer)
    model.begun = begun
    return model


def question(model):
    return dn.Predict("question -> answer", lm=model)


def ended(work):
    """The run, and whether it ended long before its calls would have."""
    began = time.monotonic()
    with contextlib.suppress(dn.BudgetExhausted):
        work()
    assert time.monotonic() - began < FOREVER / 2
    return dn.last_run()


def test_calls_under_way_are_cancelled_when_the_time_is_over_and_finished_rows_are_kept():
    model = waiting(first=5)
    evaluate = dn.Evaluate(dn.metrics.exact_match(), concurrency=8, budget=dn.Budget(seconds=0.3))
    evaluation = evaluate.run_sync(question(model), ROWS)
    assert len(evaluation) == 5
    assert evaluation.run.status == "exhausted"
    assert len(model.begun) <= 5 + 8
    errors = [call.error for call in evaluation.run.record.calls if call.error]
    assert errors
    assert all("seconds is over" in error for error in errors)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_batch_in_a_block_ends_when_the_time_is_over(concurrency):
    def work():
        with dn.Budget(seconds=0.2):
            program = question(waiting())
            dn.run_sync(lambda: program.batch(ROWS, concurrency=concurrency))

    assert ended(work).status == "exhausted"


def test_concurrent_attempts_end_when_the_time_is_over():
    def work():
        best = dn.BestOfN(question(waiting()), reward=lambda row, prediction: 0.5, n=8, width=8)
        with dn.Budget(seconds=0.2):
            best.run_sync(question="2+2?")

    assert ended(work).status == "exhausted"


def test_an_optimizer_ends_with_its_best_when_the_time_is_over():
    def work():
        wrong = [{**row, "answer": "5"} for row in ROWS]
        optimizer = dn.GEPA(dn.metrics.exact_match(), prompt_lm=waiting(), budget=dn.Budget(seconds=0.3))
        optimizer.compile_sync(question(waiting(first=16)), wrong[:8], wrong[8:16])

    assert ended(work).status == "exhausted"


def test_code_of_a_program_that_waits_is_cancelled_too():
    class Waits(dn.Module):
        async def forward(self, question):
            await asyncio.sleep(FOREVER)

    def work():
        dn.Evaluate(dn.metrics.exact_match(), budget=dn.Budget(seconds=0.2)).run_sync(Waits(), ROWS)

    assert ended(work).status == "exhausted"


def test_a_call_that_is_expected_to_end_too_late_is_not_started():
    model = waiting(seconds=0.2)
    program = question(model)

    async def main():
        with dn.Budget(seconds=0.9) as meter:
            for row in ROWS:
                await program(question=row["question"])
            return meter

    with pytest.raises(dn.BudgetExhausted, match="are left, and a call of .* takes about"):
        asyncio.run(main())
    assert 1 <= len(model.begun) <= 4


def test_a_time_that_is_over_when_a_block_begins_cancels_nothing_later():
    async def main():
        clock = Clock(1e-6)
        with pytest.raises(dn.BudgetExhausted):
            async with TimeLimit([clock]):
                pytest.fail("the block began")
        await asyncio.sleep(0)
        return asyncio.current_task().cancelling()

    assert asyncio.run(main()) == 0


def test_rows_of_a_model_that_blocks_the_event_loop_are_kept():
    def answer(request):
        time.sleep(0.3)
        return chat(answer="4")

    with dn.Budget(seconds=0.2):
        results = dn.run_sync(lambda: question(dn.FunctionLM(answer)).batch(ROWS[:3], concurrency=1))
    assert results[0].answer == "4"
    assert all(isinstance(result, dn.BudgetExhausted) for result in results[1:])


def test_the_time_that_a_call_waits_for_a_slot_is_no_part_of_how_long_calls_take():
    async def answer(body, number):
        await asyncio.sleep(0.05)
        return reply(chat(answer="4"))

    async def main(server):
        program = question(model(server, concurrency=1, cache=False))
        with dn.Budget(seconds=60) as meter:
            await asyncio.gather(*(program(question=f"{number}") for number in range(16)))
            return meter.clock.expected("openai/m")

    with Server(answer) as server:
        assert 0.04 < asyncio.run(main(server)) < 0.3


def test_retries_do_not_start_when_the_time_is_over():
    async def answer(request):
        raise dn.errors.ServerError("down")

    model = dn.FunctionLM(answer)
    with dn.Budget(seconds=1e-6), pytest.raises(dn.BudgetExhausted):
        question(model).run_sync(question="2+2?")


def test_a_cancellation_by_the_user_is_no_end_of_the_time():
    async def main():
        async with TimeLimit([Clock(60)]):
            asyncio.current_task().cancel()
            await asyncio.sleep(1)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())


def test_a_pause_and_a_longer_time_postpone_the_end():
    async def main():
        clock = Clock(0.1)
        clock.pause()
        async with TimeLimit([clock]):
            await asyncio.sleep(0.5)
            clock.limit = 60
            clock.resume()
            await asyncio.sleep(0.2)
        return "done"

    assert asyncio.run(main()) == "done"


def test_the_innermost_of_several_ends_is_raised_once():
    async def main():
        clock = Clock(0.05)
        async with TimeLimit([clock], 0.1), TimeLimit([Clock(9), clock]):
            await asyncio.sleep(FOREVER)

    with pytest.raises(dn.BudgetExhausted, match="budget of 0.05 seconds is over"):
        asyncio.run(main())


def test_a_block_that_ends_in_time_leaves_no_timer():
    async def main():
        async with TimeLimit([Clock(0.05)]):
            pass
        await asyncio.sleep(0.4)
        return asyncio.current_task().cancelling()

    assert asyncio.run(main()) == 0


def test_the_next_call_is_expected_to_take_as_long_as_most_of_the_last_ones():
    clock = Clock(10)
    for seconds in (1.0, 2.0):
        clock.note("m", seconds)
    assert clock.expected("m") == 0  # too few of them
    clock.note("m", 30.0)
    assert clock.expected("m") == 2.0
    assert clock.expected("other") == 0
