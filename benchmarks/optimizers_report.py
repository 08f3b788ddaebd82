"""The table and the plot of `optimizers.py`, made from its cells."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from optimizers_systems import CAP, SYSTEMS, System
from report import today, write_report
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
"""Columns that can be compared only if nothing else was running: they are read from optimizers_busy.csv."""
Row = dict[str, Any]


def read(cells: Path) -> list[Row]:
    with cells.open(newline="") as stream:
        return list(csv.DictReader(stream))


def report(cells: Path, seeds: Iterable[int]) -> None:
    """Write optimizers.csv and optimizers.png to the folder of the cells, and print the table."""
    chosen_seeds = {str(seed) for seed in seeds}
    rows = [row for row in read(cells) if not row["error"] and row["seed"] in chosen_seeds]
    quiet = [row for row in read(cells.with_name("optimizers_busy.csv")) if not row["error"]]
    worlds = list(dict.fromkeys((row["world"], row["predictors"]) for row in rows))
    lines = []
    for world in worlds:
        lines += compare_systems(world, rows, quiet)
    table = cells.with_name("optimizers.csv")
    if lines:
        with table.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
        write_report("optimizers")
        print(table.read_text())
    for world in worlds:
        print(medians_text(world, rows))
    if rows:
        plot(rows, quiet, worlds, cells.with_name("optimizers.png"))


def variants_of(rows: Iterable[Row], world: tuple[str, str], system: str) -> dict[str, dict[str, Row]]:
    """The rows of a system in a world: variant → seed → row."""
    variants: dict[str, dict[str, Row]] = {}
    for row in rows:
        if (row["world"], row["predictors"]) == world and row["system"] == system:
            variants.setdefault(row["variant"], {})[row["seed"]] = row
    return variants


def median_of(rows: Iterable[Row], column: str) -> float:
    return statistics.median(float(row[column]) for row in rows)


def best(variants: dict[str, dict[str, Row]]) -> tuple[str, dict[str, Row]]:
    """The variant with the best median score, among those with the most seeds; of equal variants, the fastest one."""
    most = max(len(by_seed) for by_seed in variants.values())
    complete = {name: by_seed for name, by_seed in variants.items() if len(by_seed) == most}

    def quality(name: str) -> tuple[float, float]:
        rows = complete[name].values()
        return median_of(rows, "score"), -median_of(rows, "seconds")

    name = max(complete, key=quality)
    return name, complete[name]


def compare_systems(world: tuple[str, str], rows: Sequence[Row], quiet: Sequence[Row]) -> list[Row]:
    """One line for each pair of a system of dspynb and a rival that have seeds in common."""
    lines = []
    for system in SYSTEMS:
        variants = variants_of(rows, world, system.name)
        if not variants:
            continue
        for rival in system.rivals:
            rival_variants = variants_of(rows, world, rival)
            if not rival_variants:
                continue
            line = compare_pair(world, system, rival, best(variants), best(rival_variants))
            if line:
                lines.append(line | times_of(world, line, quiet))
    return lines


def times_of(world: tuple[str, str], pair: Row, quiet: Sequence[Row]) -> Row:
    """Seconds and busy slots of a pair in the quiet cells, over the seeds that both have.

    If they have none in common, each figure is over all seeds of its side.
    """
    cells = {
        "ours": variants_of(quiet, world, pair["ours"]).get(pair["our variant"], {}),
        "rival": variants_of(quiet, world, pair["rival"]).get(pair["best variant of the rival"], {}),
    }
    common = set(cells["ours"]) & set(cells["rival"])
    line: Row = {"quiet seeds": len(common)}
    for name, column in QUIET:
        for side, by_seed in cells.items():
            rows = [row for seed, row in by_seed.items() if seed in common or not common]
            line[f"{name}, {side}"] = f"{median_of(rows, column):.4g}" if rows else ""
    return line


def compare_pair(world: tuple[str, str], system: System, rival: str, our_best: Any, rival_best: Any) -> Row:
    """The figures of a pair over the seeds that both have; empty if there are none."""
    our_variant, our_rows = our_best
    rival_variant, rival_rows = rival_best
    seeds = sorted(set(our_rows) & set(rival_rows), key=int)
    if not seeds:
        return {}
    differences = [float(our_rows[seed]["score"]) - float(rival_rows[seed]["score"]) for seed in seeds]
    low, high = interval(differences)
    line: Row = {"simulated world": world[0], "predictors": world[1], "seeds": len(seeds)}
    line |= {"ours": system.name, "our variant": our_variant, "rival": rival}
    line["best variant of the rival"] = rival_variant
    for name, column in TABLE:
        line[f"{name}, ours"] = f"{median_of((our_rows[seed] for seed in seeds), column):.4g}"
        line[f"{name}, rival"] = f"{median_of((rival_rows[seed] for seed in seeds), column):.4g}"
    line |= {"median paired difference": f"{statistics.median(differences):.3f}", "low": f"{low:.3f}"}
    return line | {"high": f"{high:.3f}", "date": today()}


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the median."""
    draws = Draws("bootstrap", len(differences))
    medians = []
    for _ in range(RESAMPLES):
        resample = [draws.choice(differences) for _ in differences]
        medians.append(statistics.median(resample))
    medians.sort()
    return medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES) - 1]


