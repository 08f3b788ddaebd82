"""Rows a second against a server on loopback that answers after 50 ms, beside DSPy's Evaluate and bare aiohttp.

    python benchmarks/throughput.py --peer /path/to/an/environment/with/dspy/bin/python

1,500 rows, 128 in flight, retries and cache on (the cache is empty, so that every row is asked and written); DSPy is
measured with its cache off and on. Each round measures all in turn against one server process. Writes
benchmarks/throughput.csv: medians and ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile

from report import today, written

DSPY, DSPY_CACHED = "dspy 3.4.1 Evaluate, cache off", "dspy 3.4.1 Evaluate, cache on"
ROUNDS, ROWS, IN_FLIGHT, SERVED_FOR = 5, 1500, 128, 900

OURS = """
import asyncio, json, sys, time, dspynb as dn
port, rows, in_flight, runs = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] or None
dn.configure(view="off", runs_dir=runs)
predict = dn.Predict("question -> answer", lm=dn.LM("openai/m", api_base=f"http://127.0.0.1:{port}/v1"))
async def main():
    await predict.batch([{"question": f"warm {time.time()} {i}"} for i in range(64)], concurrency=in_flight)
    began = time.perf_counter()
    done = await predict.batch([{"question": f"{began} {i}"} for i in range(rows)], concurrency=in_flight)
    took = time.perf_counter() - began
    assert all(isinstance(row, dn.Prediction) for row in done)
    print(json.dumps(rows / took))
asyncio.run(main())
"""
PEER = """
import json, sys, time, dspy
port, rows, in_flight = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
cache = len(sys.argv) > 4
dspy.configure(lm=dspy.LM("openai/m", api_base=f"http://127.0.0.1:{port}/v1", api_key="x", cache=cache))
predict = dspy.Predict("question -> answer")
def evaluate(tag, n):
    data = [dspy.Example(question=f"{tag} {i}", answer="fine").with_inputs("question") for i in range(n)]
    return dspy.Evaluate(devset=data, metric=lambda e, p, t=None: p.answer == "fine", num_threads=in_flight,
                         display_progress=False)(predict)
evaluate(f"warm {time.time()}", 64)
began = time.perf_counter()
evaluate(str(began), rows)
print(json.dumps(rows / (time.perf_counter() - began)))
"""
FLOOR = """
import aiohttp, asyncio, json, sys, time
port, rows, in_flight = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
async def main():
    slots = asyncio.Semaphore(in_flight)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        async def one():
            async with slots, session.post(f"http://127.0.0.1:{port}/v1/chat/completions", json={"x": 1}) as response:
                return await response.json()
        await asyncio.gather(*(one() for _ in range(64)))
        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(rows)))
        print(json.dumps(rows / (time.perf_counter() - began)))
asyncio.run(main())
"""


def serve(port: multiprocessing.Queue[int]) -> None:
    """An OpenAI-style server that answers after 50 ms; ends by itself."""
    from aiohttp import web

    message = {"role": "assistant", "content": "[[ ## answer ## ]]\nfine\n\n[[ ## completed ## ]]"}
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps({"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage})

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(0.05)
        return web.Response(text=body, content_type="application/json")

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.put(site._server.sockets[0].getsockname()[1])
        await asyncio.sleep(SERVED_FOR)

    asyncio.run(main())


def measured(python: str, code: str, port: int, *more: str) -> float:
    """Rows a second in a fresh process with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "DSPYNB_CACHE_DIR": folder, "DSPY_CACHEDIR": folder}
        given = [python, "-c", code, str(port), str(ROWS), str(IN_FLIGHT), *(part.format(folder) for part in more)]
        done = subprocess.run(given, capture_output=True, text=True, check=True, env=environment, cwd=folder)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure in turn, write the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="the Python of an environment with dspy")
    peer = parser.parse_args().peer
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    server = context.Process(target=serve, args=(queue,), daemon=True)
    server.start()
    port = queue.get(timeout=30)
    kinds = {
        "dspynb, journal off": (sys.executable, OURS, ""),
        "dspynb, journal on": (sys.executable, OURS, "{}/runs"),
        DSPY: (peer, PEER),
        DSPY_CACHED: (peer, PEER, "cache"),
        "bare aiohttp": (sys.executable, FLOOR),
    }
    seen: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, (python, code, *more) in kinds.items():
            seen[name].append(measured(python, code, port, *more))
    server.terminate()
    medians = {name: statistics.median(figures) for name, figures in seen.items()}
    lines = []
    for name, median in medians.items():
        ratios = [f"{median / medians[base]:.1f}" for base in (DSPY, DSPY_CACHED)]
        lines.append((name, f"{median:.0f}", *ratios, today()))
    written("throughput", ["what", "rows/s", "times dspy", "times dspy with its cache on", "date"], lines)
    print({name: [round(f) for f in figures] for name, figures in seen.items()})


if __name__ == "__main__":
    main()
