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


def test_the_end_of_a_slice_wakes_one_worker_however_many_wait():
    callbacks = 0

    class CountingLoop(asyncio.SelectorEventLoop):
        def call_soon(self, *args, **kwargs):
            nonlocal callbacks
            callbacks += 1
            return super().call_soon(*args, **kwargs)

    async def step(number, _):
        await busy(0.011)  # longer than a slice

    def callbacks_of(width):
        nonlocal callbacks
        callbacks = 0
        with asyncio.Runner(loop_factory=CountingLoop) as runner:
            runner.run(turns_of(width))
        return callbacks

    async def turns_of(width):
        await run_pool(60, width, 0, step)

    few, many = callbacks_of(2), callbacks_of(50)
    assert many - few < 60 * 10  # each of 60 slices would wake 48 workers more


def test_a_worker_that_is_cancelled_while_it_queues_leaves_the_others_their_turns():
    finished = []

    async def step(number, _):
        await busy(0.02)
        finished.append(number)
        if number == 3:
            raise ValueError("the fourth step fails")

    async def main():
        with pytest.raises(ValueError, match="fourth"):
            await run_pool(100, 8, 0, step)
        await run_pool(3, 8, 0, step)

    asyncio.run(main())
    assert finished[-3:] == [0, 1, 2]
    assert len(finished) < 20  # few steps begin between the error and the end of the pool
