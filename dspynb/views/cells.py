"""What a row of a view shows: of a candidate, a row of a batch, an attempt or a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from dspynb.data import sum_tokens
from dspynb.events import CandidateProposed, PredictorCalled, RolloutEnded
from dspynb.running.record import AttemptRow, RunRecord, SpanRow
from dspynb.running.tables.candidates import candidate_scores, demos_of, instructions_of, winner_of
from dspynb.views.texts import Named, clip, named, number
from dspynb.views.tree import Node, Tree

__all__ = ["HALTED", "Row", "cells", "standing"]

HALTED = "halted"
"""The error of a row that a stop or the end of a budget broke off."""


class Row(TypedDict):
    """``about``: its hint, inputs, origin or predictor; ``order``: where it goes among its like; ``by``: who made it,
    where it was a person; ``mark``: pinned or dropped, where a person did that; ``tokens``: None where unknown."""

    key: str
    order: list[int]
    label: str
    state: str
    best: bool
    by: str
    mark: str
    about: Named
    score: float | None
    change: float | None
    outputs: Named
    feedback: str
    error: str
    seconds: float | None
    tokens: int | None


def cells(node: Node, tree: Tree) -> Row:
    """The row that a node is shown as."""
    row: Row = {
        "key": node.key, "order": [0, node.number], "label": str(node.number), "state": "running", "best": False,
        "by": "", "mark": "", "about": [], "score": None, "change": None, "outputs": [], "feedback": "", "error": "",
        "seconds": None, "tokens": 0,
    }  # fmt: skip
    match node.of:
        case AttemptRow():
            _attempt(row, node.of, node, tree)
        case SpanRow():
            _batch_row(row, node.of, node, tree.record)
        case CandidateProposed():
            _candidate(row, node.of, tree)
        case PredictorCalled():
            _call(row, node.of, node.number)
    return row


def standing(node: Node, tree: Tree) -> tuple[str, float | None]:
    """State and score of a row: what is counted of it, which is much quicker than all of it."""
    match node.of:
        case AttemptRow():
            return node.of.state, node.of.score
        case SpanRow():
            return _state_of_row(node.of, tree.record), _score_of_row(node.of, node)
        case CandidateProposed():
            row = cells(node, tree)
            return row["state"], row["score"]
        case PredictorCalled():
            return "failed" if node.of.error else "done", None


def _state_of_row(span: SpanRow, record: RunRecord) -> str:
    if span.error == HALTED or (record.ended is not None and not span.done):
        return "cancelled"
    return "failed" if span.error else "done" if span.done else "running"


def _score_of_row(span: SpanRow, node: Node) -> float | None:
    """The metric's, else that of the attempt that was chosen in it."""
    if span.score is not None or not node.children:
        return span.score
    return next((attempt.score for attempt in node.attempts() if attempt.best), None)


def _attempt(row: Row, attempt: AttemptRow, node: Node, tree: Tree) -> None:
    previous = tree.previous(node)
    if node.up is None:
        row["order"] = [tree.search_of(node), attempt.attempt]
    several = node.up is None and tree.searches() > 1
    row["label"] = f"{tree.search_of(node) + 1}.{attempt.attempt}" if several else str(attempt.attempt)
    row["state"], row["best"], row["by"] = attempt.state, attempt.best, attempt.hint_by
    if isinstance(attempt.hint, Mapping):
        row["about"] = named(attempt.hint)
    elif attempt.hint:
        row["about"] = [["", clip(attempt.hint)]]
    row["score"] = attempt.score
    if previous is not None and previous.score is not None and attempt.score is not None:
        row["change"] = attempt.score - previous.score
    row["outputs"], row["error"] = named(attempt.outputs), clip(attempt.error or "")
    row["feedback"], row["seconds"], row["tokens"] = clip(attempt.feedback or ""), attempt.seconds, attempt.usage.tokens


