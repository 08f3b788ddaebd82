"""The dispatcher: order, width, the cut, and closing."""

from __future__ import annotations

import asyncio
import gc
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dspynb as dn
from dspynb.errors import BudgetExhausted, RunStopped
from dspynb.optimizers.core.dispatcher import Dispatcher
from dspynb.scope import Layer, current_scope

run = asyncio.run


def working(number, log, chance=None, calls=1):
    """A job that makes ``calls`` calls, appends its number to ``log``, and returns it."""

    async def job(funds):
        log.append(number)
        with Layer(None, funds=funds):
            for _ in range(calls):
                current_scope().admit(1)
                await asyncio.sleep(0 if chance is None else chance.random() * 0.001)
        return number

    return job


def test_jobs_start_in_order_and_no_more_than_the_width_at_a_time():
    async def main():
        under_way, most, log = 0, 0, []

        async def job(funds):
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            log.append(len(log))
            await asyncio.sleep(0.0005)
            under_way -= 1

        dispatcher = Dispatcher(3)
        await asyncio.gather(*(dispatcher.submit(job, 1) for _ in range(10)))
        await dispatcher.close()
        assert most == 3
        assert log == list(range(10))

    run(main())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=12), st.integers(1, 25), st.integers(1, 5), st.integers(0, 99))
def test_the_cut_is_a_place_in_the_order_of_submission_whatever_the_timing(needs, calls, width, seed):
    async def main():
        chance, log = random.Random(seed), []
        with dn.Budget(calls=calls) as meter:
            dispatcher = Dispatcher(width)
            futures = [dispatcher.submit(working(i, log, chance, n), 3) for i, n in enumerate(needs)]
            done = await asyncio.gather(*futures, return_exceptions=True)
            await dispatcher.close()
        assert meter.spent["calls"] <= calls
        return [not isinstance(result, BudgetExhausted) for result in done]

    assert run(main()) == [sum(needs[: i + 1]) <= calls for i in range(len(needs))]


def test_refused_jobs_fail_once_all_jobs_before_them_have_ended():
    async def main():
        ended = []

        async def slow(funds):
            await asyncio.sleep(0.005)
            ended.append(1)

        dispatcher = Dispatcher(2)
        first = dispatcher.submit(slow, 1)
        dispatcher.cut(BudgetExhausted("spent"))
        with pytest.raises(BudgetExhausted, match="spent"):
            await dispatcher.submit(slow, 1)
        assert ended == [1]
        assert first.done()
        await dispatcher.close()

    run(main())


def test_the_error_of_a_job_goes_to_its_submitter_and_the_others_continue():
    async def main():
        async def bad(funds):
            raise ValueError("no")

        dispatcher, log = Dispatcher(1), []
        first, second = dispatcher.submit(bad, 1), dispatcher.submit(working(1, log), 1)
        with pytest.raises(ValueError, match="no"):
            await first
        assert await second == 1
        await dispatcher.close()

    run(main())


def test_a_stop_inside_a_job_is_raised_in_its_future():
    async def main():
        async def stopped(funds):
            raise RunStopped

        dispatcher = Dispatcher(1)
        with pytest.raises(RunStopped):
            await dispatcher.submit(stopped, 1)
        assert dispatcher.spent is None
        await dispatcher.close()

    run(main())


def test_a_job_whose_future_is_cancelled_is_not_started():
    async def main():
        dispatcher, log = Dispatcher(1), []
        first, second = dispatcher.submit(working(0, log), 1), dispatcher.submit(working(1, log), 1)
        second.cancel()
        assert await first == 0
        await asyncio.sleep(0.001)
        await dispatcher.close()
        assert log == [0]

    run(main())


def test_closing_cancels_running_jobs_and_leaves_no_task_and_no_unretrieved_exception():
    loop_errors = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: loop_errors.append(context["message"]))

        async def endless(funds):
            await asyncio.Event().wait()

        async def bad(funds):
            raise ValueError

        dispatcher = Dispatcher(2)
        futures = [dispatcher.submit(job, 1) for job in (bad, endless, endless, endless)]
        await asyncio.sleep(0.001)
        await dispatcher.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        del futures
        gc.collect()
        await asyncio.sleep(0)

    run(main())
    assert loop_errors == []


def test_jobs_that_never_wait_leave_the_loop_to_others():
    async def main():
        turns = 0

        async def quick(funds):
            return turns

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        dispatcher = Dispatcher(1)
        seen = await asyncio.gather(*(dispatcher.submit(quick, 1) for _ in range(50)))
        beside.cancel()
        await dispatcher.close()
        assert seen[-1] >= 40

    run(main())
