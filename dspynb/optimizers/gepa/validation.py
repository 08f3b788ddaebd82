"""Validating an accepted child: on all rows, or, racing, in stages, until it is clearly worse than its parent."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.task import Evaluated

__all__ = ["Validation"]

_STAGES = 3
_FEWEST = 8
"""Rows below which nothing is clear."""
_SURE = 1.645
"""Standard errors: a one-sided 95 % bound."""


class Validation:
    """``ask()`` for a stage, ``hear`` what came of it, until it is over. ``scores``: row → score; of all rows once it
    has ``passed``. ``against``: the parent's. ``outstanding``: the rows that have not been asked for yet."""

    def __init__(self, engine: Engine, child: Candidate, against: Mapping[int, float], *, racing: bool) -> None:
        self.child, self.scores, self.passed = child, dict[int, float](), False
        self._engine, self._against = engine, against
        rows = list(range(len(engine.val)))
        engine.random("validation").shuffle(rows)
        staged = racing and len(rows) >= 2 * _FEWEST  # else a stage would be waited for, and tell nothing
        size = max(_FEWEST, math.ceil(len(rows) / _STAGES)) if staged else len(rows)
        self._stages = [rows[: i + size] for i in range(0, len(rows), size)]
        self.outstanding = len(rows)

    def ask(self) -> asyncio.Task[Evaluated]:
        """Ask for the next stage."""
        rows = self._stages.pop(0)
        self.outstanding = len(self._engine.val) - len(rows)
        return self._engine.evaluate(self.child, rows if self._stages else None, step=self.child.step, soon=True)

    def hear(self, done: Evaluated) -> bool:
        """What came of a stage; whether it was the last."""
        self.scores = dict(zip(done.rows, done.scores, strict=True))
        self.passed = not self._stages
        return self.passed or self._hopeless()

    def _hopeless(self) -> bool:
        """Whether the upper bound of the paired difference to the parent is below 0."""
        differences = [score - self._against[row] for row, score in self.scores.items()]
        n = len(differences)
        mean = sum(differences) / n
        spread = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1))
        return mean + _SURE * spread / math.sqrt(n) < 0
