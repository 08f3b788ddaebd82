"""DistillHints: hints that helped become the instruction."""

from dspynb.optimizers.distill.distill import DistillHints

__all__ = [
    "DistillHints",
]
