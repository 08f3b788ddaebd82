"""Hints as what an instruction is made of: where they come from, what they are worth, and whom they are for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dspynb.errors import InputError
from dspynb.modules.module import Module
from dspynb.running.reader import RunReader
from dspynb.running.tables.hints import HintRow, hint_rows, hint_uses
from dspynb.running.tracing import Trace, record_of

__all__ = ["by_path", "hints_of", "taught", "worth"]


def hints_of(run: RunReader | Trace | str | Path) -> list[HintRow]:
    """The hints of a run that raised scores. Raises InputError where there are none, JournalError."""
    rows = hint_rows(hint_uses(record_of(run)))
    if not rows:
        raise InputError(
            "the run has no hints to distil: none of its attempts had one. Give a run of Refine over rows, such as "
            "that of refine.batch(rows), in which some first attempts fell short"
        )
    helped = [row for row in rows if row.gain > 0]
    if not helped:
        raise InputError(
            f"no hint of the run raised a score (it had {len(rows)}, see run.hints): none is worth keeping"
        )
    return helped


def taught(program: Module) -> list[str]:
    """Paths of the predictors that hints may be for: all but the advisors."""
    advisors = program.advisor_uids()
    return [path for path, predictor in program.named_predictors() if predictor.uid not in advisors]


def worth(hints: Sequence[HintRow], paths: Sequence[str]) -> list[HintRow]:
    """The hints that raised scores, for those of their predictors that are among ``paths``. In the run of a comparison
    a path begins with the name of the program."""

    def known(path: str) -> str:
        return path if path in paths else path.partition(".")[2]

    found = [replace(row, predictors=tuple(p for p in map(known, row.predictors) if p in paths)) for row in hints]
    return [row for row in found if row.predictors and row.gain > 0]


def by_path(hints: Sequence[HintRow]) -> dict[str, list[str]]:
    """Predictor path → its hints, the best first, each once."""
    found: dict[str, dict[str, None]] = {}
    for row in hints:
        for path in row.predictors:
            found.setdefault(path, {})[row.hint] = None
    return {path: list(texts) for path, texts in found.items()}
