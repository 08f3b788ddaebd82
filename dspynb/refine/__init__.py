"""Searches over attempts: Refine and BestOfN, one scored attempt, and where hints come from."""

from dspynb.refine.attempt import AttemptResult
from dspynb.refine.best_of_n import BestOfN
from dspynb.refine.refine import Refine

__all__ = [
    "AttemptResult",
    "BestOfN",
    "Refine",
]
