"""The table and the plot of `optimizers.py`, from its cells."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from optimizers_systems import CAP, SYSTEMS, System
from report import today, told
from worlds import Draws, World

RESAMPLES = 4000
TABLE = (
    ("held-out", "score"),
    ("runs", "runs"),
    ("task calls", "task_calls"),
)
QUIET = (
    ("seconds", "seconds"),
    ("busy slots evaluating", "busy_tasks"),
    ("busy slots in all", "busy_all"),
)
"""What is only fair where nothing else ran: read from the cells of optimizers_busy.csv, where both have some."""
Row = dict[str, Any]


def read(cells: Path) -> list[Row]:
    with cells.open(newline="") as stream:
        return list(csv.DictReader(stream))


def report(cells: Path, seeds: Iterable[int]) -> None:
    """Write optimizers.csv and optimizers.png beside the cells; print the table."""
    wanted = {str(seed) for seed in seeds}
    rows, quiet = (
        [r for r in read(path) if not r["error"]] for path in (cells, cells.with_name("optimizers_busy.csv"))
    )
    rows = [row for row in rows if row["seed"] in wanted]
    worlds = list(dict.fromkeys((row["world"], row["predictors"]) for row in rows))
    lines = [line for world in worlds for line in compared(world, rows, quiet)]
    table = cells.with_name("optimizers.csv")
    if lines:
        with table.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
        told("optimizers")
        print(table.read_text())
    for world in worlds:
        print(medians(world, rows))
    if rows:
        plot(rows, quiet, worlds, cells.with_name("optimizers.png"))


def of(rows: Iterable[Row], world: tuple[str, str], system: str) -> dict[str, dict[str, Row]]:
    """Variant to seed to row."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        if (row["world"], row["predictors"]) == world and row["system"] == system:
            found.setdefault(row["variant"], {})[row["seed"]] = row
    return found


def middle(rows: Iterable[Row], column: str) -> float:
    return statistics.median(float(row[column]) for row in rows)


def best(variants: dict[str, dict[str, Row]]) -> tuple[str, dict[str, Row]]:
    """The variant with the best median among those with the most seeds (of equals the quickest)."""
    most = max(len(by_seed) for by_seed in variants.values())
    whole = {name: by_seed for name, by_seed in variants.items() if len(by_seed) == most}
    key = {name: (middle(r.values(), "score"), -middle(r.values(), "seconds")) for name, r in whole.items()}
    name = max(key, key=lambda name: key[name])
    return name, whole[name]


def compared(world: tuple[str, str], rows: Sequence[Row], quiet: Sequence[Row]) -> list[Row]:
    """A line for each pair of ours and a rival that has seeds in common."""
    lines = []
    for system in SYSTEMS:
        ours = of(rows, world, system.name)
        for rival in system.rivals if ours else ():
            theirs = of(rows, world, rival)
            if theirs:
                lines.append(line(world, system, rival, best(ours), best(theirs)))
                lines[-1] |= hurried(world, lines[-1], quiet)
    return [found for found in lines if found]


def hurried(world: tuple[str, str], pair: Row, quiet: Sequence[Row]) -> Row:
    """Seconds and busy slots of a pair in the quiet cells: over the seeds that both have, else over what each has."""
    sides = [
        of(quiet, world, pair[name]).get(pair[variant], {}) if pair else {}
        for name, variant in (("ours", "our variant"), ("rival", "best variant of the rival"))
    ]
    both = set(sides[0]) & set(sides[1])
    found: Row = {"quiet seeds": len(both)} if pair else {}
    for name, column in QUIET if pair else ():
        for whose, side in zip(("ours", "rival"), sides, strict=True):
            rows = [row for seed, row in side.items() if seed in both or not both]
            found[f"{name}, {whose}"] = f"{middle(rows, column):.4g}" if rows else ""
    return found


