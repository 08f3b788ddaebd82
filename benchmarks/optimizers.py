"""Optimizers of dspynb beside those of DSPy 3.4.1 and gepa 0.1.4, in simulated worlds (see worlds.py). No real model.

    python benchmarks/optimizers.py --peer /path/to/an/environment/with/dspy/bin/python

A cell is one run of (world, predictors, seed, system, variant); it is a row of optimizers_cells.csv, written when it is
done, and a cell that is there is not run again. All cells have a cap of 400 runs of the program on an example; with one
predictor that is 400 task calls. Runs are counted by the server: what a system takes from its cache costs nothing. A
system that went over the cap is scored by the program that was its best when the cap was reached (where it tells that),
and what it spent is in the columns `runs` and `task_calls`. `--report` makes optimizers.csv and optimizers.png from the
cells that are there. Seeds 0 to 9, and from 30 on, are for tuning; the default is 10 to 29. Seconds are without
imports (cells older than the quiet ones of GEPA and SIMBA have those of a first call in them); 8 / (busy slots in all)
is how often they are those of 8 slots that are never idle.
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
FOUND = ("score", "final", "runs", "task_calls", "word_calls", "unread", "tokens", "seconds", "busy_tasks", "busy_all")
COLUMNS = (*KEY, *FOUND, "error", "curve", "date")
LONGEST = 600


def ask(port: int, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data) as reply:  # loopback
        return json.load(reply)


def run(system: System, cell: dict[str, Any], python: str, port: int) -> dict[str, Any]:
    """What the runner of a system found, in a fresh process with empty caches."""
    ask(port, "/reset", cell)
    with tempfile.TemporaryDirectory() as folder:
        caches = {"DSPY_CACHEDIR": folder, "DSPYNB_CACHE_DIR": folder, "OPENAI_API_KEY": "none-is-needed-here"}
        done = subprocess.run(
            [python, str(HERE / system.runner)],
            input=json.dumps({**cell, "port": port, "cap": CAP, "system": system.called}),
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST,
            cwd=folder,
            env={**os.environ, **caches},
        )
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:300] if done.stderr.strip() else "no output"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def scored(cell: dict[str, Any], found: dict[str, Any], stats: dict[str, Any]) -> dict[str, Any]:
    """The row of a cell: what its program is worth at the cap and at the end, and what it took."""
    world = World(cell["world"], cell["predictors"], cell["seed"])
    row = {name: cell[name] for name in KEY} | {"date": datetime.datetime.now(tz=datetime.UTC).date().isoformat()}
    row |= {name: stats[name] for name in ("runs", "task_calls", "word_calls", "unread", "tokens")}
    if "error" in found:
        return row | {"error": found["error"]}
    curve = [(runs, seconds, round(world.expected(view), 4)) for runs, seconds, view in found["curve"]]
    final = round(world.expected(found["final"]), 4)
    within = [score for runs, _, score in curve if runs <= CAP]
    at_cap = final if stats["runs"] <= CAP or not curve else (within or [round(world.base(), 4)])[-1]
    row |= {"score": at_cap, "final": final, "seconds": round(found["seconds"], 3), "curve": json.dumps(curve)}
    row["busy_tasks"] = round(stats["busy_tasks"] / max(stats["task_seconds"], 1e-9), 3)
    row["busy_all"] = round(stats["busy"] / found["seconds"], 3)
    return row


def known_cells() -> set[tuple[str, ...]]:
    """The keys of the cells that are there. Those that failed are dropped from the file: they are run again."""
    rows = [row for row in optimizers_report.read(CELLS) if not row["error"]] if CELLS.exists() else []
    with CELLS.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return {tuple(row[name] for name in KEY) for row in rows}


def wanted_cells(args: argparse.Namespace) -> list[tuple[System, dict[str, Any]]]:
    """Seeds are the outer loop: a benchmark that is stopped has whole pairs."""
    cells = []
    for seed, (world, predictors), system in itertools.product(args.seeds, args.worlds, args.systems):
        for variant, options in system.variants(predictors).items():
            if args.variants and variant not in args.variants:
                continue
            cell = {"world": world, "predictors": predictors, "seed": seed, "system": system.name}
            cells.append((system, {**cell, "variant": variant, "options": options}))
    return cells


def measure(args: argparse.Namespace) -> None:
    """Run the cells that are not there yet, one after the other."""
    known = known_cells()
    todo = [pair for pair in wanted_cells(args) if tuple(str(pair[1][name]) for name in KEY) not in known]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    server = context.Process(target=serve, args=(queue,), daemon=True)
    server.start()
    port = queue.get(timeout=60)
    for i, (system, cell) in enumerate(todo):
        python = args.peer if system.peer else sys.executable
        try:
            found = run(system, cell, python, port)
        except subprocess.TimeoutExpired:
            found = {"error": f"took longer than {LONGEST} s"}
        row = scored(cell, found, ask(port, "/stats"))
        with CELLS.open("a", newline="") as stream:
            csv.DictWriter(stream, COLUMNS).writerow(row)
        told = [*(row[name] for name in KEY), row.get("score", row.get("error")), row.get("seconds"), row["runs"]]
        print(f"{i + 1}/{len(todo)}", *told, flush=True)
    server.terminate()


def seeds_in(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def worlds_in(text: str) -> list[tuple[str, int]]:
    return [(name[:-1], int(name[-1])) for name in text.split(",")]


def systems_in(text: str) -> list[System]:
    chosen = [system for system in SYSTEMS if any(part in system.name for part in text.split(","))]
    if not chosen:
        raise SystemExit("systems: " + ", ".join(system.name for system in SYSTEMS))
    return chosen


def main() -> None:
    """Measure what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="the Python of an environment with dspy[optuna] and gepa")
    parser.add_argument("--seeds", type=seeds_in, default="10-29")
    parser.add_argument("--worlds", type=worlds_in, default="rule1,rule3,demo1,demo3")
    parser.add_argument("--systems", type=systems_in, default="COPRO,MIPROv2,random search", help="parts of names")
    parser.add_argument("--variants", type=lambda text: text.split(";"), help="only these; divided by semicolons")
    parser.add_argument("--report", action="store_true", help="only make table and plot of the cells that are there")
    args = parser.parse_args()
    if not args.report:
        if any(system.peer for system in args.systems) and not args.peer:
            parser.error("--peer is needed for systems of DSPy and gepa")
        measure(args)
    optimizers_report.report(CELLS, args.seeds)


if __name__ == "__main__":
    main()
