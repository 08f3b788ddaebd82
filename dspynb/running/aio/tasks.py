"""Ending tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

__all__ = ["GRACE", "end_tasks"]

GRACE = 0.4
"""Seconds that cancelled tasks get to end. A task that refuses to be cancelled is not waited for any longer."""


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel the tasks that still run, wait ``GRACE`` seconds at most until they have ended, and retrieve all
    exceptions, so that asyncio does not log them."""
    tasks = list(tasks)
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=GRACE)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # an exception that matters was raised by the code that waited for the task
