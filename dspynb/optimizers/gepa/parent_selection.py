"""Pareto-based selection of a parent: candidates that are best on some rows, weighted by the number of those rows.

Source: Agrawal et al. 2025, "GEPA", algorithm 2.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from dspynb.optimizers.core.candidate import Candidate

__all__ = ["Scores", "pareto_choice", "pareto_front"]

Scores = Mapping[Candidate, Mapping[int, float]]
"""Candidate → row → score; all candidates have the same rows."""


def pareto_front(scores: Scores) -> dict[Candidate, int]:
    """The candidates that are best on some row and not dominated, with the number of rows on which each is best."""
    rows = next(iter(scores.values()))
    winners_by_row: list[list[Candidate]] = []
    for row in rows:
        top = max(by_row[row] for by_row in scores.values())
        winners_by_row.append([candidate for candidate, by_row in scores.items() if by_row[row] == top])
    front: list[Candidate] = []
    for winners in winners_by_row:
        front += [candidate for candidate in winners if candidate not in front]
    for candidate in sorted(front, key=lambda c: sum(scores[c].values())):
        others = [other for other in front if other != candidate]
        if others and _is_dominated(candidate, others, winners_by_row):
            front = others
    row_counts = dict.fromkeys(front, 0)
    for winners in winners_by_row:
        for candidate in winners:
            if candidate in row_counts:
                row_counts[candidate] += 1
    return row_counts


def _is_dominated(candidate: Candidate, others: list[Candidate], winners_by_row: list[list[Candidate]]) -> bool:
    """Whether one of the others is best as well on every row on which the candidate is best."""
    for winners in winners_by_row:
        if candidate in winners and not any(other in winners for other in others):
            return False
    return True


def pareto_choice(scores: Scores, rng: random.Random) -> Candidate:
    """Draw a candidate of the Pareto front, weighted by the number of rows on which it is best."""
    weights = pareto_front(scores)
    return rng.choices(list(weights), weights=list(weights.values()))[0]
