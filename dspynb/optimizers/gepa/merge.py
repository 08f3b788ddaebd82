"""Merging two lineages: of each predictor, what the one changed and the other left as their common ancestor had it.

Source: Agrawal et al. 2025, "GEPA", appendix on system-aware merge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.gepa.parent_selection import Scores, front
from dspynb.scope.candidates import Part

__all__ = ["MERGE_ROWS", "Merge", "merge_of", "merge_parts"]

MERGE_ROWS = 5
"""Validation rows that a merged candidate is tried on first, at most."""


@dataclass(frozen=True)
class Merge:
    """A merged candidate, the better one of those it came from, and the validation rows on which it has to score no
    less than either of them to be validated: ``wanted`` in all."""

    child: Candidate
    better: Candidate
    rows: list[int]
    wanted: float


def merge_of(engine: Engine, pool: Scores, done: set[tuple[str, str]], step: int) -> Merge | None:
    """A merge of two of the front; None where there is no pair with a common ancestor. ``pool``: candidates with their
    scores by validation row. ``done``: pairs that were tried, to be added to."""
    pair = _pair(engine, pool, done, step)
    if pair is None:
        return None
    first, second, ancestor = pair
    done.add((first.id, second.id))
    better, other = sorted(pair[:2], key=lambda c: -sum(pool[c].values()))
    child = engine.candidate(
        merge_parts(engine, ancestor, better, other), origin="merge", step=step, parents=[better, other]
    )
    if child in pool or child.origin != "merge":
        return None
    chance = engine.random("merge rows", step)
    rows = sorted(chance.sample(range(len(engine.val)), min(MERGE_ROWS, len(engine.val))))
    return Merge(child, better, rows, max(sum(pool[c][row] for row in rows) for c in (better, other)))


def merge_parts(engine: Engine, ancestor: Candidate, better: Candidate, other: Candidate) -> dict[str, Part]:
    """Path → Part: the other's where only it has changed what the ancestor had, else the better one's."""
    return {
        path: other.part(path) if better.part(path) == ancestor.part(path) else better.part(path)
        for path in engine.paths
    }


def _pair(
    engine: Engine, pool: Scores, done: set[tuple[str, str]], step: int
) -> tuple[Candidate, Candidate, Candidate] | None:
    """Two of the front, neither the other's ancestor, each of which changed something that the other did not since an
    ancestor that scores no higher than either, if that is known: one that was dropped or never kept has no scores."""
    best = front(pool)
    listed = [c for c in pool if c in best]
    total = {c: sum(scores.values()) for c, scores in pool.items()}
    found = []
    for first, second in combinations(listed, 2):
        ancestor = _ancestor(engine, first, second)
        if ancestor is None or (first.id, second.id) in done:
            continue
        mine, theirs = (
            any(a.part(p) != ancestor.part(p) and b.part(p) == ancestor.part(p) for p in engine.paths)
            for a, b in ((first, second), (second, first))
        )
        if mine and theirs and total.get(ancestor, -math.inf) <= min(total[first], total[second]):
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
