"""Ending tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

__all__ = ["GRACE", "end_tasks"]

GRACE = 0.4
"""Seconds that stopped work gets to end: a task that refuses to be cancelled is not waited for any longer."""


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel the tasks that still run, wait until they have ended, and take note of every exception."""
    tasks = list(tasks)
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=GRACE)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # what matters of it was raised by whoever waited for the task
