"""Merging two lineages: each predictor is taken from the lineage that changed it since their common ancestor.

Source: Agrawal et al. 2025, "GEPA", appendix on system-aware merge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.gepa.parent_selection import Scores, pareto_front
from dspynb.scope.candidates import Part

__all__ = ["MERGE_ROWS", "Merge", "merge_parts", "next_merge"]

MERGE_ROWS = 5
"""A merged candidate runs on so many validation rows first, at most."""


@dataclass(frozen=True)
class Merge:
    """A merged candidate. ``better``: the better one of its parents. It is validated where its scores on ``rows``
    (validation rows) sum to ``required_score`` at least: the higher one of its parents' sums."""

    child: Candidate
    better: Candidate
    rows: list[int]
    required_score: float


def next_merge(engine: Engine, pool: Scores, merged_pairs: set[tuple[str, str]], step: int) -> Merge | None:
    """Merge two candidates of the Pareto front; None where no pair has a common ancestor.

    ``pool``: candidate → validation row → score. ``merged_pairs``: ids of the pairs merged before; the new pair is
    added.
    """
    pair = _draw_pair(engine, pool, merged_pairs, step)
    if pair is None:
        return None
    first, second, ancestor = pair
    merged_pairs.add((first.id, second.id))
    better, other = sorted((first, second), key=lambda c: -sum(pool[c].values()))
    parts = merge_parts(engine, ancestor, better, other)
    child = engine.candidate(parts, origin="merge", step=step, parents=[better, other])
    if child in pool or child.origin != "merge":
        return None
    rng = engine.random("merge rows", step)
    rows = sorted(rng.sample(range(len(engine.val)), min(MERGE_ROWS, len(engine.val))))
    required_score = max(_total(pool[better], rows), _total(pool[other], rows))
    return Merge(child, better, rows, required_score)


def _total(scores: Mapping[int, float], rows: list[int]) -> float:
    return sum(scores[row] for row in rows)


def merge_parts(engine: Engine, ancestor: Candidate, better: Candidate, other: Candidate) -> dict[str, Part]:
    """Path → Part: from ``other`` where only it differs from the ancestor, else from ``better``."""
    parts = {}
    for path in engine.paths:
        source = other if better.part(path) == ancestor.part(path) else better
        parts[path] = source.part(path)
    return parts


def _draw_pair(
    engine: Engine, pool: Scores, merged_pairs: set[tuple[str, str]], step: int
) -> tuple[Candidate, Candidate, Candidate] | None:
    """Draw two candidates of the front and their common ancestor.

    Neither is the other's ancestor, and each has a change since the ancestor to a predictor that the other left alone.
    The ancestor scores no higher than either; one that is not in the pool (dropped, or never accepted) has no scores,
    and may be any.
    """
    front = pareto_front(pool)
    totals = {candidate: sum(scores.values()) for candidate, scores in pool.items()}
    pairs = []
    for first, second in combinations([c for c in pool if c in front], 2):
        ancestor = _common_ancestor(engine, first, second)
        if ancestor is None or (first.id, second.id) in merged_pairs:
            continue
        both_changed = _changed_alone(engine, ancestor, first, second) and _changed_alone(
            engine, ancestor, second, first
        )
        if both_changed and totals.get(ancestor, -math.inf) <= min(totals[first], totals[second]):
            pairs.append((first, second, ancestor))
    if not pairs:
        return None
    return engine.random("merge", step).choice(pairs)


def _changed_alone(engine: Engine, ancestor: Candidate, candidate: Candidate, other: Candidate) -> bool:
    """Whether the candidate has changed a predictor that the other has as the ancestor."""
    for path in engine.paths:
        part = ancestor.part(path)
        if candidate.part(path) != part and other.part(path) == part:
            return True
    return False


def _common_ancestor(engine: Engine, first: Candidate, second: Candidate) -> Candidate | None:
    """The latest common ancestor; None where one descends from the other."""
    lineage = _lineage(engine, first)
    other_lineage = _lineage(engine, second)
    if first.id in other_lineage or second.id in lineage:
        return None
    common = [engine.candidates[name] for name in lineage if name in other_lineage]
    return max(common, key=lambda c: c.step, default=None)


def _lineage(engine: Engine, candidate: Candidate) -> list[str]:
    """The ids of all ancestors."""
    ancestors: list[str] = []
    queue = list(candidate.parents)
    while queue:
        name = queue.pop(0)
        if name not in ancestors:
            ancestors.append(name)
            queue += engine.candidates[name].parents
    return ancestors
