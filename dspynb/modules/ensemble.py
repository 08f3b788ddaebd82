"""Ensemble: several programs that answer the same inputs, and a function that makes one prediction of theirs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

from dspynb.data import Prediction
from dspynb.errors import ConfigurationError
from dspynb.modules.function_program import checked_program
from dspynb.modules.majority import majority
from dspynb.modules.module import Module

__all__ = ["Ensemble", "EnsembleProgram"]


class Ensemble:
    """Combines programs to one: ``program = dn.Ensemble().compile([first, second, third])``.

    ``reduce``: a function of the list of predictions that returns one of them, or a dict of outputs;
    ``dn.majority`` by default. ``size``: how many of the programs a call runs, None (the default) for all.
    ``seed``: the seed that chooses them, 0 by default; it is the same choice at every call with the same inputs.

    >>> programs = [dn.Predict("question -> answer", lm=dn.FunctionLM(lambda r, a=a: f"answer: {a}")) for a in "445"]
    >>> dn.Ensemble().compile(programs).run_sync(question="2+2?")
    Prediction(answer='4')
    """

    def __init__(
        self, reduce: Callable[[list[Any]], Any] = majority, size: int | None = None, *, seed: int = 0
    ) -> None:
        if not callable(reduce):
            raise ConfigurationError(f"Ensemble: reduce must be a function of predictions, got {reduce!r}")
        if size is not None and (not isinstance(size, int) or size < 1):
            raise ConfigurationError(f"Ensemble: size must be a whole number from 1, or None, got {size!r}")
        self.reduce = reduce
        self.size = size
        self.seed = seed

    def compile(self, programs: Sequence[Any]) -> EnsembleProgram:
        """The program that runs ``programs``. Raises ConfigurationError if there are none, or fewer than ``size``."""
        return EnsembleProgram(programs, self.reduce, self.size, self.seed)


class EnsembleProgram(Module):
    """The program that ``Ensemble.compile`` returns. The programs run concurrently; their paths are ``programs[0]``,
    ``programs[1]``, …"""

    def __init__(
        self, programs: Sequence[Any], reduce: Callable[[list[Any]], Any], size: int | None, seed: int
    ) -> None:
        if not programs or (size or 1) > len(programs):
            raise ConfigurationError(f"Ensemble takes at least {size or 1} programs, got {len(programs)}")
        self.programs = [checked_program(program) for program in programs]
        self.reduce = reduce
        self.size = size
        self.seed = seed

    async def forward(self, **inputs: Any) -> Any:
        """What ``reduce`` makes of the predictions."""
        chosen = self.programs
        if self.size is not None:
            generator = random.Random(f"{self.seed} {inputs!r}")  # noqa: S311  # not for secrets
            chosen = generator.sample(self.programs, self.size)
        predictions: list[Prediction] = await asyncio.gather(*[program(**inputs) for program in chosen])
        return self.reduce(predictions)
