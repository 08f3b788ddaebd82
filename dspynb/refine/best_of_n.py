"""BestOfN: several samples of a program. It returns the first that is good enough, else the best."""

from __future__ import annotations

from typing import ClassVar

from dspynb.aliases import Reward
from dspynb.keywords import configurable
from dspynb.modules.function_program import checked_program
from dspynb.modules.module import Module
from dspynb.modules.scorer import Scorer
from dspynb.options import Float, FloatOrInf, NonNegativeInt, PositiveInt
from dspynb.refine.search import SEARCH_OF_DSPY, SearchModule, SearchPlan

__all__ = ["BestOfN"]


class BestOfN(SearchModule):
    """Makes up to ``n`` samples of a program, without hints, and returns the first that meets the threshold, else the
    best.

    ``module``: the program. ``reward(row, prediction) -> float | bool | Score``. ``threshold``: the score that is good
    enough; None makes all ``n`` attempts. ``width``: how many attempts run at the same time. ``temperature``: that of
    every attempt; None leaves the model's own. ``max_failures``: how many attempts may fail before the call fails
    (default: all but the last). Raises ConfigurationError for a value out of range; AllAttemptsFailed or
    TooManyFailures when called.

    >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: four", "answer: 4"]))
    >>> best = dn.BestOfN(ask, reward=lambda row, prediction: prediction.answer.isdigit(), n=3)
    >>> prediction = best.run_sync(question="2+2?")
    >>> prediction.answer, prediction.run.attempts.score.tolist()
    ('4', [0.0, 1.0])
    """

    kind: ClassVar[str] = "best_of_n"

    @configurable(renamed=SEARCH_OF_DSPY)
    def __init__(
        self,
        module: Module,
        reward: Reward,
        n: PositiveInt = 3,
        threshold: FloatOrInf | None = 1.0,
        *,
        width: PositiveInt = 1,
        temperature: Float | None = 1.0,
        max_failures: NonNegativeInt | None = None,
    ) -> None:
        self.module = checked_program(module)
        self.plan = SearchPlan(Scorer(reward), n, threshold, width, temperature, max_failures)
