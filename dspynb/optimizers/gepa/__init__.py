"""GEPA: reflective prompt evolution."""

from dspynb.optimizers.gepa.gepa import GEPA

__all__ = [
    "GEPA",
]
