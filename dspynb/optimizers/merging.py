"""Merging two lineages: of each predictor, what the one changed and the other left as their common ancestor had it.

Source: Agrawal et al. 2025, "GEPA", appendix on system-aware merge.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from dspynb.optimizers.candidate import Candidate
from dspynb.optimizers.engine import Engine
from dspynb.optimizers.pareto import front
from dspynb.scope import Part

__all__ = ["merge_parts", "merged"]

_SUBSAMPLE = 5


async def merged(
    engine: Engine, pool: Sequence[Candidate], done: set[tuple[str, str]], step: int
) -> tuple[Candidate, Candidate] | None:
    """A merged candidate that on a few validation rows is no worse than the better of the two, and that one; None where
    there is no pair with a common ancestor, or it is worse. ``done``: pairs that were tried, to be added to."""
    pair = _pair(engine, pool, done, step)
    if pair is None:
        return None
    first, second, ancestor = pair
    done.add((first.id, second.id))
    better, other = sorted(pair[:2], key=lambda c: -(engine.mean(c) or 0.0))
    child = engine.candidate(
        merge_parts(engine, ancestor, better, other), origin="merge", step=step, parents=[better, other]
    )
    if child in pool or child.origin != "merge":
        return None
    chance = engine.random("merge rows", step)
    rows = sorted(chance.sample(range(len(engine.val)), min(_SUBSAMPLE, len(engine.val))))
    own = await engine.evaluate(child, rows, step=step)
    before = max(sum(engine.scores(c)[row] for row in rows) for c in (better, other))
    return (child, better) if sum(own.scores) >= before else None


def merge_parts(engine: Engine, ancestor: Candidate, better: Candidate, other: Candidate) -> dict[str, Part]:
    """Path → Part: the other's where only it has changed what the ancestor had, else the better one's."""
    return {
        path: other.part(path) if better.part(path) == ancestor.part(path) else better.part(path)
        for path in engine.paths
    }


def _pair(
    engine: Engine, pool: Sequence[Candidate], done: set[tuple[str, str]], step: int
) -> tuple[Candidate, Candidate, Candidate] | None:
    """Two of the front, neither the other's ancestor, each of which changed something that the other did not since an
    ancestor that scores no higher than either."""
    scores = {c: engine.scores(c) for c in pool}
    listed = [c for c in pool if c in front(scores)]
    found = []
    for first, second in combinations(listed, 2):
        ancestor = _ancestor(engine, first, second)
        if ancestor is None or (first.id, second.id) in done:
            continue
        mine, theirs = (
            any(a.part(p) != ancestor.part(p) and b.part(p) == ancestor.part(p) for p in engine.paths)
            for a, b in ((first, second), (second, first))
        )
        if mine and theirs and (engine.mean(ancestor) or 0.0) <= min(engine.mean(c) or 0.0 for c in (first, second)):
            found.append((first, second, ancestor))
    return engine.random("merge", step).choice(found) if found else None


def _ancestor(engine: Engine, first: Candidate, second: Candidate) -> Candidate | None:
    """The latest ancestor of both; None where one descends from the other."""
    before = [_lineage(engine, candidate) for candidate in (first, second)]
    if first.id in before[1] or second.id in before[0]:
        return None
    common = [name for name in before[0] if name in before[1]]
    return max((engine.candidates[name] for name in common), key=lambda c: c.step, default=None)


def _lineage(engine: Engine, candidate: Candidate) -> list[str]:
    found, left = [], list(candidate.parents)
    while left:
        name = left.pop(0)
        if name not in found:
            found.append(name)
            left += engine.candidates[name].parents
    return found
