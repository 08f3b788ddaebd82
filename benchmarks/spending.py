"""What a budget costs while its limit is far: requests to a loopback server, with and without a budget of each unit.

    python benchmarks/spending.py [ROUNDS]

Two servers in a process of their own, of which one answers at once and one after 50 ms. Batches with each budget take
turns within one process, so that they have the same conditions. Writes spending.csv: rows per second (the median batch)
and the CPU time of this process for a row (the smallest of all batches, as machines are shared), and both as ratios to
the batches without a budget.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import sys
import time

from aiohttp import web
from report import today, write_results

import dspynb as dn

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 60
ROWS = 128
IN_FLIGHT = 64
LATENCIES = {"at once": 0.0, "after 50 ms": 0.05}
BUDGETS: dict[str, dn.Budget | None] = {
    "none": None,
    "calls": dn.Budget(calls=10**9),
    "tokens": dn.Budget(tokens=10**12),
    "usd": dn.Budget(usd=1e9),
    "tokens and usd": dn.Budget(tokens=10**12, usd=1e9),
    "seconds": dn.Budget(seconds=1e6),
}


def serve(ports: multiprocessing.Queue[list[int]]) -> None:
    """Run the servers; their ports go to the queue."""
    message = {"role": "assistant", "content": "[[ ## answer ## ]]\nfine\n\n[[ ## completed ## ]]"}
    usage = {"prompt_tokens": 150, "completion_tokens": 20, "total_tokens": 170}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps({"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage})

    async def start(latency: float) -> int:
        async def answer(request: web.Request) -> web.Response:
            await request.read()
            if latency:
                await asyncio.sleep(latency)
            return web.Response(text=body, content_type="application/json")

        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    async def main() -> None:
        ports.put([await start(latency) for latency in LATENCIES.values()])
        await asyncio.sleep(3600)

    asyncio.run(main())


async def measure(lm: dn.LM, budget: dn.Budget | None) -> tuple[float, float]:
    """Rows per second, and microseconds of CPU time for a row."""
    rows = [{"question": f"question {number}"} for number in range(ROWS)]
    program = dn.Predict("question -> answer", lm=lm)
    began, cpu_began = time.perf_counter(), time.process_time()
    if budget is None:
        await program.batch(rows, concurrency=IN_FLIGHT)
    else:
        with budget:
            await program.batch(rows, concurrency=IN_FLIGHT)
    cpu, seconds = time.process_time() - cpu_began, time.perf_counter() - began
    return ROWS / seconds, cpu / ROWS * 1e6


async def measured(port: int) -> dict[str, list[tuple[float, float]]]:
    """The figures of all batches, by budget."""
    address = f"http://127.0.0.1:{port}/v1"
    lm = dn.LM(
        "openai/m", api_base=address, api_key="none", cache=False, max_tokens=300, price={"input": 0.4, "output": 1.6}
    )
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in BUDGETS}
    await measure(lm, None)
    for _ in range(ROUNDS):
        for name, budget in BUDGETS.items():
            figures[name].append(await measure(lm, budget))
    return figures


def main() -> None:
    """Measure both servers, and write the table."""
    dn.configure(view="off", runs_dir=None)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    server = context.Process(target=serve, args=(queue,), daemon=True)
    server.start()
    results = []
    for latency, port in zip(LATENCIES, queue.get(timeout=60), strict=True):
        figures = asyncio.run(measured(port))
        usual_rows = statistics.median(rows for rows, _ in figures["none"])
        usual_cpu = min(cpu for _, cpu in figures["none"])
        for name, batches in figures.items():
            rows = statistics.median(rows for rows, _ in batches)
            cpu = min(cpu for _, cpu in batches)
            ratios = (f"{rows / usual_rows:.3f}", f"{cpu / usual_cpu:.3f}")
            results.append([latency, name, f"{rows:.0f}", f"{cpu:.0f}", *ratios, today()])
            print(*results[-1], flush=True)
    server.terminate()
    header = ["the server answers", "budget", "rows per second", "CPU time of a row, µs"]
    write_results("spending", [*header, "ratio of rows per second", "ratio of CPU time", "date"], results)


if __name__ == "__main__":
    main()
