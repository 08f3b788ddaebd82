"""Optimizers: one engine (candidates as data, a rollout cache, a score matrix, the budget), one file a strategy.

Each name is loaded when it is first used: a program that uses one optimizer does not wait for the others.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "COPRO": "copro",
    "GEPA": "gepa.gepa",
    "SIMBA": "simba.simba",
    "BootstrapFewShot": "bootstrap",
    "BootstrapRandomSearch": "bootstrap",
    "Candidate": "core.candidate",
    "DistillHints": "distill.distill",
    "Engine": "core.engine",
    "MIPROv2": "mipro.mipro",
    "Optimizer": "core.optimizer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
