"""Validation of an accepted child: on all rows, or, racing, in stages until it is clearly worse than its parent."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.problem import CandidateEvaluation

__all__ = ["Validation"]

_STAGES = 3
_MIN_ROWS = 8
"""The least number of rows in a stage: fewer show nothing clearly."""
_STANDARD_ERRORS = 1.645
"""A one-sided 95 % bound."""


class Validation:
    """Evaluates a child in stages: ``submit_stage()``, then ``record_stage()`` with its result, which returns whether
    validation has ended.

    ``parent_scores``: row → the parent's score. ``scores``: row → the child's score; of all rows once it has
    ``passed``. ``unsubmitted_rows``: how many rows have not been submitted yet.
    """

    def __init__(self, engine: Engine, child: Candidate, parent_scores: Mapping[int, float], *, racing: bool) -> None:
        self.child = child
        self.scores: dict[int, float] = {}
        self.passed = False
        self._engine = engine
        self._parent_scores = parent_scores
        rows = list(range(len(engine.val)))
        engine.random("validation").shuffle(rows)
        size = len(rows)
        if racing and len(rows) >= 2 * _MIN_ROWS:  # with fewer rows a stage would cost time and show nothing
            size = max(_MIN_ROWS, math.ceil(len(rows) / _STAGES))
        self._stages = [rows[: begin + size] for begin in range(0, len(rows), size)]
        self.unsubmitted_rows = len(rows)

    def submit_stage(self) -> asyncio.Task[CandidateEvaluation]:
        """Submit the next stage. Each stage has the rows of the one before."""
        rows = self._stages.pop(0)
        self.unsubmitted_rows = len(self._engine.val) - len(rows)
        is_last = not self._stages
        return self._engine.evaluate(self.child, None if is_last else rows, step=self.child.step, in_order=False)

    def record_stage(self, evaluation: CandidateEvaluation) -> bool:
        """Record the result of a stage. Returns whether validation has ended."""
        self.scores = dict(zip(evaluation.rows, evaluation.scores, strict=True))
        self.passed = not self._stages
        return self.passed or self._is_clearly_worse()

    def _is_clearly_worse(self) -> bool:
        """Whether the upper bound of the paired difference to the parent is below 0."""
        differences = [score - self._parent_scores[row] for row, score in self.scores.items()]
        n = len(differences)
        mean = sum(differences) / n
        deviation = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1))
        return mean + _STANDARD_ERRORS * deviation / math.sqrt(n) < 0
