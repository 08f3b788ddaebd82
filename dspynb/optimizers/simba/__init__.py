"""SIMBA: rules and demos from contrasting trajectories."""

from dspynb.optimizers.simba.simba import SIMBA

__all__ = [
    "SIMBA",
]
