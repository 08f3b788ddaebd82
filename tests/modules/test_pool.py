"""Many steps side by side: what the pool leaves to others."""

from __future__ import annotations

import asyncio
import time

import pytest

from dspynb.modules.ordered_pool import run_pool


async def busy(seconds):
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        pass


async def turns_beside(work):
    """How often another task of the loop comes to its turn while ``work`` is awaited."""
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await asyncio.sleep(0)
    before = turns
    await work
    task.cancel()
    return turns - before


@pytest.mark.parametrize("width", [1, 8])
def test_steps_that_never_wait_leave_the_event_loop_to_others(width):
    finished = []

    async def step(number, _):
        await busy(0.01)
        finished.append(number)

    turns = asyncio.run(turns_beside(run_pool(40, width, 0, step)))  # 0.4 s, in slices of 0.02
    assert turns >= 10
    assert finished == list(range(40))


def test_a_loop_too_busy_for_a_slice_does_not_keep_the_steps_from_being_done():
    finished = []

    async def step(number, _):
        finished.append(number)
        await busy(0.03)

    async def main():
        async def greedy():
            while True:
                await busy(0.03)
                await asyncio.sleep(0)

        task = asyncio.create_task(greedy())
        await asyncio.wait_for(run_pool(10, 4, 0, step), 20)
        task.cancel()

    asyncio.run(main())
    assert sorted(finished) == list(range(10))
