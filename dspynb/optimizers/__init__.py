"""Optimizers: one engine (candidates as data, a rollout cache, a score matrix, the budget), one file a strategy."""

from dspynb.optimizers.bootstrap import BootstrapFewShot, BootstrapRandomSearch
from dspynb.optimizers.candidate import Candidate
from dspynb.optimizers.copro import COPRO
from dspynb.optimizers.distill import DistillHints
from dspynb.optimizers.engine import Engine
from dspynb.optimizers.gepa import GEPA
from dspynb.optimizers.mipro import MIPROv2
from dspynb.optimizers.optimizer import Optimizer
from dspynb.optimizers.simba import SIMBA

__all__ = [
    "COPRO",
    "GEPA",
    "SIMBA",
    "BootstrapFewShot",
    "BootstrapRandomSearch",
    "Candidate",
    "DistillHints",
    "Engine",
    "MIPROv2",
    "Optimizer",
]
