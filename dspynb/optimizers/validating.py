"""Validating an accepted child: on all rows, or, racing, in stages, until it is clearly worse than its parent."""

from __future__ import annotations

import math

from dspynb.optimizers.candidate import Candidate
from dspynb.optimizers.engine import Engine

__all__ = ["Validation"]

_STAGES = 3
_FEWEST = 8
"""Rows below which nothing is clear."""
_SURE = 1.645
"""Standard errors: a one-sided 95 % bound."""


class Validation:
    """``await advance()`` until it is True; ``passed`` tells whether the child has run on all rows.

    ``outstanding``: the rows that have not been asked for yet.
    """

    def __init__(self, engine: Engine, child: Candidate, against: Candidate, step: int, *, racing: bool) -> None:
        self.child, self.passed = child, False
        self._engine, self._against, self._step, self._racing = engine, against, step, racing
        rows = list(range(len(engine.val)))
        engine.random("validation").shuffle(rows)
        staged = racing and len(rows) >= 2 * _FEWEST  # else a stage would be waited for, and tell nothing
        size = max(_FEWEST, math.ceil(len(rows) / _STAGES)) if staged else len(rows)
        self._stages = [rows[: i + size] for i in range(0, len(rows), size)]
        self._reached = 0
        self._ask()

    @property
    def outstanding(self) -> int:
        """Rows not asked for yet."""
        return len(self._engine.val) - self._reached

    def _ask(self) -> None:
        rows = self._stages.pop(0)
        self._reached = len(rows)
        self._task = self._engine.evaluate(self.child, rows if self._stages else None, step=self._step)

    async def advance(self) -> bool:
        """Wait for the stage and ask for the next; whether it is over."""
        await self._task
        if not self._stages:
            self.passed = True
            return True
        if self._racing and self._hopeless():
            return True
        self._ask()
        return False

    def _hopeless(self) -> bool:
        """Whether the upper bound of the paired difference to the parent is below 0."""
        own, other = self._engine.scores(self.child), self._engine.scores(self._against)
        differences = [own[row] - other[row] for row in own if row in other]
        n = len(differences)
        if n < _FEWEST:
            return False
        mean = sum(differences) / n
        spread = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1))
        return mean + _SURE * spread / math.sqrt(n) < 0
