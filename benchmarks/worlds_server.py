"""The one HTTP server of the simulated worlds: OpenAI-style chat completions on loopback, 8 slots, counted.

    POST /reset {"world": "rule", "predictors": 1, "seed": 0}    a new run; the counters are zero
    POST /v1/chat/completions                                    `worlds_model.Model` answers; a ninth call waits
    GET  /stats                                                  the counters

Latency is lognormal with sigma 0.5 and a median of 20 ms (task calls) or 100 ms (calls for words), drawn from what the
reply was drawn from, so neither from the order of arrival nor from the wording. A request for n choices is one call.
The server ends with the process that started it, or after a given time.

Counters: ``task_calls``; ``runs``, the task calls of the last stage, so programs run on an example; ``word_calls``;
``unread``, calls in which no wanted form of reply was found; ``tokens``, four characters each, both ways; ``busy``,
slot-seconds of all calls, and ``busy_tasks``, of task calls; ``task_seconds``, the time during which at least one task
call waited or ran.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections import Counter
from typing import Any

from aiohttp import web
from worlds import Draws, World
from worlds_model import Model, Reply

SLOTS, SIGMA, MEDIANS, LIVES = 8, 0.5, {"task": 0.02, "run": 0.02, "words": 0.1, "unread": 0.1}, 12 * 3600


def latency(reply: Reply) -> float:
    """Seconds, the same for the same reply."""
    return MEDIANS[reply.kind] * math.exp(SIGMA * Draws("latency", reply.key).normal())


class Meter:
    """Counts calls, and integrates over time what is busy."""

    def __init__(self) -> None:
        self.counts, self.sums = Counter[str](), Counter[str]()
        self.running, self.open_tasks, self.at = Counter[str](), 0, time.perf_counter()

    def tick(self) -> None:
        """To be called before anything changes."""
        now = time.perf_counter()
        took, self.at = now - self.at, now
        self.sums["busy"] += took * self.running.total()
        self.sums["busy_tasks"] += took * (self.running["task"] + self.running["run"])
        self.sums["task_seconds"] += took * (self.open_tasks > 0)

    def stats(self) -> dict[str, Any]:
        self.tick()
        counts = {name: self.counts[name] for name in ("task_calls", "runs", "word_calls", "unread", "tokens")}
        return counts | {name: self.sums[name] for name in ("busy", "busy_tasks", "task_seconds")}


class Server:
    """The state of one run at a time, and the handlers."""

    def __init__(self) -> None:
        self.begin("rule", 1, 0)

    def begin(self, world: str, predictors: int, seed: int) -> None:
        self.model, self.meter = Model(World(world, predictors, seed)), Meter()
        self.slots = asyncio.Semaphore(SLOTS)

    async def reset(self, request: web.Request) -> web.Response:
        told = await request.json()
        self.begin(told["world"], told["predictors"], told["seed"])
        return web.json_response({})

    async def stats(self, _request: web.Request) -> web.Response:
        return web.json_response(self.meter.stats())

    async def complete(self, request: web.Request) -> web.Response:
        raw, model, meter, slots = await request.read(), self.model, self.meter, self.slots
        replies = model.replies(json.loads(raw))
        first, task = replies[0], replies[0].kind in ("task", "run")
        size = len(raw) // 4, sum(len(reply.text) for reply in replies) // 4
        meter.tick()
        meter.open_tasks += task
        meter.counts.update({"task_calls" if task else "word_calls": 1, "tokens": sum(size)})
        meter.counts.update({"runs": first.kind == "run", "unread": first.kind == "unread"})
        try:
            async with slots:
                await self._hold(meter, first)
        finally:
            meter.tick()
            meter.open_tasks -= task
        return web.json_response(_completion(replies, size))

    async def _hold(self, meter: Meter, reply: Reply) -> None:
        meter.tick()
        meter.running[reply.kind] += 1
        try:
            await asyncio.sleep(latency(reply))
        finally:
            meter.tick()
            meter.running[reply.kind] -= 1


def _completion(replies: list[Reply], size: tuple[int, int]) -> dict[str, Any]:
    told = [{"role": "assistant", "content": reply.text} for reply in replies]
    choices = [{"index": i, "message": message, "finish_reason": "stop"} for i, message in enumerate(told)]
    usage = {"prompt_tokens": size[0], "completion_tokens": size[1], "total_tokens": sum(size)}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices, "usage": usage}


async def _serve(queue: Any, lives: float) -> None:
    server, app = Server(), web.Application(client_max_size=64 * 2**20)
    app.router.add_post("/v1/chat/completions", server.complete)
    app.router.add_post("/reset", server.reset)
    app.router.add_get("/stats", server.stats)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    queue.put(site._server.sockets[0].getsockname()[1])
    end, parent = time.monotonic() + lives, os.getppid()
    while time.monotonic() < end and os.getppid() == parent:  # noqa: ASYNC110  # no event tells of a gone parent
        await asyncio.sleep(1)


def serve(queue: Any, lives: float = LIVES) -> None:
    """Serve until the parent is gone or the time is over; the port goes to the queue."""
    asyncio.run(_serve(queue, lives))
