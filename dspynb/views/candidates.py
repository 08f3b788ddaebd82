"""The candidates of an optimizer's run as rows of a view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspynb.events import CandidateProposed, RolloutEnded
from dspynb.results import Fold
from dspynb.results.candidates import demos_of, instructions_of, winner_of
from dspynb.results.diffs import MessageDiff, diff_words
from dspynb.views.details import Block, changes, text_block
from dspynb.views.texts import Named, clip, named

__all__ = ["candidate_cells", "shown_candidates"]

Scores = Mapping[str, Mapping[int, float]]
"""Candidate → row → score."""
_SHOWN_DEMOS = 8


def shown_candidates(fold: Fold, most: int) -> list[CandidateProposed]:
    """The first candidates that were made, and the best where it came after them."""
    made, best = list(fold.candidates.values()), fold.candidates.get(winner_of(fold) or "")
    return made[:most] + ([best] if best is not None and best not in made[:most] else [])


def candidate_cells(
    candidate: CandidateProposed, fold: Fold, scores: Mapping[str, Mapping[int, float]]
) -> dict[str, Any]:
    """What a row shows of a candidate."""
    own, total = scores.get(candidate.id, {}), _total(fold)
    parent = next((fold.candidates[p] for p in candidate.parents if p in fold.candidates), None)
    mean, before = _mean(own), _mean(scores.get(parent.id, {})) if parent else None
    records = fold.tried.get((candidate.id, "val"), {})
    return {
        "state": _state(fold, len(own), total),
        "best": candidate.id == winner_of(fold),
        "about": _about(candidate, fold, len(own), total),
        "score": mean,
        "change": None if mean is None or before is None else mean - before,
        "outputs": _changed(candidate, parent, fold),
        "error": _failures(records),
        "tokens": sum(record.usage.tokens for record in records.values()),
        "detail": _detail(candidate, parent, fold),
    }


def _state(fold: Fold, done: int, total: int) -> str:
    if done == total:
        return "done"
    if fold.ended is not None:
        return "scored" if done else "cancelled"
    return "running"


def _about(candidate: CandidateProposed, fold: Fold, done: int, total: int) -> Named:
    demos = demos_of(candidate, fold)
    told = [["", clip(candidate.origin, 200)]]
    if demos:
        told.append(["demos", ", ".join(map(str, demos.values()))])
    return [*told, *([["rows", f"{done:,} of {total:,}"]] if done != total else [])]


def _changed(candidate: CandidateProposed, parent: CandidateProposed | None, fold: Fold) -> Named:
    """The instructions; of several predictors, those that are not the parent's."""
    own = instructions_of(candidate, fold)
    before = instructions_of(parent, fold) if parent is not None and len(own) > 1 else {}
    shown = named({path: text for path, text in own.items() if before.get(path) != text})
    return [["", text] for _, text in shown] if len(own) == 1 else shown


def _failures(records: Mapping[int, RolloutEnded]) -> str:
    errors = [record.error for record in records.values() if record.error is not None]
    return clip(f"{len(errors):,} of {len(records):,} rows failed: {errors[0]}") if errors else ""


def _detail(candidate: CandidateProposed, parent: CandidateProposed | None, fold: Fold) -> list[Block]:
    """Instructions against the parent's, word by word, and the demos."""
    own = instructions_of(candidate, fold)
    before = own if parent is None else instructions_of(parent, fold)
    blocks = []
    for path, text in own.items():
        if parent is None:
            blocks.append(text_block(f"{path} · instruction", text))
        else:
            blocks.append(changes(MessageDiff(f"{path} · instruction", diff_words(before.get(path, ""), text))))
    for path, part in candidate.parts.items():
        for number, demo in enumerate((part.get("demos") or ())[:_SHOWN_DEMOS], start=1):
            told = "\n".join(f"{name}: {value}" for name, value in named(demo))
            blocks.append(text_block(f"{path} · demo {number}", told))
    return blocks


def _mean(scores: Mapping[int, float]) -> float | None:
    return sum(scores.values()) / len(scores) if scores else None


def _total(fold: Fold) -> int:
    told = fold.started.inputs.get("val") if fold.started else None
    return int(told) if isinstance(told, int) else 0
