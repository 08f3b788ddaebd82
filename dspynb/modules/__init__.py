"""Programs: Module and Predict, what is made of them, and the searches over attempts, BestOfN and Refine."""

from dspynb.modules.attempts import AttemptResult
from dspynb.modules.chain_of_thought import ChainOfThought
from dspynb.modules.comparison import MultiChainComparison
from dspynb.modules.mcp import mcp_tools
from dspynb.modules.migration import from_dspy
from dspynb.modules.module import Module
from dspynb.modules.predict import Predict
from dspynb.modules.program_of_thought import ProgramOfThought
from dspynb.modules.react import ReAct
from dspynb.modules.refine import Refine
from dspynb.modules.replaying import Replay, replay
from dspynb.modules.search import BestOfN
from dspynb.modules.tools import Observation, Tool
from dspynb.modules.voting import majority

__all__ = [
    "AttemptResult",
    "BestOfN",
    "ChainOfThought",
    "Module",
    "MultiChainComparison",
    "Observation",
    "Predict",
    "ProgramOfThought",
    "ReAct",
    "Refine",
    "Replay",
    "Tool",
    "from_dspy",
    "majority",
    "mcp_tools",
    "replay",
]
