"""Agents: ReAct and its steps, ProgramOfThought, tools, and the sandbox for code that a model wrote."""

from dspynb.agents.program_of_thought import ProgramOfThought
from dspynb.agents.react import ReAct

__all__ = [
    "ProgramOfThought",
    "ReAct",
]
