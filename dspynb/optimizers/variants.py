"""Variants: a candidate with some demos dropped, and demos or rules of one bucket added.

Source: the strategies of SIMBA in DSPy (see simba.py).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dspynb.optimizers.candidate import Candidate
from dspynb.optimizers.demos import Demo, demos_of, traced
from dspynb.optimizers.engine import Engine
from dspynb.optimizers.texts import instruction_of
from dspynb.optimizers.trajectories import Bucket
from dspynb.scope import Part

__all__ = ["Variant", "dropped", "new_candidate"]

_DEMOS_OF_RULES_ONLY = 3
"""Where no demos are added, those that the program has are dropped as if so many might stay."""


@dataclass(frozen=True)
class Variant:
    """A candidate to be: ``demos`` are those that were kept of its source, by path."""

    source: Candidate
    demos: Mapping[str, list[Demo]]
    bucket: Bucket

    @classmethod
    def of(cls, engine: Engine, source: Candidate, bucket: Bucket, max_demos: int, chance: random.Random) -> Variant:
        """Drops demos at random, at the same places for all predictors: a demo of each comes from one trajectory."""
        demos = {path: demos_of(engine, source, path) for path in engine.paths}
        gone = dropped(max(map(len, demos.values())), max_demos, chance)
        kept = {path: [demo for i, demo in enumerate(some) if i not in gone] for path, some in demos.items()}
        return cls(source, kept, bucket)

    def showing(self, engine: Engine) -> dict[str, Part]:
        """Its parts, with what the best trajectory did as one more demo of each predictor that was called; no parts
        where there is none that is new."""
        predictors, row, rollout = dict(engine.program.named_predictors()), self.bucket.row, self.bucket.best.rollout
        made = {path: traced(engine, path, predictor, row, rollout) for path, predictor in predictors.items()}
        new = {path: demo for path, demo in made.items() if demo is not None and demo not in self.demos[path]}
        if not new:
            return {}
        return self._parts({path: [*some, *([new[path]] if path in new else [])] for path, some in self.demos.items()})

    def told(self, engine: Engine, advice: Mapping[str, str]) -> dict[str, Part]:
        """Its parts, with advice added to the instructions; no parts where there is none."""
        parts = self._parts(self.demos) if advice else {}
        for path, text in advice.items():
            instruction = f"{instruction_of(engine, self.source, path)}\n\n{text}"
            parts[path] = replace(parts[path], instruction=instruction)
        return parts

    def _parts(self, demos: Mapping[str, list[Demo]]) -> dict[str, Part]:
        return {path: replace(self.source.part(path), demos=tuple(some)) for path, some in demos.items()}


def dropped(count: int, most: int, chance: random.Random) -> set[int]:
    """Which of ``count`` demos are dropped: as many as Poisson's distribution gives with the mean ``count / most``, and
    at least one where there is no room for another."""
    room = most or _DEMOS_OF_RULES_ONLY
    number = max(_poisson(count / room, chance), int(count >= room))
    return {chance.randrange(count) for _ in range(min(number, count))}


def _poisson(mean: float, chance: random.Random) -> int:
    """Knuth's method: how many steps of exponential length fit into 1."""
    number, product = 0, chance.random()
    while product > math.exp(-mean):
        number, product = number + 1, product * chance.random()
    return number


def new_candidate(
    engine: Engine, variant: Variant, parts: Mapping[str, Part], *, origin: str, step: int
) -> list[Candidate]:
    """The candidate of these parts; none where it is one that is known, which is not tried again."""
    known = set(engine.candidates)
    made = [engine.candidate(parts, origin=origin, step=step, parents=[variant.source])] if parts else []
    return [child for child in made if child.id not in known]
