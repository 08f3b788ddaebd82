"""Mutations: a candidate less some of its demos, plus a demo or a rule for each predictor, learned from buckets.

Source: the strategies of SIMBA in DSPy (see simba.py).
"""

from __future__ import annotations

import math
import random
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.demos import Demo, demos_of, traced_demo
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.instructions import instruction_of
from dspynb.optimizers.simba.trajectories import Bucket
from dspynb.scope.candidates import Part

__all__ = ["Addition", "Source", "dropped_places", "new_candidates"]

T = TypeVar("T")

_ROOM_WITHOUT_DEMOS = 3
"""How many demos may stay where no demos are added, as a basis for dropping some."""


@dataclass(frozen=True)
class Addition:
    """What is learned from a bucket: path → demo, or path → rule."""

    demos: Mapping[str, Demo] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.demos or self.rules)

    @classmethod
    def from_best(cls, engine: Engine, bucket: Bucket) -> Addition:
        """The calls of the best trajectory, as a demo for each predictor that was called."""
        demos = {}
        for path, predictor in engine.program.named_predictors():
            demo = traced_demo(engine, path, predictor, bucket.row, bucket.best.rollout)
            if demo is not None:
                demos[path] = demo
        return cls(demos=demos)


@dataclass(frozen=True)
class Source:
    """A candidate to mutate. ``demos``: path → the demos that were not dropped."""

    candidate: Candidate
    demos: Mapping[str, Sequence[Demo]]

    @classmethod
    def thinned(cls, engine: Engine, candidate: Candidate, max_demos: int, rng: random.Random) -> Source:
        """A source with demos dropped at random. They are dropped at the same places for all predictors, since demos at
        one place mostly are from one trajectory."""
        demos = {path: demos_of(engine, candidate, path) for path in engine.paths}
        dropped = dropped_places(max(map(len, demos.values())), max_demos, rng)
        remaining = {}
        for path, path_demos in demos.items():
            remaining[path] = [demo for place, demo in enumerate(path_demos) if place not in dropped]
        return cls(candidate, remaining)

    def with_additions(self, engine: Engine, additions: Sequence[Addition]) -> dict[str, Part]:
        """The parts of the candidate with these additions; empty where they add nothing new."""
        parts = {}
        new_count = 0
        for path, demos in self.demos.items():
            instruction = instruction_of(engine, self.candidate, path)
            new_demos = _new_values((addition.demos.get(path) for addition in additions), demos)
            new_rules = _new_values((addition.rules.get(path) for addition in additions), instruction)
            part = replace(self.candidate.part(path), demos=(*demos, *new_demos))
            if new_rules:
                part = replace(part, instruction="\n\n".join([instruction, *new_rules]))
            parts[path] = part
            new_count += len(new_demos) + len(new_rules)
        return parts if new_count else {}

    def fitting(self, additions: Sequence[Addition], max_demos: int) -> list[Addition]:
        """All additions with rules, and as many with demos as there is room for, one at least."""
        room = max(1, max_demos - max(map(len, self.demos.values())))
        with_demos = [addition for addition in additions if addition.demos][:room]
        return [addition for addition in additions if addition.rules or addition in with_demos]


def _new_values(values: Iterable[T | None], known: Container[T]) -> list[T]:
    """The values that are neither None nor known, without duplicates."""
    new: list[T] = []
    for value in values:
        if value is not None and value not in known and value not in new:
            new.append(value)
    return new


def new_candidates(
    engine: Engine, source: Source, additions: Sequence[Addition], origin: str, step: int
) -> list[Candidate]:
    """The source with these additions, as a list of one candidate. The list is empty if the additions change nothing,
    or if the engine already has this candidate."""
    known = set(engine.candidates)  # before engine.candidate() adds the new one
    parts = source.with_additions(engine, additions)
    if not parts:
        return []
    candidate = engine.candidate(parts, origin=origin, step=step, parents=[source.candidate])
    return [] if candidate.id in known else [candidate]


def dropped_places(count: int, max_demos: int, rng: random.Random) -> set[int]:
    """The places of the demos to drop, of ``count`` demos: as many as a Poisson distribution with the mean ``count /
    max_demos`` gives, and at least one where there is no room for another demo."""
    room = max_demos or _ROOM_WITHOUT_DEMOS
    number = max(_poisson(count / room, rng), int(count >= room))
    return {rng.randrange(count) for _ in range(min(number, count))}


def _poisson(mean: float, rng: random.Random) -> int:
    """Draw from a Poisson distribution, by Knuth's method: count how many steps of exponential length fit into 1."""
    number = 0
    product = rng.random()
    while product > math.exp(-mean):
        number += 1
        product *= rng.random()
    return number
