"""Searches over attempts: Refine, BestOfN, one scored attempt, and the sources of hints."""

from dspynb.refine.attempt import AttemptResult
from dspynb.refine.best_of_n import BestOfN
from dspynb.refine.refine import Refine

__all__ = [
    "AttemptResult",
    "BestOfN",
    "Refine",
]
