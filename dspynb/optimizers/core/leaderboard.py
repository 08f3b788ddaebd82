"""The leaderboard: the recorded scores of all candidates, and the best candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dspynb.optimizers.core.candidate import Candidate

__all__ = ["Leaderboard"]


class Leaderboard:
    """The matrix candidates × examples of a run, as far as it is recorded, and the ``best`` candidate.

    ``sizes``: split → its number of rows. ``accepts``: whether a candidate that has run on all validation rows may be
    the best (default: any may). The start always may be the best, and a candidate that failed on all rows never may.
    ``prefers``: rates candidates with equal means; the highest wins. ``pinned`` and ``dropped``: set at the request of
    a person.
    """

    def __init__(self, start: Candidate, sizes: Mapping[str, int]) -> None:
        self.start = start
        self.candidates: dict[str, Candidate] = {}
        self.accepts: Callable[[Candidate], bool] = lambda _: True
        self.prefers: Callable[[Candidate], float] = lambda _: 0.0
        self.pinned: Candidate | None = None
        self.dropped: set[Candidate] = set()
        self._sizes = sizes
        self._order: dict[str, int] = {}  # candidate id → number in the order of registration
        self._scores: dict[tuple[str, str], dict[int, float]] = {}  # candidate id, split → row → score
        self._means: dict[tuple[str, str], float] = {}  # of candidates that have run on all rows of a split
        self._succeeded: set[tuple[str, str]] = set()  # candidates with a row of the split that did not fail
        self._chosen: Candidate | None = None

    def add(self, candidate: Candidate) -> Candidate:
        """Add a candidate. Returns the one added earlier with the same content, if there is one."""
        self._order.setdefault(candidate.id, len(self._order))
        return self.candidates.setdefault(candidate.id, candidate)

    def choose(self, candidate: Candidate) -> None:
        """Make a candidate the best where there are no validation rows."""
        self._chosen = candidate

    def record(self, candidate: Candidate, split: str, scores: Mapping[int, float], *, succeeded: bool = True) -> None:
        """Record scores of a candidate by row. ``succeeded``: whether any of these rows did not fail."""
        known = self._scores.setdefault((candidate.id, split), {})
        known.update(scores)
        if succeeded:
            self._succeeded.add((candidate.id, split))
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
        """The pinned candidate, if there is one; else the one with the highest mean on all validation rows.

        Only accepted candidates that are not dropped count. Of those with equal means, the preferred one wins, then
        the one registered first. Before any has a mean, it is the start.
        """
        if self.pinned is not None:
            return self.pinned
        if self._chosen is not None and self._chosen not in self.dropped:
            return self._chosen
        means: dict[Candidate, float] = {}
        for (name, split), mean in self._means.items():
            candidate = self.candidates.get(name)
            if split == "val" and candidate is not None:  # scores of a candidate that was not registered do not count
                means[candidate] = mean
        allowed = [c for c in means if c == self.start or self._may_win(c)]
        highest = max((means[c] for c in allowed), default=0.0)
        tied = [c for c in allowed if means[c] == highest]  # only these are rated, since rating may be slow
        return max(tied, key=lambda c: (self.prefers(c), -self._order[c.id]), default=self.start)

    def _may_win(self, candidate: Candidate) -> bool:
        return candidate not in self.dropped and (candidate.id, "val") in self._succeeded and self.accepts(candidate)
