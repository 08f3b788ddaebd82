"""Pareto-based selection: a parent that is best on some rows, more often where it is best on many.

Source: Agrawal et al. 2025, "GEPA", algorithm 2.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from dspynb.optimizers.core.candidate import Candidate

__all__ = ["Scores", "front", "pareto_choice"]

Scores = Mapping[Candidate, Mapping[int, float]]
"""Candidate → row → score; all candidates have the same rows."""


def front(scores: Scores) -> dict[Candidate, int]:
    """The candidates that are best on some row and not dominated, with on how many rows they are best."""
    rows = next(iter(scores.values()))
    tops = {row: max(own[row] for own in scores.values()) for row in rows}
    best = {row: [c for c, own in scores.items() if own[row] == tops[row]] for row in rows}
    kept = list(dict.fromkeys(c for some in best.values() for c in some))
    for candidate in sorted(kept, key=lambda c: sum(scores[c].values())):
        others = [c for c in kept if c != candidate]
        # dominated: wherever it is best, another that is kept is as good
        if others and all(any(c in others for c in some) for some in best.values() if candidate in some):
            kept = others
    return {c: sum(c in some for some in best.values()) for c in kept}


def pareto_choice(scores: Scores, chance: random.Random) -> Candidate:
    """One of the front, as likely as the number of rows on which it is best."""
    weights = front(scores)
    return chance.choices(list(weights), weights=list(weights.values()))[0]
