"""Optimizers: one engine (candidates as data, a rollout cache, a score matrix, the budget), one file a strategy."""

from dspynb.optimizers.bootstrap import BootstrapFewShot, BootstrapRandomSearch
from dspynb.optimizers.copro import COPRO
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.optimizer import Optimizer
from dspynb.optimizers.distill.distill import DistillHints
from dspynb.optimizers.gepa.gepa import GEPA
from dspynb.optimizers.mipro.mipro import MIPROv2
from dspynb.optimizers.simba.simba import SIMBA

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
