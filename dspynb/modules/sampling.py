"""Several samples of one program on the same inputs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspynb.data import Prediction
from dspynb.running.aio.tasks import end_tasks
from dspynb.running.user_code import guarded
from dspynb.scope.core import Layer, current_scope

if TYPE_CHECKING:
    from dspynb.modules.module import Module

__all__ = ["sample"]


async def sample(program: Module, inputs: Mapping[str, Any], n: int, temperature: float | None) -> list[Prediction]:
    """Make ``n`` predictions concurrently, each with its own rollout. The first error cancels all others."""
    tasks = []
    for number in range(n):
        call = guarded("the program", _call_as_sample, program, inputs, number, temperature)
        tasks.append(asyncio.create_task(call))
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await end_tasks(tasks)


async def _call_as_sample(
    program: Module, inputs: Mapping[str, Any], number: int, temperature: float | None
) -> Prediction:
    scope = current_scope()
    sampling = scope.context.sampling.with_temperature(temperature)
    sampling = sampling.with_rollout(sampling.rollout.child(number))
    with Layer(None, context=replace(scope.context, sampling=sampling)):
        return await program(**inputs)