def medians_text(world: tuple[str, str], rows: Sequence[Row]) -> str:
    """The medians of all variants in a world, as text."""
    lines = [f"{world[0]} world, {world[1]} predictor(s); medians: " + ", ".join(name for name, _ in TABLE)]
    for system in SYSTEMS:
        for variant, by_seed in variants_of(rows, world, system.name).items():
            figures = "  ".join(f"{median_of(by_seed.values(), column):8.3f}" for _, column in TABLE)
            lines.append(f"  {system.name + ', ' + variant:50} {len(by_seed):3} seeds  {figures}")
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row], quiet: Sequence[Row], worlds: Sequence[tuple[str, str]], path: Path) -> None:
    """Held-out accuracy of each system with its best variant; below, the best so far against runs and against seconds.

    Seconds are shown for variants that have quiet cells.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, len(worlds), figsize=(4.8 * len(worlds), 11), squeeze=False, layout="constrained")
    for world, (boxes, by_runs, by_seconds) in zip(worlds, axes.T, strict=True):
        names: list[str] = []
        scores: list[list[float]] = []
        for system in SYSTEMS:
            variants = variants_of(rows, world, system.name)
            if not variants:
                continue
            variant, by_seed = best(variants)
            cells = list(by_seed.values())
            color = f"C{len(names)}"
            names.append(system.name)
            scores.append([float(row["score"]) for row in cells])
            by_runs.step(*mean_curve(cells, 0), where="post", label=system.name, color=color)
            timed = list(variants_of(quiet, world, system.name).get(variant, {}).values())
            if timed:
                by_seconds.step(*mean_curve(timed, 1), where="post", label=system.name, color=color)
        boxes.boxplot(scores, orientation="horizontal", tick_labels=names)
        boxes.set_title(f"simulated {world[0]} world, {world[1]} predictor(s)", fontsize=10)
        boxes.set_xlabel(f"held-out accuracy at {CAP} runs")
        by_runs.set_xlabel("runs of the program on an example")
        by_seconds.set_xlabel("seconds, with nothing else running")
        by_runs.set_ylabel("held-out accuracy of the incumbent, mean")
        by_runs.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def mean_curve(rows: Sequence[Row], axis: int) -> tuple[list[float], list[float]]:
    """The mean over seeds of the incumbent's accuracy, against runs (``axis`` 0) or seconds (1).

    If a system does not report when it found its incumbents, only its final program counts.
    """
    base = World(rows[0]["world"], int(rows[0]["predictors"]), int(rows[0]["seed"])).base()
    curves = [[(0.0, base), *steps(row, axis)] for row in rows]
    places: set[float] = set()
    for curve in curves:
        places.update(place for place, _ in curve)
    means = [statistics.mean(_height(curve, place) for curve in curves) for place in sorted(places)]
    return sorted(places), means


def _height(curve: Sequence[tuple[float, float]], place: float) -> float:
    """The accuracy of the incumbent at a place of the axis."""
    return [accuracy for at, accuracy in curve if at <= place][-1]


def steps(row: Row, axis: int) -> list[tuple[float, float]]:
    """The points where the incumbent of a cell changed, within the cap, and the end of the cell."""
    curve = json.loads(row["curve"])
    points = [(point[axis], point[2]) for point in curve if point[0] <= CAP and point[axis] is not None]
    end = (min(float(row["runs"]), CAP), float(row["seconds"]))[axis]
    last = max([end, *(place for place, _ in points)])
    return [*sorted(points), (last, float(row["score"]))]
