"""Counts of the outermost rows of a view, by state and score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dspynb.views.rows import Mode

__all__ = ["Counts"]

_SECOND_COLUMN = {"attempts": "hint", "rows": "inputs", "candidates": "origin", "calls": "predictor"}
"""Mode → the heading of the second column, where that is not the name of a field."""


class Counts:
    """The states and scores of the outermost rows, counted row by row. A row can have any key."""

    def __init__(self) -> None:
        self.sum = 0.0
        self.scored = 0
        self.low = 0.0
        self.high = 0.0
        self._rows: dict[int | str, tuple[str, float | None]] = {}
        self._states: dict[str, int] = {}
        self._best: float | None = None
        self._inputs: set[str] = set()
        self._outputs: set[str] = set()

    @property
    def all(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    @property
    def ended(self) -> int:
        """How many rows have ended."""
        return self.all - self.in_state("running")

    def in_state(self, state: str) -> int:
        """How many rows are in this state."""
        return self._states.get(state, 0)

    @property
    def best(self) -> float:
        """The highest score; 0 if there is none. Cached until the row with this score changes."""
        if self._best is None:
            scores = [score for _, score in self._rows.values() if score is not None]
            self._best = max(scores, default=0.0)
        return self._best

    def items(self) -> Iterator[tuple[int | str, str, float | None]]:
        """The key, state and score of each row."""
        for key, (state, score) in self._rows.items():
            yield key, state, score

    def keys(self, *states: str) -> list[int | str]:
        """The keys of the rows in these states."""
        return [key for key, (state, _) in self._rows.items() if state in states]

    def put(self, key: int | str, state: str, score: float | None) -> None:
        """Count a row with its present state and score. Scores of cancelled and failed rows do not count."""
        counted = None if state in ("cancelled", "failed") else score
        row = (state, counted)
        before = self._rows.get(key)
        if before == row:
            return
        if before is not None:
            self.remove(key)
        self._rows[key] = row
        self._states[state] = self._states.get(state, 0) + 1
        if counted is None:
            return
        self.sum += counted
        self.scored += 1
        self.low = min(self.low, counted)
        self.high = max(self.high, counted)
        if self.scored == 1:
            self._best = counted
        elif self._best is not None:
            self._best = max(self._best, counted)

    def remove(self, key: int | str) -> None:
        """Stop counting a row."""
        state, score = self._rows.pop(key, (None, None))
        if state is not None:
            self._states[state] -= 1
        if score is not None:
            self.sum -= score
            self.scored -= 1
            if score == self._best:
                self._best = None

    def put_fields(self, inputs: Iterable[str], outputs: Iterable[str]) -> None:
        """Add the names of a row's input and output fields, for ``columns``."""
        self._inputs.update(inputs)
        self._outputs.update(outputs)

    def columns(self, mode: Mode) -> list[str]:
        """The headings of the second column and of the outputs.

        Where all rows have the same single field, the heading is the field's name.
        """
        second = _SECOND_COLUMN[mode]
        if len(self._inputs) == 1:
            second = next(iter(self._inputs))
        outputs = "instruction" if mode == "candidates" else "outputs"
        if len(self._outputs) == 1:
            outputs = next(iter(self._outputs))
        return [second, outputs]
