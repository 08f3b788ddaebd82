"""Lanes act in an order that depends on the results of their tasks, and not on timing."""

from __future__ import annotations

import asyncio
import random

import pytest

from dspynb.optimizers.gepa.virtual_time import make_lanes
from dspynb.running.aio.tasks import end_tasks


def acted(seed, plans):
    """Run lanes by their plans (virtual durations of tasks), with real delays by seed. Returns the order of actions."""
    chance, log = random.Random(seed), []

    async def work(lane, number, plan):
        await lane.turn(0)
        for i, takes in enumerate(plan):
            log.append((number, i))
            task = asyncio.create_task(asyncio.sleep(chance.random() * 0.004, (number, i)))
            assert await lane.turn(takes, task) == [(number, i)]
        log.append((number, "end"))
        lane.leave()

    async def main():
        lanes = make_lanes(len(plans))
        await asyncio.gather(*(work(lane, i, plan) for i, (lane, plan) in enumerate(zip(lanes, plans, strict=True))))

    asyncio.run(main())
    return log


def test_turns_are_in_the_order_of_virtual_time_whatever_the_delays():
    plans = [[1, 2, 1], [1, 1, 1, 1], [3, 0.5]]
    orders = {tuple(acted(seed, plans)) for seed in range(6)}
    assert orders == {
        (
            *((0, 0), (1, 0), (2, 0)),  # all at 0, by number
            *((0, 1), (1, 1)),  # at 1
            (1, 2),  # at 2
            *((0, 2), (1, 3), (2, 1)),  # at 3
            (2, "end"),  # at 3.5
            *((0, "end"), (1, "end")),  # at 4
        )
    }


def test_lanes_may_begin_one_after_the_other():
    async def main():
        log = []

        async def work(lane, number):
            await lane.turn(0)
            for _ in range(2):
                log.append(number)
                await lane.turn(2)
            lane.leave()

        await asyncio.gather(*(work(lane, number) for number, lane in enumerate(make_lanes(3, apart=3))))
        return log

    assert asyncio.run(main()) == [0, 0, 1, 1, 2, 2]


def test_an_error_of_a_task_is_raised_in_the_lanes_turn():
    async def failing():
        raise ValueError("it failed at once")

    async def main():
        first, second = make_lanes(2)
        log = []

        async def other():
            await second.turn(0)
            for i in range(3):
                await second.turn(1, asyncio.create_task(asyncio.sleep(0.002)))
                log.append(i)

        await first.turn(0)
        task = asyncio.create_task(other())
        with pytest.raises(ValueError, match="at once"):
            await first.turn(2.5, asyncio.create_task(failing()))
        assert log == [0, 1]  # at 1 and 2; never at 3
        await end_tasks([task])

    asyncio.run(main())
