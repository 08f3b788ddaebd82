"""How many of the children that GEPA accepts are truly no better than their parent, in the simulated rule world.

    python benchmarks/accepted.py

A child is accepted when it goes on to the validation rows; what it and its parent are worth is computed (see
worlds.py). Writes accepted.csv. Seeds 10 to 29, as in optimizers.py.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import tempfile
from typing import Any

from optimizers import ask
from optimizers_systems import CAP
from report import today, written
from worlds_dspynb import compiled, told
from worlds_server import serve

SETTINGS = {
    "minibatch 3 (default)": {},
    "minibatch 3, without confirm": {"confirm": 0},
    "minibatch 16, 12 rows": {"minibatch": 16, "val": 12},
    "minibatch 14, 8 rows, 4 in flight": {"minibatch": 14, "val": 8, "in_flight": 4, "recall": 60},
}


async def children(cell: dict[str, Any]) -> list[bool]:
    """Of each accepted child, whether it is better than its parent."""
    world, program, run, _ = await compiled(cell)
    record, paths = run.record, [path for path, _ in program.named_predictors()]
    start = next(iter(record.candidates.values()))

    def worth(name: str) -> float:
        return world.expected(told(world, start.parts, record.candidates[name].parts, paths))

    tried = {candidate for candidate, split in record.rollouts_by_candidate if split == "val"}
    accepted = [c for name, c in record.candidates.items() if c.origin == "reflection" and name in tried]
    return [worth(child.id) > worth(child.parents[0]) for child in accepted]


def main() -> None:
    """Count, and write."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    server = context.Process(target=serve, args=(queue,), daemon=True)
    server.start()
    port, rows = queue.get(timeout=60), []
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
    written("accepted", ["predictors", "settings", "accepted", "no better than the parent", "share", "date"], rows)


if __name__ == "__main__":
    main()
