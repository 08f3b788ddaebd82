"""Rows per second with a loopback server that answers after 50 ms, compared with DSPy's Evaluate and plain aiohttp.

    python benchmarks/throughput.py --peer /path/to/an/environment/with/dspy/bin/python

1,500 rows, 128 in flight, retries and cache on. The cache is empty, so every row is requested and written. DSPy is
measured with its cache off and on. Each round measures all systems one after the other, with one server process. Writes
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

from report import today, write_results

DSPY_UNCACHED = "dspy 3.4.1 Evaluate, cache off"
DSPY_CACHED = "dspy 3.4.1 Evaluate, cache on"
ROUNDS = 5
ROWS = 1500
IN_FLIGHT = 128
SERVER_LIFETIME = 900
"""Seconds after which the server ends by itself."""

DSPYNB = """
import asyncio, json, sys, time, dspynb as dn
port, rows, in_flight = map(int, sys.argv[1:4])
runs = sys.argv[4] or None
dn.configure(view="off", runs_dir=runs)
predict = dn.Predict("question -> answer", lm=dn.LM("openai/m", api_base=f"http://127.0.0.1:{port}/v1"))
async def main():
    await predict.batch([{"question": f"warm {time.time()} {i}"} for i in range(64)], concurrency=in_flight)
    start = time.perf_counter()
    predictions = await predict.batch([{"question": f"{start} {i}"} for i in range(rows)], concurrency=in_flight)
    seconds = time.perf_counter() - start
    assert all(isinstance(prediction, dn.Prediction) for prediction in predictions)
    print(json.dumps(rows / seconds))
asyncio.run(main())
"""
DSPY = """
import json, sys, time, dspy
port, rows, in_flight = map(int, sys.argv[1:4])
cache = len(sys.argv) > 4
dspy.configure(lm=dspy.LM("openai/m", api_base=f"http://127.0.0.1:{port}/v1", api_key="x", cache=cache))
predict = dspy.Predict("question -> answer")
def evaluate(tag, n):
    data = [dspy.Example(question=f"{tag} {i}", answer="fine").with_inputs("question") for i in range(n)]
    return dspy.Evaluate(devset=data, metric=lambda e, p, t=None: p.answer == "fine", num_threads=in_flight,
                         display_progress=False)(predict)
evaluate(f"warm {time.time()}", 64)
start = time.perf_counter()
evaluate(str(start), rows)
print(json.dumps(rows / (time.perf_counter() - start)))
"""
AIOHTTP = """
import aiohttp, asyncio, json, sys, time
port, rows, in_flight = map(int, sys.argv[1:4])
async def main():
    slots = asyncio.Semaphore(in_flight)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        async def request():
            async with slots, session.post(f"http://127.0.0.1:{port}/v1/chat/completions", json={"x": 1}) as response:
                return await response.json()
        await asyncio.gather(*(request() for _ in range(64)))
        start = time.perf_counter()
        await asyncio.gather(*(request() for _ in range(rows)))
        print(json.dumps(rows / (time.perf_counter() - start)))
asyncio.run(main())
"""


def serve(port: multiprocessing.Queue[int]) -> None:
    """Run an OpenAI-style server that answers after 50 ms; its port goes to the queue ``port``."""
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
        await asyncio.sleep(SERVER_LIFETIME)

    asyncio.run(main())


def measure(python: str, code: str, port: int, *more: str) -> float:
    """Rows per second in a fresh process with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "DSPYNB_CACHE_DIR": folder, "DSPY_CACHEDIR": folder}
        arguments = [str(port), str(ROWS), str(IN_FLIGHT), *(argument.format(folder) for argument in more)]
        command = [python, "-c", code, *arguments]
        process = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=folder)
    return float(json.loads(process.stdout.splitlines()[-1]))


def main() -> None:
    """Measure all systems in each round, and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="the Python of an environment with dspy")
    peer = parser.parse_args().peer
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    server = context.Process(target=serve, args=(queue,), daemon=True)
    server.start()
    port = queue.get(timeout=30)
    kinds = {
        "dspynb, journal off": (sys.executable, DSPYNB, ""),
        "dspynb, journal on": (sys.executable, DSPYNB, "{}/runs"),
        DSPY_UNCACHED: (peer, DSPY),
        DSPY_CACHED: (peer, DSPY, "cache"),
        "plain aiohttp": (sys.executable, AIOHTTP),
    }
    results: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, (python, code, *more) in kinds.items():
            results[name].append(measure(python, code, port, *more))
    server.terminate()
    medians = {name: statistics.median(figures) for name, figures in results.items()}
    lines = []
    for name, median in medians.items():
        ratios = [f"{median / medians[base]:.1f}" for base in (DSPY_UNCACHED, DSPY_CACHED)]
        lines.append((name, f"{median:.0f}", *ratios, today()))
    header = ["what", "rows/s", "relative to dspy without cache", "relative to dspy with cache", "date"]
    write_results("throughput", header, lines)
    print({name: [round(f) for f in figures] for name, figures in results.items()})


if __name__ == "__main__":
    main()
