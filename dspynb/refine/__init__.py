"""Searches over attempts: Refine and BestOfN, one scored attempt, and where hints come from."""

from dspynb.refine.attempt import AttemptResult
from dspynb.refine.refine import Refine
from dspynb.refine.search import BestOfN

__all__ = [
    "AttemptResult",
    "BestOfN",
    "Refine",
]
