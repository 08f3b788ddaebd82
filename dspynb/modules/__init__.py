"""Programs: Module, Predict, modules made of it, and the searches over attempts, BestOfN and Refine."""

from dspynb.modules.attempts import AttemptResult
from dspynb.modules.module import Module
from dspynb.modules.predict import Predict
from dspynb.modules.program_of_thought import ProgramOfThought
from dspynb.modules.refine import Refine
from dspynb.modules.search import BestOfN

__all__ = ["AttemptResult", "BestOfN", "Module", "Predict", "ProgramOfThought", "Refine"]
