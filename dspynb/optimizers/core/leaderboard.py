"""How candidates stand: what they scored, as far as it has been told, and which of them is the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dspynb.optimizers.core.candidate import Candidate

__all__ = ["Leaderboard"]


class Leaderboard:
    """The matrix candidates × examples of a run, as much of it as there is, and the ``best`` candidate.

    ``sizes``: split → its number of rows. ``accepts``: whether one that has run on all validation rows may be the best
    (default: any); the start always may, one that failed on all of them never. ``prefers``: of candidates with equal
    means, the one that it rates highest. ``pinned``, ``dropped``: by a person.
    """

    def __init__(self, start: Candidate, sizes: Mapping[str, int]) -> None:
        self.start = start
        self.candidates: dict[str, Candidate] = {}
        self.accepts: Callable[[Candidate], bool] = lambda _: True
        self.prefers: Callable[[Candidate], float] = lambda _: 0.0
        self.pinned: Candidate | None = None
        self.dropped: set[Candidate] = set()
        self._sizes = sizes
        self._made: dict[str, int] = {}  # candidate id → in which order
        self._scores: dict[tuple[str, str], dict[int, float]] = {}  # candidate id, split → row → score
        self._means: dict[tuple[str, str], float] = {}  # of those that have run on all rows
        self._worked: set[tuple[str, str]] = set()  # those that came to an end on some row
        self._chosen: Candidate | None = None

    def add(self, candidate: Candidate) -> Candidate:
        """Take note of a candidate; the one that is known by the same content, where there is one."""
        self._made.setdefault(candidate.id, len(self._made))
        return self.candidates.setdefault(candidate.id, candidate)

    def choose(self, candidate: Candidate) -> None:
        """Make a candidate the best, where there is nothing to judge by."""
        self._chosen = candidate

    def record(self, candidate: Candidate, split: str, scores: Mapping[int, float], *, worked: bool = True) -> None:
        """Record what a candidate scored on some rows. ``worked``: whether it came to an end on any of them."""
        known = self._scores.setdefault((candidate.id, split), {})
        known.update(scores)
        if worked:
            self._worked.add((candidate.id, split))
        if known and len(known) == self._sizes[split]:
            self._means[candidate.id, split] = sum(self.scores(candidate, split).values()) / len(known)

    def scores(self, candidate: Candidate, split: str) -> dict[int, float]:
        """Row → score, in order of the rows."""
        return dict(sorted(self._scores.get((candidate.id, split), {}).items()))

    def mean(self, candidate: Candidate, split: str) -> float | None:
        """The mean score on all rows of the split; None where a row is missing."""
        return self._means.get((candidate.id, split))

    @property
    def best(self) -> Candidate:
        """The candidate that a person pinned, else the one with the highest mean on all validation rows, of those that
        are accepted and not dropped; of equal ones the one preferred, then the one made first. The start, before any
        has been."""
        if self.pinned is not None:
            return self.pinned
        if self._chosen is not None and self._chosen not in self.dropped:
            return self._chosen
        full = [(self.candidates.get(name), mean) for (name, split), mean in self._means.items() if split == "val"]
        means = {c: mean for c, mean in full if c is not None}  # one that was not registered is no candidate
        allowed = [c for c in means if c == self.start or self._may_win(c)]
        highest = max((means[c] for c in allowed), default=0.0)
        equal = [c for c in allowed if means[c] == highest]  # only these are rated, which may cost more
        return max(equal, key=lambda c: (self.prefers(c), -self._made[c.id]), default=self.start)

    def _may_win(self, candidate: Candidate) -> bool:
        return candidate not in self.dropped and (candidate.id, "val") in self._worked and self.accepts(candidate)
