"""An OpenAI-compatible server on loopback for tests, with faults on demand. It runs in a thread."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from dataclasses import dataclass, field

from aiohttp import web


def reply(text, **extra):
    """The body of a chat completion."""
    return {
        "id": "x",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, **extra}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
    }


@dataclass
class Server:
    """``with Server(answer) as server``: ``answer(body, number) -> web.Response | dict | str``, sync or async."""

    answer: object = None
    bodies: list = field(default_factory=list)
    headers: list = field(default_factory=list)
    running: int = 0
    peak: int = 0
    streamed: list = field(default_factory=list)  # replies to streamed requests, in order: f(request) or a response

    def __enter__(self):
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    @property
    def base(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    def add_routes(self, app):
        """Add what the server answers. For subclasses."""
        app.router.add_post("/v1/chat/completions", self._handle)

    async def _serve(self):
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=2**26)
        self.add_routes(app)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        for listener in site._server.sockets:  # no new connections: asyncio loses one that arrives while it closes
            self._loop.remove_reader(listener.fileno())
        await asyncio.sleep(0.01)
        await runner.cleanup()
        await self._abort_leftovers()

    async def _abort_leftovers(self):
        """Abort late connections, and handlers whose client has disconnected: the cleanup of aiohttp misses both."""
        for _ in range(3):  # a closed transport releases its socket in the next iteration of the loop
            for transport in list(self._loop._transports.values()):
                transport.abort()
            await asyncio.sleep(0.01)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _handle(self, request):
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            answer = self.streamed.pop(0) if body.get("stream") else self.answer(body, len(self.bodies))
            if callable(answer):
                answer = answer(request)
            if asyncio.iscoroutine(answer):
                answer = await answer
        finally:
            self.running -= 1
        if isinstance(answer, str):
            answer = reply(answer)
        return web.json_response(answer) if isinstance(answer, dict) else answer


def error(status, message="no", code=None, **headers):
    """An error response."""
    return web.json_response({"error": {"message": message, "code": code}}, status=status, headers=headers)


def sse(pieces, *, finish="stop", usage=None, done=True, cut=False, headers=None):
    """A reply that is streamed as server-sent events."""

    async def answer(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **(headers or {})})
        await response.prepare(request)
        bodies = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
        if finish:
            bodies.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        if usage:
            bodies.append({"choices": [], "usage": usage})
        for body in bodies:
            await response.write(b": keep-alive\n\ndata: " + json.dumps(body).encode() + b"\n\n")
        if cut:
            request.transport.close()
        elif done:
            await response.write(b"data: [DONE]\n\n")
        return response

    return answer


def chance(*parts):
    """A pseudo-random number in [0, 1) that depends only on ``parts``."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:6], "big") / 2**48
