"""Agents: ReAct, ProgramOfThought, tools, and the sandbox for generated code."""

from dspynb.agents.program_of_thought import ProgramOfThought
from dspynb.agents.react import ReAct

__all__ = [
    "ProgramOfThought",
    "ReAct",
]
