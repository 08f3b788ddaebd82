"""Optimizers of dspynb compared with those of DSPy 3.4.1 and gepa 0.1.4, in simulated worlds (see worlds.py).

    python benchmarks/optimizers.py --peer /path/to/an/environment/with/dspy/bin/python

There is no real model. A cell is one run of (world, predictors, seed, system, variant). Its row is written to
optimizers_cells.csv when the cell is done; a cell that is already there is not run again. Each cell may run the program
on at most 400 examples; with one predictor these are 400 task calls. The server counts the runs, so a result from a
system's own cache costs nothing. If a system exceeds the cap, its score is that of its best program when the cap was
reached (if the system reports it); the columns `runs` and `task_calls` show what it spent in total.

`--report` makes optimizers.csv and optimizers.png from the existing cells. Seeds 0 to 9, and 30 and above, are for
tuning; the default is 10 to 29. Seconds do not include imports. (They include those of a first call in cells that are
older than the quiet cells of GEPA and SIMBA.) 8 / (busy slots in all) is the time relative to 8 slots that are always
busy.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import optimizers_report
from optimizers_systems import CAP, SYSTEMS, System
from worlds import World
from worlds_server import serve

HERE = Path(__file__).parent
CELLS = HERE / "optimizers_cells.csv"
KEY = ("world", "predictors", "seed", "system", "variant")
RESULTS = (
    "score",
    "final",
    "runs",
    "task_calls",
    "word_calls",
    "unread",
    "tokens",
    "seconds",
    "busy_tasks",
    "busy_all",
)
COLUMNS = (*KEY, *RESULTS, "error", "curve", "date")
TIMEOUT = 600


def ask(port: int, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data) as reply:  # loopback
        return json.load(reply)


def run_cell(system: System, cell: dict[str, Any], python: str, port: int) -> dict[str, Any]:
    """Run the runner of a system in a fresh process with empty caches, and return its result or its error."""
    ask(port, "/reset", cell)
    with tempfile.TemporaryDirectory() as folder:
        caches = {"DSPY_CACHEDIR": folder, "DSPYNB_CACHE_DIR": folder, "OPENAI_API_KEY": "none-is-needed-here"}
        process = subprocess.run(
            [python, str(HERE / system.runner)],
            input=json.dumps({**cell, "port": port, "cap": CAP, "system": system.runner_name}),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
            cwd=folder,
            env={**os.environ, **caches},
        )
    if process.returncode:
        error_lines = process.stderr.strip().splitlines() or ["no output"]
        return {"error": error_lines[-1][:300]}
    return dict(json.loads(process.stdout.splitlines()[-1]))


def cell_row(cell: dict[str, Any], result: dict[str, Any], stats: dict[str, Any]) -> dict[str, Any]:
    """The CSV row of a cell: the accuracy of its program at the cap and at the end, and what the run used."""
    world = World(cell["world"], cell["predictors"], cell["seed"])
    row = {name: cell[name] for name in KEY} | {"date": datetime.datetime.now(tz=datetime.UTC).date().isoformat()}
    row |= {name: stats[name] for name in ("runs", "task_calls", "word_calls", "unread", "tokens")}
    if "error" in result:
        return row | {"error": result["error"]}
    curve = [(runs, seconds, round(world.expected(view), 4)) for runs, seconds, view in result["curve"]]
    final = round(world.expected(result["final"]), 4)
    score = final
    if stats["runs"] > CAP and curve:
        within_cap = [accuracy for runs, _, accuracy in curve if runs <= CAP]
        score = within_cap[-1] if within_cap else round(world.base(), 4)
    row |= {"score": score, "final": final, "seconds": round(result["seconds"], 3), "curve": json.dumps(curve)}
    row["busy_tasks"] = round(stats["busy_tasks"] / max(stats["task_seconds"], 1e-9), 3)
    row["busy_all"] = round(stats["busy"] / result["seconds"], 3)
    return row


def finished_cells() -> set[tuple[str, ...]]:
    """The keys of the cells that are already measured. Drops failed cells from the file, so that they run again."""
    rows = []
    if CELLS.exists():
        rows = [row for row in optimizers_report.read(CELLS) if not row["error"]]
    with CELLS.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return {tuple(row[name] for name in KEY) for row in rows}


def requested_cells(args: argparse.Namespace) -> list[tuple[System, dict[str, Any]]]:
    """The cells of the command line. Seeds are the outer loop, so that a stopped benchmark has complete pairs."""
    cells = []
    for seed, (world, predictors), system in itertools.product(args.seeds, args.worlds, args.systems):
        for variant, options in system.variants(predictors).items():
            if args.variants and variant not in args.variants:
                continue
            cell = {"world": world, "predictors": predictors, "seed": seed, "system": system.name}
            cells.append((system, {**cell, "variant": variant, "options": options}))
    return cells


def measure(args: argparse.Namespace) -> None:
    """Run the cells that are not measured yet, one after the other."""
    finished = finished_cells()
    pending = []
    for system, cell in requested_cells(args):
        if tuple(str(cell[name]) for name in KEY) not in finished:
            pending.append((system, cell))
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    server = context.Process(target=serve, args=(queue,), daemon=True)
    server.start()
    port = queue.get(timeout=60)
    for number, (system, cell) in enumerate(pending, start=1):
        python = args.peer if system.peer else sys.executable
        try:
            result = run_cell(system, cell, python, port)
        except subprocess.TimeoutExpired:
            result = {"error": f"took longer than {TIMEOUT} s"}
        row = cell_row(cell, result, ask(port, "/stats"))
        with CELLS.open("a", newline="") as stream:
            csv.DictWriter(stream, COLUMNS).writerow(row)
        key = [row[name] for name in KEY]
        score = row.get("score", row.get("error"))
        print(f"{number}/{len(pending)}", *key, score, row.get("seconds"), row["runs"], flush=True)
    server.terminate()


def parse_seeds(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def parse_worlds(text: str) -> list[tuple[str, int]]:
    return [(name[:-1], int(name[-1])) for name in text.split(",")]


def parse_systems(text: str) -> list[System]:
    chosen = [system for system in SYSTEMS if any(part in system.name for part in text.split(","))]
    if not chosen:
        raise SystemExit("systems: " + ", ".join(system.name for system in SYSTEMS))
    return chosen


def main() -> None:
    """Measure the missing cells, then write table and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="the Python of an environment with dspy[optuna] and gepa")
    parser.add_argument("--seeds", type=parse_seeds, default="10-29")
    parser.add_argument("--worlds", type=parse_worlds, default="rule1,rule3,demo1,demo3")
    parser.add_argument("--systems", type=parse_systems, default="COPRO,MIPROv2,random search", help="parts of names")
    parser.add_argument(
        "--variants", type=lambda text: text.split(";"), help="only these variants, separated by semicolons"
    )
    parser.add_argument("--report", action="store_true", help="only make table and plot from the existing cells")
    args = parser.parse_args()
    if not args.report:
        if any(system.peer for system in args.systems) and not args.peer:
            parser.error("--peer is needed for systems of DSPy and gepa")
        measure(args)
    optimizers_report.report(CELLS, args.seeds)


if __name__ == "__main__":
    main()
