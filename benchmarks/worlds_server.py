"""The HTTP server of the simulated worlds: OpenAI-style chat completions on loopback, with 8 slots and counters.

    POST /reset {"world": "rule", "predictors": 1, "seed": 0}    begins a new run; the counters are zero
    POST /v1/chat/completions                                    `worlds_model.Model` answers; a ninth call waits
    GET  /stats                                                  the counters

Latency is lognormal with sigma 0.5 and a median of 20 ms (task calls) or 100 ms (calls for words). It is drawn from the
key of the reply, so it depends neither on the order of arrival nor on the wording. A request for n choices is one call.
The server ends with the process that started it, or after a given time.

Counters: ``task_calls``; ``runs``, the task calls of the last stage, which are runs of the program on an example;
``word_calls``; ``unread``, calls in which no form of reply was found; ``tokens``, at four characters each, in both
directions; ``busy``, slot-seconds of all calls; ``busy_tasks``, slot-seconds of task calls; ``task_seconds``, the time
during which at least one task call waited or ran.
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

SLOTS = 8
SIGMA = 0.5
MEDIANS = {"task": 0.02, "run": 0.02, "words": 0.1, "unread": 0.1}
LIFETIME = 12 * 3600
"""Seconds after which the server ends."""


def latency(reply: Reply) -> float:
    """The seconds that a reply takes; the same for the same reply."""
    return MEDIANS[reply.kind] * math.exp(SIGMA * Draws("latency", reply.key).normal())


class Meter:
    """Counts calls, and sums up the time of busy slots."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.sums = Counter[str]()
        self.running = Counter[str]()
        self.open_tasks = 0
        self.last_tick = time.perf_counter()

    def tick(self) -> None:
        """Add the time since the last tick. Call it before each change."""
        now = time.perf_counter()
        elapsed = now - self.last_tick
        self.last_tick = now
        self.sums["busy"] += elapsed * self.running.total()
        self.sums["busy_tasks"] += elapsed * (self.running["task"] + self.running["run"])
        self.sums["task_seconds"] += elapsed * (self.open_tasks > 0)

    def stats(self) -> dict[str, Any]:
        self.tick()
        counts = {name: self.counts[name] for name in ("task_calls", "runs", "word_calls", "unread", "tokens")}
        return counts | {name: self.sums[name] for name in ("busy", "busy_tasks", "task_seconds")}


class Server:
    """The state of one run at a time, and the handlers."""

    def __init__(self) -> None:
        self.begin("rule", 1, 0)

    def begin(self, world: str, predictors: int, seed: int) -> None:
        self.model = Model(World(world, predictors, seed))
        self.meter = Meter()
        self.slots = asyncio.Semaphore(SLOTS)

    async def reset(self, request: web.Request) -> web.Response:
        settings = await request.json()
        self.begin(settings["world"], settings["predictors"], settings["seed"])
        return web.json_response({})

    async def stats(self, _request: web.Request) -> web.Response:
        return web.json_response(self.meter.stats())

    async def complete(self, request: web.Request) -> web.Response:
        body = await request.read()
        meter = self.meter  # a reset during this call begins another run, with another meter and other slots
        slots = self.slots
        replies = self.model.replies(json.loads(body))
        first = replies[0]
        task = first.kind in ("task", "run")
        size = len(body) // 4, sum(len(reply.text) for reply in replies) // 4
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
    choices = []
    for index, reply in enumerate(replies):
        message = {"role": "assistant", "content": reply.text}
        choices.append({"index": index, "message": message, "finish_reason": "stop"})
    usage = {"prompt_tokens": size[0], "completion_tokens": size[1], "total_tokens": sum(size)}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices, "usage": usage}


async def _serve(queue: Any, lifetime: float) -> None:
    server = Server()
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_post("/v1/chat/completions", server.complete)
    app.router.add_post("/reset", server.reset)
    app.router.add_get("/stats", server.stats)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    queue.put(site._server.sockets[0].getsockname()[1])
    end = time.monotonic() + lifetime
    parent = os.getppid()
    while time.monotonic() < end and os.getppid() == parent:  # noqa: ASYNC110  # there is no event when the parent ends
        await asyncio.sleep(1)


def serve(queue: Any, lifetime: float = LIFETIME) -> None:
    """Serve until the parent process or the lifetime ends. Puts the port into the queue."""
    asyncio.run(_serve(queue, lifetime))
