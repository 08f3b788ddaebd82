"""Successive halving: candidates are compared on a few rows first where the budget is too small for all on all rows.

Source: successive halving (Karnin, Koren and Somekh 2013, "Almost Optimal Exploration in Multi-Armed Bandits", section
4; Jamieson and Talwalkar 2016) with one cut instead of many, since every cut waits for the slowest rollout of its
stage. All candidates see the same rows, so that they are compared in pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine

__all__ = ["plan_stages", "race"]

_MIN_ROWS = 3
"""The least number of rows in the first stage."""
_CUT = 4
"""At most one in this many candidates goes on to the second stage."""


async def race(
    engine: Engine, candidates: Sequence[Candidate], *, step: int, metric_calls: float | None = None
) -> list[tuple[Candidate, float]]:
    """Evaluate candidates in stages. Returns each with its mean score, best first; ties keep the order of the argument.

    The mean is taken over all validation rows, or over the rows of the last stage of a candidate. Those that have run
    on all rows before take part in no stage. ``metric_calls``: what may be spent at most; None for what is left of the
    budget.
    """
    entrants = engine.active(candidates)
    means: dict[Candidate, float] = {}
    for candidate in entrants:
        mean = engine.mean(candidate)
        if mean is not None:
            means[candidate] = mean
    racing = [c for c in entrants if c not in means]
    limit = engine.metric_calls_left()
    if metric_calls is not None:
        limit = min(metric_calls, limit)
    rows = list(range(len(engine.val)))
    engine.random("race").shuffle(rows)
    for count, row_count in plan_stages(len(racing), len(rows), limit):
        racing = racing[:count]
        stage_rows = None if row_count == len(rows) else rows[:row_count]
        tasks = [engine.evaluate(c, stage_rows, step=step) for c in racing]
        for candidate, task in zip(racing, tasks, strict=True):
            means[candidate] = (await task).mean
        racing.sort(key=lambda c: -means[c])
    complete = {c for c in entrants if engine.mean(c) is not None}
    ranked = sorted((c for c in entrants if c in means), key=lambda c: (c not in complete, -means[c]))
    return [(c, means[c]) for c in ranked]


def plan_stages(candidates: int, rows: int, metric_calls: float) -> list[tuple[int, int]]:
    """The stages of a race, as pairs (number of candidates, number of rows).

    One stage where all candidates fit on all rows. Otherwise two: all on a few rows, then the best of them on all rows.
    The second stage has as many candidates as half of what is spent allows, but at most one in four. Where the budget
    is too small even for that, only the first candidates race. Where not even two can race, they are evaluated one
    after the other until the budget is spent.
    """
    for count in range(candidates, 1, -1):
        if count * rows <= metric_calls:
            return [(count, rows)]
        plans = []
        for finalists in range(max(1, count // _CUT), 0, -1):
            plan = _two_stages(count, finalists, rows, metric_calls)
            if plan:
                plans.append(plan)
        for plan in plans:
            (_, first_rows), (finalists, _) = plan
            if count * first_rows >= finalists * (rows - first_rows):  # the first stage has at least half
                return plan
        if plans:
            return plans[-1]
    return [(candidates, rows)] if candidates else []


def _two_stages(count: int, finalists: int, rows: int, metric_calls: float) -> list[tuple[int, int]]:
    """All candidates on as many rows as leave room for the finalists on the others; empty where those are too few."""
    first_rows = int((metric_calls - finalists * rows) // (count - finalists))
    if first_rows < min(_MIN_ROWS, rows):
        return []
    return [(count, first_rows), (finalists, rows)]