def _batch_row(row: Row, span: SpanRow, node: Node, record: RunRecord) -> None:
    above = record.spans.get(span.parent)
    program = f"{above.name}: " if above is not None and above.kind == "evaluation" else ""
    row["label"] = clip(program + span.name.removeprefix("row "), 200)
    row["state"], row["score"] = _state_of_row(span, record), _score_of_row(span, node)
    row["about"], row["outputs"], row["error"] = named(span.inputs), named(span.outputs), clip(span.error or "")
    row["feedback"], row["seconds"] = clip(span.feedback or ""), span.seconds
    usages = [*(call.usage for call in node.calls), *(attempt.usage for attempt in node.attempts())]
    row["tokens"] = span.tokens or sum_tokens(usages)


def _call(row: Row, call: PredictorCalled, place: int) -> None:
    row["label"], row["state"] = str(place + 1), "failed" if call.error else "done"
    row["about"] = [["", clip(call.predictor)], *([["hint", clip(call.hint)]] if call.hint else [])]
    row["outputs"], row["error"] = named(call.outputs), clip(call.error or "")
    row["seconds"], row["tokens"] = call.seconds, call.usage.tokens


def _candidate(row: Row, candidate: CandidateProposed, tree: Tree) -> None:
    record = tree.record
    own, total = candidate_scores(record, candidate.id), _total(record)
    parent = next((record.candidates[p] for p in candidate.parents if p in record.candidates), None)
    before = _mean(candidate_scores(record, parent.id)) if parent else None
    rollouts, tried = record.rollouts_of(candidate.id), candidate_scores(record, candidate.id, "train")
    row["state"] = _state(record, len(own), total, bool(tried))
    row["best"] = candidate.id == winner_of(record)
    row["by"], row["mark"] = "person" if candidate.origin == "person" else "", tree.fates.get(candidate.id, "")
    row["about"] = _about(candidate, record, len(own), total)
    if tried and not own:
        row["about"].append(["", f"{number(sum(tried.values()) / len(tried))} on {len(tried):,} training rows"])
    row["score"] = _mean(own)
    row["change"] = None if row["score"] is None or before is None else row["score"] - before
    row["outputs"] = _changed(candidate, parent, record)
    row["error"] = _failures(rollouts)
    row["tokens"] = sum_tokens(rollout.usage for rollout in rollouts.values())


def _state(record: RunRecord, done: int, total: int, tried: bool) -> str:
    if done == total:
        return "done"
    if record.ended is not None and not done and not tried:
        return "cancelled"
    return "scored" if (tried and not done) or record.ended is not None else "running"


def _about(candidate: CandidateProposed, record: RunRecord, done: int, total: int) -> Named:
    demos = demos_of(candidate, record)
    told = [["", clip(candidate.origin, 200)]]
    if demos:
        told.append(["demos", ", ".join(map(str, demos.values()))])
    return [*told, *([["rows", f"{done:,} of {total:,}"]] if 0 < done < total else [])]


def _changed(candidate: CandidateProposed, parent: CandidateProposed | None, record: RunRecord) -> Named:
    """The instructions; of several predictors, those that are not the parent's."""
    own = instructions_of(candidate, record)
    before = instructions_of(parent, record) if parent is not None and len(own) > 1 else {}
    shown = named({path: text for path, text in own.items() if before.get(path) != text})
    return [["", text] for _, text in shown] if len(own) == 1 else shown


def _failures(rollouts: Mapping[int, RolloutEnded]) -> str:
    errors = [rollout.error for rollout in rollouts.values() if rollout.error is not None]
    return clip(f"{len(errors):,} of {len(rollouts):,} rows failed: {errors[0]}") if errors else ""


def _mean(scores: Mapping[int, float]) -> float | None:
    return sum(scores.values()) / len(scores) if scores else None


def _total(record: RunRecord) -> int:
    told: Any = record.started.inputs.get("val") if record.started else None
    return int(told) if isinstance(told, int) else 0
