"""GEPA's default sizes compared with sizes that fit the budget, in the simulated rule world (see worlds.py).

    python benchmarks/sizes.py --peer /path/to/an/environment/with/dspy/bin/python

There is no real model. The program has one predictor, and runs at most 400 times; there are 8 seeds. dspynb and gepa
have 60 validation rows and minibatches of 3 by default. This is compared with 30 validation rows and minibatches of 6,
for dspynb's GEPA, gepa 0.1.4 and dspy.GEPA. Writes sizes.csv: the median of the held-out accuracy. The
cells run as in optimizers.py, with seeds that it does not report. Lines that are already in sizes.csv are not measured
again; delete the file to start over.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
from typing import Any

from optimizers import HERE, ask, cell_row, parse_seeds, run_cell
from optimizers_systems import SYSTEMS, System
from report import read, today, write_results
from worlds_server import serve

VARIANTS = {"60 rows, minibatch 3": {"minibatch": 3}, "30 rows, minibatch 6": {"minibatch": 6, "val": 30}}
NAMES = ("dspynb GEPA", "gepa GEPA", "dspy GEPA")
HEADER = ["system and sizes", "held-out, median", "lowest", "highest", "seeds", "date"]


def scores(system: System, variant: str, seeds: list[int], python: str, port: int) -> list[float]:
    """Held-out accuracy at the cap, one value per seed."""
    options: dict[str, Any] = dict(VARIANTS[variant])
    if system.runner == "worlds_gepa.py":
        options |= {"parents": 1, "each": 1}
    results = []
    for seed in seeds:
        cell = {"world": "rule", "predictors": 1, "seed": seed, "system": system.name, "variant": variant}
        cell["options"] = options
        row = cell_row(cell, run_cell(system, cell, python, port), ask(port, "/stats"))
        if "error" in row:
            raise SystemExit(f"{system.name}, {variant}, seed {seed}: {row['error']}")
        results.append(float(row["score"]))
    return results


def main() -> None:
    """Measure each system with both sizes, and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default=sys.executable, help="the Python of an environment with dspy and gepa")
    parser.add_argument("--seeds", type=parse_seeds, default="30-37")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    server = context.Process(target=serve, args=(queue,), daemon=True)
    server.start()
    port = queue.get(timeout=60)
    lines: list[list[str]] = []
    if (HERE / "sizes.csv").exists():
        lines = [list(row.values()) for row in read("sizes")]
    measured = {line[0] for line in lines}
    systems = {system.name: system for system in SYSTEMS}
    for name in NAMES:
        system = systems[name]
        for variant in VARIANTS:
            label = f"{system.name}, {variant}"
            if label in measured:
                continue
            python = args.peer if system.peer else sys.executable
            cells = scores(system, variant, args.seeds, python, port)
            figures = [statistics.median(cells), min(cells), max(cells)]
            lines.append([label, *(f"{figure:.3f}" for figure in figures), str(len(cells)), today()])
            write_results("sizes", HEADER, lines)
    server.terminate()


if __name__ == "__main__":
    main()
