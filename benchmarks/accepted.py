"""How many of the children that GEPA accepts are in fact no better than their parent, in the simulated rule world.

    python benchmarks/accepted.py

A child is accepted when it is evaluated on the validation rows. The true accuracy of the child and of its parent is
computed (see worlds.py). Writes accepted.csv. Seeds 10 to 29, as in optimizers.py.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import tempfile
from typing import Any

from optimizers import ask
from optimizers_systems import CAP
from report import today, write_results
from worlds_dspynb import candidate_view, compile_program
from worlds_server import serve

SETTINGS = {
    "minibatch 3 (default)": {},
    "minibatch 3, without confirm": {"confirm": 0},
    "minibatch 16, 12 rows": {"minibatch": 16, "val": 12},
    "minibatch 14, 8 rows, 4 in flight": {"minibatch": 14, "val": 8, "in_flight": 4, "recall": 60},
}


async def children(cell: dict[str, Any]) -> list[bool]:
    """For each accepted child, whether it is better than its parent."""
    world, program, run, _ = await compile_program(cell)
    candidates = run.record.candidates
    paths = [path for path, _ in program.named_predictors()]
    start = next(iter(candidates.values()))

    def accuracy(name: str) -> float:
        return world.expected(candidate_view(world, start.parts, candidates[name].parts, paths))

    validated = {candidate for candidate, split in run.record.rollouts_by_candidate if split == "val"}
    accepted = [c for name, c in candidates.items() if c.origin == "reflection" and name in validated]
    return [accuracy(child.id) > accuracy(child.parents[0]) for child in accepted]


def main() -> None:
    """Count the children for all settings, and write the table."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    server = context.Process(target=serve, args=(queue,), daemon=True)
    server.start()
    port = queue.get(timeout=60)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"DSPYNB_CACHE_DIR": folder, "OPENAI_API_KEY": "none-is-needed-here"}
        for predictors in (1, 3):
            for name, options in SETTINGS.items():
                better: list[bool] = []
                for seed in range(10, 30):
                    cell = {"world": "rule", "predictors": predictors, "seed": seed, "system": "GEPA", "cap": CAP}
                    ask(port, "/reset", cell)
                    better += asyncio.run(children({**cell, "port": port, "options": options}))
                worse = len(better) - sum(better)
                rows.append([predictors, name, len(better), worse, f"{worse / len(better):.1%}", today()])
                print(*rows[-1], flush=True)
    server.terminate()
    header = ["predictors", "settings", "accepted", "no better than the parent", "share", "date"]
    write_results("accepted", header, rows)


if __name__ == "__main__":
    main()