def line(world: tuple[str, str], system: System, rival: str, ours: Any, theirs: Any) -> Row:
    """The figures of a pair, over the seeds that both have."""
    seeds = sorted(set(ours[1]) & set(theirs[1]), key=int)
    if not seeds:
        return {}
    pairs = [(ours[1][seed], theirs[1][seed]) for seed in seeds]
    differences = [float(a["score"]) - float(b["score"]) for a, b in pairs]
    low, high = interval(differences)
    found: Row = {"simulated world": world[0], "predictors": world[1], "seeds": len(seeds)}
    found |= {"ours": system.name, "our variant": ours[0], "rival": rival, "best variant of the rival": theirs[0]}
    for name, column in TABLE:
        found[f"{name}, ours"] = f"{middle((a for a, _ in pairs), column):.4g}"
        found[f"{name}, rival"] = f"{middle((b for _, b in pairs), column):.4g}"
    found |= {"median paired difference": f"{statistics.median(differences):.3f}", "low": f"{low:.3f}"}
    return found | {"high": f"{high:.3f}", "date": today()}


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the median."""
    draws, n = Draws("bootstrap", len(differences)), len(differences)
    seen = sorted(statistics.median(draws.choice(differences) for _ in range(n)) for _ in range(RESAMPLES))
    return seen[int(0.025 * RESAMPLES)], seen[int(0.975 * RESAMPLES) - 1]


def medians(world: tuple[str, str], rows: Sequence[Row]) -> str:
    """All variants of a world in lines of text."""
    lines = [f"{world[0]} world, {world[1]} predictor(s); medians: " + ", ".join(name for name, _ in TABLE)]
    for system in SYSTEMS:
        for variant, by_seed in of(rows, world, system.name).items():
            figures = "  ".join(f"{middle(by_seed.values(), column):8.3f}" for _, column in TABLE)
            lines.append(f"  {system.name + ', ' + variant:50} {len(by_seed):3} seeds  {figures}")
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row], quiet: Sequence[Row], worlds: Sequence[tuple[str, str]], path: Path) -> None:
    """Held-out accuracy by system (its best variant); below, best-so-far against runs and, where that variant has quiet
    cells, against seconds."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, len(worlds), figsize=(4.8 * len(worlds), 11), squeeze=False, layout="constrained")
    for world, (boxes, by_runs, by_seconds) in zip(worlds, axes.T, strict=True):
        variants = {s.name: best(v) for s in SYSTEMS if (v := of(rows, world, s.name))}
        chosen = {name: list(found.values()) for name, (_, found) in variants.items()}
        scores = [[float(row["score"]) for row in found] for found in chosen.values()]
        boxes.boxplot(scores, orientation="horizontal", tick_labels=list(chosen))
        boxes.set_title(f"simulated {world[0]} world, {world[1]} predictor(s)", fontsize=10)
        boxes.set_xlabel(f"held-out accuracy at {CAP} runs")
        for i, (name, found) in enumerate(chosen.items()):
            by_runs.step(*mean_curve(found, 0), where="post", label=name, color=f"C{i}")
            if timed := list(of(quiet, world, name).get(variants[name][0], {}).values()):
                by_seconds.step(*mean_curve(timed, 1), where="post", label=name, color=f"C{i}")
        by_runs.set_xlabel("runs of the program on an example")
        by_seconds.set_xlabel("seconds, with nothing else running")
        by_runs.set_ylabel("held-out accuracy of the incumbent, mean")
        by_runs.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def mean_curve(rows: Sequence[Row], axis: int) -> tuple[list[float], list[float]]:
    """The mean over seeds of the incumbent's accuracy against runs (0) or seconds (1).

    Where a system does not tell when it found its incumbents, only its end counts.
    """
    begin = World(rows[0]["world"], int(rows[0]["predictors"]), int(rows[0]["seed"])).base()
    curves = [[(0.0, begin), *steps(row, axis)] for row in rows]
    places = sorted({at for curve in curves for at, _ in curve})
    heights = [[[score for at, score in curve if at <= place][-1] for curve in curves] for place in places]
    return places, [statistics.mean(now) for now in heights]


def steps(row: Row, axis: int) -> list[tuple[float, float]]:
    """Where a cell's incumbent changed, within the cap, and its end."""
    points = [
        (point[axis], point[2]) for point in json.loads(row["curve"]) if point[0] <= CAP and point[axis] is not None
    ]
    end = (min(float(row["runs"]), CAP), float(row["seconds"]))[axis]
    return [*sorted(points), (max([end, *(at for at, _ in points)]), float(row["score"]))]
