"""Programs: Module, Predict, the modules that are composed of them, and running them over rows."""

from typing import Any

from dspynb.modules.chain_of_thought import ChainOfThought
from dspynb.modules.majority import majority
from dspynb.modules.module import Module
from dspynb.modules.multi_chain_comparison import MultiChainComparison
from dspynb.modules.predict import Predict

__all__ = [
    "ChainOfThought",
    "Module",
    "MultiChainComparison",
    "Predict",
    "majority",
]


def __getattr__(name: str) -> Any:
    from dspynb._moved import moved_name

    return moved_name("modules", name)
