"""Racing: candidates compared on few rows first, where a budget is too small for all of them on all rows.

Source: successive halving (Karnin, Koren and Somekh 2013, "Almost Optimal Exploration in Multi-Armed Bandits", section
4; Jamieson and Talwalkar 2016). All candidates see the same rows, so that they are compared in pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dspynb.optimizers.candidate import Candidate
from dspynb.optimizers.engine import Engine

__all__ = ["race", "stages"]

_FEWEST = 3
"""Rows of the first stage, at least."""


async def race(
    engine: Engine, candidates: Sequence[Candidate], *, step: int, metric_calls: float | None = None
) -> list[tuple[Candidate, float]]:
    """Each candidate with its mean score, best first (of equal ones the first given): on all validation rows, or as far
    as it came. ``metric_calls``: what may be spent, at most; what is left of the budget for None."""
    left = list(dict.fromkeys(candidates))
    most = engine.metric_calls_left() if metric_calls is None else min(metric_calls, engine.metric_calls_left())
    rows = list(range(len(engine.val)))
    engine.random("race").shuffle(rows)
    means: dict[Candidate, float] = {}
    plan = stages(len(left), len(rows), most)
    for stage, (keep, upto) in enumerate(plan):
        left = left[:keep]
        last = stage == len(plan) - 1
        asked = [engine.evaluate(c, None if last and upto == len(rows) else rows[:upto], step=step) for c in left]
        for candidate, task in zip(left, asked, strict=True):
            means[candidate] = (await task).mean
        left.sort(key=lambda c: -means[c])
    dropped = [c for c in dict.fromkeys(candidates) if c in means and c not in left]
    return [(c, means[c]) for c in [*left, *sorted(dropped, key=lambda c: -means[c])]]


def stages(candidates: int, rows: int, metric_calls: float) -> list[tuple[int, int]]:
    """(how many candidates, on how many rows) for each stage: one stage where all fit on all rows; else the better half
    goes on to twice as many rows, from as many as the budget lets them begin with. Where it is too small for a race of
    all, the first of them race; where not even two can, they are evaluated one after the other until it is spent."""
    for first_few in range(candidates, 1, -1):
        if plan := _affordable(first_few, rows, metric_calls):
            return plan
    return [(candidates, rows)]


def _affordable(candidates: int, rows: int, metric_calls: float) -> list[tuple[int, int]]:
    if candidates * rows <= metric_calls:
        return [(candidates, rows)]
    best: list[tuple[int, int]] = []
    for first in range(_FEWEST, rows + 1):
        plan = _halving(candidates, rows, first)
        if _cost(plan) > metric_calls:
            break
        best = plan
    return best


def _halving(candidates: int, rows: int, first: int) -> list[tuple[int, int]]:
    plan, keep, upto = [(candidates, first)], candidates, first
    while upto < rows:
        keep, upto = max(1, math.ceil(keep / 2)), min(rows, 2 * upto)
        plan.append((keep, rows if keep == 1 else upto))
        upto = plan[-1][1]
    return plan


def _cost(plan: Sequence[tuple[int, int]]) -> int:
    before = 0
    total = 0
    for keep, upto in plan:
        total += keep * (upto - before)
        before = upto
    return total
