"""Variants: a candidate less some of its demos, with what was learned from buckets: a demo or a rule a predictor.

Source: the strategies of SIMBA in DSPy (see simba.py).
"""

from __future__ import annotations

import math
import random
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.demos import Demo, demos_of, traced
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.instructions import instruction_of
from dspynb.optimizers.simba.trajectories import Bucket
from dspynb.scope.candidates import Part

__all__ = ["Addition", "Source", "dropped", "made"]

T = TypeVar("T")

_DEMOS_OF_RULES_ONLY = 3
"""Where no demos are added, those that the program has are dropped as if so many might stay."""


@dataclass(frozen=True)
class Addition:
    """What is learned from a bucket: path → demo, or path → rule."""

    demos: Mapping[str, Demo] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.demos or self.rules)

    @classmethod
    def of_best(cls, engine: Engine, bucket: Bucket) -> Addition:
        """What the best trajectory did, as a demo of each predictor that was called."""
        predictors, rollout = engine.program.named_predictors(), bucket.best.rollout
        made = {path: traced(engine, path, predictor, bucket.row, rollout) for path, predictor in predictors}
        return cls(demos={path: demo for path, demo in made.items() if demo is not None})


@dataclass(frozen=True)
class Source:
    """A candidate to add to, with the demos that were kept of it, by path."""

    candidate: Candidate
    demos: Mapping[str, Sequence[Demo]]

    @classmethod
    def thinned(cls, engine: Engine, candidate: Candidate, max_demos: int, chance: random.Random) -> Source:
        """Drops demos at random, at the same places for all predictors: demos at a place mostly belong together."""
        demos = {path: demos_of(engine, candidate, path) for path in engine.paths}
        gone = dropped(max(map(len, demos.values())), max_demos, chance)
        return cls(candidate, {path: [d for i, d in enumerate(some) if i not in gone] for path, some in demos.items()})

    def with_all(self, engine: Engine, additions: Sequence[Addition]) -> dict[str, Part]:
        """Its parts with these added; none where that adds nothing."""
        parts, news = {}, 0
        for path, shown in self.demos.items():
            said = instruction_of(engine, self.candidate, path)
            demos = _new((a.demos.get(path) for a in additions), shown)
            rules = _new((a.rules.get(path) for a in additions), said)
            part = replace(self.candidate.part(path), demos=(*shown, *demos))
            parts[path] = replace(part, instruction="\n\n".join([said, *rules])) if rules else part
            news += len(demos) + len(rules)
        return parts if news else {}

    def fitting(self, additions: Sequence[Addition], max_demos: int) -> list[Addition]:
        """All that bring rules, and of those that bring demos as many as there is room for, one at least."""
        room = max(1, max_demos - max(map(len, self.demos.values())))
        showing = [a for a in additions if a.demos][:room]
        return [a for a in additions if a.rules or a in showing]


def _new(found: Iterable[T | None], known: Container[T]) -> list[T]:
    """Those that are there, each once, without the known."""
    new: list[T] = []
    for one in found:
        if one is not None and one not in known and one not in new:
            new.append(one)
    return new


def made(engine: Engine, source: Source, additions: Sequence[Addition], origin: str, step: int) -> list[Candidate]:
    """The source with these additions; nothing where they change nothing, or to one that is known."""
    known, parts = set(engine.candidates), source.with_all(engine, additions)
    new = [engine.candidate(parts, origin=origin, step=step, parents=[source.candidate])] if parts else []
    return [candidate for candidate in new if candidate.id not in known]


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
