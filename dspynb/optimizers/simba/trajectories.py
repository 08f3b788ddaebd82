"""Trajectories: minibatches of training rows, candidates drawn by their scores to run on them, and the results by row.

Source: the sampling of SIMBA in DSPy (see simba.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dspynb.evaluation.rollouts import Rollout
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine

__all__ = ["Bucket", "Minibatches", "Pool", "Spread", "Trajectory", "make_buckets", "softmax"]


class Minibatches:
    """Draws minibatches from the training rows, which are shuffled anew in each epoch. A minibatch begins where the
    one before has ended."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._epoch = 0
        self._remaining: list[int] = []

    def draw(self, size: int) -> list[int]:
        """The next ``size`` rows, without duplicates. ``size`` must not exceed the number of training rows."""
        rows: list[int] = []
        while len(rows) < size:
            if not self._remaining:
                self._remaining = list(range(len(self._engine.train)))
                self._engine.random("epoch", self._epoch).shuffle(self._remaining)
                self._epoch += 1
            row = next(row for row in self._remaining if row not in rows)
            self._remaining.remove(row)
            rows.append(row)
        return rows


class Pool:
    """The evaluated candidates, each with the scores of all its rollouts on training rows."""

    def __init__(self, start: Candidate) -> None:
        self._start = start
        self._scores: dict[Candidate, dict[tuple[int, int], float]] = {start: {}}  # candidate → row, repeat → score

    def add(self, candidate: Candidate, row: int, repeat: int, score: float) -> None:
        """Record the score of a rollout. A rollout that is added twice counts once."""
        self._scores.setdefault(candidate, {})[row, repeat] = score

    def add_outside(self, candidate: Candidate, scores: Mapping[int, float]) -> None:
        """Add a candidate that a person proposed, with its scores on validation rows. A candidate that is in the pool
        stays as it is."""
        self._scores.setdefault(candidate, {(-1 - row, 0): score for row, score in scores.items()})

    def filter(self, active: Callable[[Iterable[Candidate]], Iterable[Candidate]]) -> None:
        """Remove the candidates that ``active`` does not return."""
        self._scores = {candidate: self._scores[candidate] for candidate in active(self._scores)}

    def mean(self, candidate: Candidate) -> float:
        """The mean score; 0 before there is a score."""
        scores = self._scores[candidate]
        return sum(scores.values()) / len(scores) if scores else 0.0

    def top(self, count: int) -> list[Candidate]:
        """The best candidates, in order; ties by the order of registration. The start is always one of them."""
        ranked = sorted(self._scores, key=lambda c: -self.mean(c))[:count]
        return ranked if self._start in ranked else [*ranked[:-1], self._start]

    def weights(self, count: int, temperature: float) -> dict[Candidate, float]:
        """The best candidates with their weights for drawing: the softmax of their means."""
        return softmax({candidate: self.mean(candidate) for candidate in self.top(count)}, temperature)


def softmax(scores: Mapping[Candidate, float], temperature: float) -> dict[Candidate, float]:
    """Weights proportional to exp(score / temperature)."""
    highest = max(scores.values())  # subtracted against overflow
    return {candidate: math.exp((score - highest) / temperature) for candidate, score in scores.items()}


@dataclass(frozen=True)
class Trajectory:
    """One rollout of a candidate on a training row."""

    candidate: Candidate
    rollout: Rollout
    score: float


@dataclass(frozen=True)
class Bucket:
    """The trajectories of one row, best first."""

    row: int
    trajectories: Sequence[Trajectory]

    @property
    def best(self) -> Trajectory:
        """The trajectory with the highest score, the first in a tie."""
        return self.trajectories[0]

    @property
    def worst(self) -> Trajectory:
        """The trajectory with the lowest score, the last in a tie."""
        return self.trajectories[-1]

    @property
    def rank(self) -> tuple[float, float, float]:
        """How much the bucket may teach: the gap from best to worst, the best score, and its distance to the mean."""
        scores = [trajectory.score for trajectory in self.trajectories]
        best = self.best.score
        return best - self.worst.score, best, best - sum(scores) / len(scores)


def make_buckets(by_row: Iterable[tuple[int, Sequence[Trajectory]]]) -> list[Bucket]:
    """The buckets of all rows, ordered by rank, highest first."""
    buckets = []
    for row, trajectories in by_row:
        buckets.append(Bucket(row, sorted(trajectories, key=lambda t: -t.score)))
    return sorted(buckets, key=lambda bucket: bucket.rank, reverse=True)


@dataclass(frozen=True)
class Spread:
    """Which scores of a minibatch are low and high: its 10th and 90th percentile."""

    low: float
    high: float

    @classmethod
    def of(cls, buckets: Iterable[Bucket]) -> Spread:
        """The spread of all trajectories in the buckets."""
        scores: list[float] = []
        for bucket in buckets:
            scores += [trajectory.score for trajectory in bucket.trajectories]
        scores.sort()
        return cls(_quantile(scores, 0.1), _quantile(scores, 0.9))

    def has_demo(self, bucket: Bucket) -> bool:
        """Whether the best trajectory is worth showing as demos: it did not fail, and its score is not low."""
        return bucket.best.score > self.low and bucket.best.rollout.ended.error is None

    def has_rule(self, bucket: Bucket) -> bool:
        """Whether a rule can be learned from the worst trajectory: others scored higher, on this row or on many other
        rows."""
        return bucket.worst.score < max(self.high, bucket.best.score)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The quantile of ordered values, by linear interpolation."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
