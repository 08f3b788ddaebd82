"""MIPROv2: instructions and demos by Bayesian search."""

from dspynb.optimizers.mipro.mipro import MIPROv2

__all__ = [
    "MIPROv2",
]
