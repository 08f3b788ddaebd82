"""How long the replies of a model are, as an estimate of later ones."""

from __future__ import annotations

from bisect import bisect_left, insort
from operator import itemgetter

from dspynb.scope.amounts import NOTHING, Amounts
from dspynb.scope.reservation import Position

__all__ = ["ReplyLengths"]

_FEW = 5
"""Fewer replies of a model than these say too little about the length of the next one."""
_MARGIN = 1.25
"""How much longer the next reply may be than the longest one so far."""


class ReplyLengths:
    """The tokens and the cost of the replies of one model, in the order of the positions of their requests.

    It keeps few of them: the first ones, and each that is larger than all at earlier positions.
    """

    __slots__ = ("_first", "_largest")

    def __init__(self) -> None:
        self._first: list[Position] = []
        self._largest: list[tuple[Position, Amounts]] = []  # the largest amounts up to each of these positions

    def add(self, position: Position, amounts: Amounts) -> bool:
        """Add a reply. Returns whether this may change an estimate."""
        if len(self._first) == _FEW and position > self._first[-1] and position > self._largest[-1][0]:
            most = self._largest[-1][1]
            if amounts.tokens <= most.tokens and amounts.usd <= most.usd:  # as nearly always
                return False
        is_one_of_the_first = len(self._first) < _FEW or position < self._first[-1]
        if is_one_of_the_first:
            insort(self._first, position)
            del self._first[_FEW:]
        index = bisect_left(self._largest, position, key=itemgetter(0))
        most = self._largest[index - 1][1] if index else NOTHING
        if amounts.within(most):
            return is_one_of_the_first
        most = most.largest(amounts)
        later = self._largest[index:]
        del self._largest[index:]
        self._largest.append((position, most))
        for other_position, other in later:
            if not other.within(most):
                most = most.largest(other)
                self._largest.append((other_position, most))
        return True

    def most(self, before: Position | None = None) -> Amounts | None:
        """The largest amounts of replies at earlier positions, with a margin; None for too few replies.

        ``before``: the position; None for replies at any position.
        """
        if len(self._first) < _FEW or (before is not None and self._first[-1] >= before):
            return None
        index = len(self._largest)
        if before is not None:
            index = bisect_left(self._largest, before, key=itemgetter(0))
        most = self._largest[index - 1][1] if index else NOTHING
        return Amounts(most.tokens * _MARGIN, most.usd * _MARGIN)
