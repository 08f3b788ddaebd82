"""Trajectories: minibatches of training rows, programs drawn by their scores to run on them, and what the runs teach.

Source: the sampling of SIMBA in DSPy (see simba.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dspynb.evaluation.rollouts import Rollout
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine

__all__ = ["Bucket", "Minibatches", "Pool", "Spread", "Trajectory", "buckets", "softmax"]


class Minibatches:
    """Training rows in an order that is shuffled anew each time all have been seen; a minibatch goes on where the one
    before has ended."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._epoch = engine, 0
        self._left: list[int] = []

    def take(self, size: int) -> list[int]:
        """The next rows, no row twice; ``size`` may be all of them at most."""
        found: list[int] = []
        while len(found) < size:
            if not self._left:
                self._left = list(range(len(self._engine.train)))
                self._engine.random("epoch", self._epoch).shuffle(self._left)
                self._epoch += 1
            row = next(row for row in self._left if row not in found)
            self._left.remove(row)
            found.append(row)
        return found


class Pool:
    """The candidates that were tried, each with the scores of all its rollouts on training rows."""

    def __init__(self, start: Candidate) -> None:
        self._start = start
        self._scores: dict[Candidate, dict[tuple[int, int], float]] = {start: {}}

    def add(self, candidate: Candidate, row: int, repeat: int, score: float) -> None:
        """Take note of a rollout; one that is known counts once."""
        self._scores.setdefault(candidate, {})[row, repeat] = score

    def take(self, candidate: Candidate, scores: Mapping[int, float]) -> None:
        """Take note of one that comes from outside, with its scores on validation rows; not of one that is known."""
        self._scores.setdefault(candidate, {(-1 - row, 0): score for row, score in scores.items()})

    def keep(self, kept: Callable[[Iterable[Candidate]], Iterable[Candidate]]) -> None:
        """Only those that are kept."""
        self._scores = {candidate: self._scores[candidate] for candidate in kept(self._scores)}

    def mean(self, candidate: Candidate) -> float:
        """The mean score; 0 before there is one."""
        scores = self._scores[candidate]
        return sum(scores.values()) / len(scores) if scores else 0.0

    def top(self, most: int) -> list[Candidate]:
        """The best, of equal ones those made first; the start is always one of them."""
        ranked = sorted(self._scores, key=lambda c: -self.mean(c))[:most]
        return ranked if self._start in ranked else [*ranked[:-1], self._start]

    def weights(self, most: int, temperature: float) -> dict[Candidate, float]:
        """The best, with how likely each is to be drawn: the softmax of their means."""
        return softmax({candidate: self.mean(candidate) for candidate in self.top(most)}, temperature)


def softmax(scores: Mapping[Candidate, float], temperature: float) -> dict[Candidate, float]:
    """Weights that are proportional to exp(score / temperature)."""
    highest = max(scores.values())  # taken off, so that large scores overflow nothing
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
        """Of equal ones the first."""
        return self.trajectories[0]

    @property
    def worst(self) -> Trajectory:
        """Of equal ones the last."""
        return self.trajectories[-1]

    @property
    def rank(self) -> tuple[float, float, float]:
        """What it may teach: the gap from best to worst, the best, and how far that is above the mean."""
        best, scores = self.best.score, [t.score for t in self.trajectories]
        return best - self.worst.score, best, best - sum(scores) / len(scores)


def buckets(by_row: Iterable[tuple[int, Sequence[Trajectory]]]) -> list[Bucket]:
    """The trajectories of each row as buckets, those first that teach most."""
    made = [Bucket(row, sorted(some, key=lambda t: -t.score)) for row, some in by_row]
    return sorted(made, key=lambda bucket: bucket.rank, reverse=True)


@dataclass(frozen=True)
class Spread:
    """Where scores of a minibatch are low and high: its 10th and 90th percentile."""

    low: float
    high: float

    @classmethod
    def of(cls, some: Sequence[Bucket]) -> Spread:
        """That of all trajectories."""
        scores = sorted(t.score for bucket in some for t in bucket.trajectories)
        return cls(_quantile(scores, 0.1), _quantile(scores, 0.9))

    def shows(self, bucket: Bucket) -> bool:
        """Whether the best trajectory is worth showing as demos: it came to an end and did not score low."""
        return bucket.best.score > self.low and bucket.best.rollout.ended.error is None

    def tells(self, bucket: Bucket) -> bool:
        """Whether the worst trajectory has something to learn: others on this row did better, or many on other rows."""
        return bucket.worst.score < max(self.high, bucket.best.score)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """With linear interpolation."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
