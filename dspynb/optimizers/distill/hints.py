"""Hints from which an instruction is distilled: their source, their gain, and the predictors that they are for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dspynb.errors import InputError
from dspynb.modules.module import Module
from dspynb.running.reader import RunReader
from dspynb.running.tables.hints import HintRow, hint_rows, hint_uses
from dspynb.running.tracing import Trace, record_of

__all__ = ["helpful_hints_for", "hints_by_path", "hints_of_run", "paths_without_advisors"]


def hints_of_run(run: RunReader | Trace | str | Path) -> list[HintRow]:
    """The hints of a run that raised a score. Raises InputError where there are none, JournalError."""
    rows = hint_rows(hint_uses(record_of(run)))
    if not rows:
        raise InputError(
            "the run has no hints to distil: none of its attempts had one. Give a run of Refine over rows, such as "
            "that of refine.batch(rows), in which some first attempts fell short"
        )
    helpful = [row for row in rows if row.gain > 0]
    if not helpful:
        raise InputError(
            f"no hint of the run raised a score (it had {len(rows)}, see run.hints): none is worth keeping"
        )
    return helpful


def paths_without_advisors(program: Module) -> list[str]:
    """The paths of the predictors that hints may be for: all but advisors."""
    advisors = program.advisor_uids()
    return [path for path, predictor in program.named_predictors() if predictor.uid not in advisors]


def helpful_hints_for(hints: Sequence[HintRow], paths: Sequence[str]) -> list[HintRow]:
    """The hints that raised a score, each with those of its predictors that are among ``paths``. A path in the run of a
    comparison begins with the name of the program, which is removed."""

    def local_path(path: str) -> str:
        return path if path in paths else path.partition(".")[2]

    helpful = []
    for row in hints:
        predictors = tuple(path for path in map(local_path, row.predictors) if path in paths)
        if predictors and row.gain > 0:
            helpful.append(replace(row, predictors=predictors))
    return helpful


def hints_by_path(hints: Sequence[HintRow]) -> dict[str, list[str]]:
    """Predictor path → its hints, the best first, without duplicates."""
    by_path: dict[str, dict[str, None]] = {}
    for row in hints:
        for path in row.predictors:
            by_path.setdefault(path, {})[row.hint] = None
    return {path: list(texts) for path, texts in by_path.items()}
