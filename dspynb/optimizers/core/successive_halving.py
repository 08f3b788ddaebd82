"""Racing: candidates compared on few rows first, where a budget is too small for all of them on all rows.

Source: successive halving (Karnin, Koren and Somekh 2013, "Almost Optimal Exploration in Multi-Armed Bandits", section
4; Jamieson and Talwalkar 2016) with one cut in place of many: every cut waits for the slowest rollout of its stage. All
candidates see the same rows, so that they are compared in pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine

__all__ = ["race", "stages"]

_FEWEST = 3
"""Rows of the first stage, at least."""
_KEPT = 4
"""One in so many comes through the cut, at most."""


async def race(
    engine: Engine, candidates: Sequence[Candidate], *, step: int, metric_calls: float | None = None
) -> list[tuple[Candidate, float]]:
    """Each candidate with its mean score, best first (of equal ones the first given): on all validation rows, or as far
    as it came. Those that have run on all rows before take part in no stage. ``metric_calls``: what may be spent, at
    most; what is left of the budget for None."""
    given = engine.kept(candidates)
    means = {c: mean for c in given if (mean := engine.mean(c)) is not None}
    left = [c for c in given if c not in means]
    most = engine.metric_calls_left() if metric_calls is None else min(metric_calls, engine.metric_calls_left())
    rows = list(range(len(engine.val)))
    engine.random("race").shuffle(rows)
    for keep, upto in stages(len(left), len(rows), most):
        left = left[:keep]
        asked = [engine.evaluate(c, None if upto == len(rows) else rows[:upto], step=step) for c in left]
        for candidate, task in zip(left, asked, strict=True):
            means[candidate] = (await task).mean
        left.sort(key=lambda c: -means[c])
    whole = {c for c in given if engine.mean(c) is not None}
    ranked = sorted((c for c in given if c in means), key=lambda c: (c not in whole, -means[c]))
    return [(c, means[c]) for c in ranked]


def stages(candidates: int, rows: int, metric_calls: float) -> list[tuple[int, int]]:
    """(how many candidates, on how many rows) for each stage: one stage where all fit on all rows; else all on a few
    rows, and the best of them on all, as many as can be had for half of what is spent, but no more than one in four.
    Where it is too small for that, the first of them race; where not even two can, they are evaluated one after the
    other until it is spent."""
    for few in range(candidates, 1, -1):
        if few * rows <= metric_calls:
            return [(few, rows)]
        plans = [plan for keep in range(max(1, few // _KEPT), 0, -1) if (plan := _cut(few, keep, rows, metric_calls))]
        fair = [plan for plan in plans if few * plan[0][1] >= plan[1][0] * (rows - plan[0][1])]
        if plans:
            return (fair or plans[-1:])[0]
    return [(candidates, rows)] if candidates else []


def _cut(few: int, keep: int, rows: int, metric_calls: float) -> list[tuple[int, int]]:
    """All on as many rows as leave enough for ``keep`` of them on the rest; empty where those are too few."""
    first = int((metric_calls - keep * rows) // (few - keep))
    return [(few, first), (keep, rows)] if first >= min(_FEWEST, rows) else []
