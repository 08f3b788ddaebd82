"""GEPA's default sizes beside sizes that fit the budget, in the simulated rule world (see worlds.py). No real model.

    python benchmarks/sizes.py --peer /path/to/an/environment/with/dspy/bin/python

One predictor, 400 runs of the program at most, 8 seeds: 60 validation rows and minibatches of 3, which are the defaults
here and in gepa, against 30 validation rows and minibatches of 6; each for our GEPA, gepa 0.1.4 and dspy.GEPA. Writes
sizes.csv: the median of the held-out accuracy. The cells are run as in optimizers.py, on seeds that it does not report.
A line that sizes.csv has is not measured again; delete the file to begin anew.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
from typing import Any

from optimizers import HERE, ask, run, scored, seeds_in
from optimizers_systems import SYSTEMS, System
from report import read, today, written
from worlds_server import serve

VARIANTS = {"60 rows, minibatch 3": {"minibatch": 3}, "30 rows, minibatch 6": {"minibatch": 6, "val": 30}}
NAMES = ("dspynb GEPA", "gepa GEPA", "dspy GEPA")
HEADER = ["system and sizes", "held-out, median", "lowest", "highest", "seeds", "date"]


def scores(system: System, variant: str, seeds: list[int], python: str, port: int) -> list[float]:
    """Held-out accuracy at the cap, by seed."""
    options: dict[str, Any] = dict(VARIANTS[variant])
    if system.runner == "worlds_gepa.py":
        options |= {"parents": 1, "each": 1}
    results = []
    for seed in seeds:
        cell = {"world": "rule", "predictors": 1, "seed": seed, "system": system.name, "variant": variant}
        cell["options"] = options
        row = scored(cell, run(system, cell, python, port), ask(port, "/stats"))
        if "error" in row:
            raise SystemExit(f"{system.name}, {variant}, seed {seed}: {row['error']}")
        results.append(float(row["score"]))
    return results


def main() -> None:
    """Measure each system with both sizes; write the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default=sys.executable, help="the Python of an environment with dspy and gepa")
    parser.add_argument("--seeds", type=seeds_in, default="30-37")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    server = context.Process(target=serve, args=(queue,), daemon=True)
    server.start()
    port = queue.get(timeout=60)
    lines = [list(row.values()) for row in read("sizes")] if (HERE / "sizes.csv").exists() else []
    known = {line[0] for line in lines}
    for system in (s for name in NAMES for s in SYSTEMS if s.name == name):
        for variant in VARIANTS:
            label = f"{system.name}, {variant}"
            if label in known:
                continue
            cells = scores(system, variant, args.seeds, args.peer if system.peer else sys.executable, port)
            middle, low, high = statistics.median(cells), min(cells), max(cells)
            lines.append([label, f"{middle:.3f}", f"{low:.3f}", f"{high:.3f}", str(len(cells)), today()])
            written("sizes", HEADER, lines)
    server.terminate()


if __name__ == "__main__":
    main()
