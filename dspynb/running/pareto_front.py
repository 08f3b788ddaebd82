"""The Pareto front over validation rows: which candidates have the highest score on which rows."""

from __future__ import annotations

__all__ = ["ParetoFront"]


class ParetoFront:
    """The Pareto front, updated with each score. ``leads``: candidate id → number of rows on which no candidate has
    scored higher; candidates without such a row are left out.

    >>> from dspynb.running.pareto_front import ParetoFront
    >>> front = ParetoFront()
    >>> for candidate, row, score in [("a", 0, 0.5), ("b", 0, 0.5), ("b", 1, 0.2), ("a", 1, 1.0)]:
    ...     front.add(candidate, row, score)
    >>> front.leads
    {'a': 2, 'b': 1}
    """

    def __init__(self) -> None:
        self.leads: dict[str, int] = {}
        self._best: dict[int, float] = {}  # row → the highest score on it
        self._leaders: dict[int, set[str]] = {}  # row → the candidates that have this score

    def add(self, candidate: str, row: int, score: float) -> None:
        """Add the score of a candidate on a row."""
        best = self._best.get(row)
        if best is not None and score < best:
            return
        if best is None or score > best:
            for earlier_leader in self._leaders.get(row, ()):
                self._add_leads(earlier_leader, -1)
            self._best[row] = score
            self._leaders[row] = set()
        leaders = self._leaders[row]
        if candidate not in leaders:
            leaders.add(candidate)
            self._add_leads(candidate, 1)

    def _add_leads(self, candidate: str, rows: int) -> None:
        self.leads[candidate] = self.leads.get(candidate, 0) + rows
        if not self.leads[candidate]:
            del self.leads[candidate]
