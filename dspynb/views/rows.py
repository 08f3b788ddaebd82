"""One row of a view: what it is about (``Node``), all that it can show (``Row``), and what a front end is sent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from dspynb.data import sum_tokens
from dspynb.events import CandidateProposed, PredictorCalled, RolloutEnded
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import AttemptRow, SpanRow
from dspynb.running.tables.candidates import candidate_scores, demos_of, instructions_of, winner_of
from dspynb.views.texts import Named, clip, named, number, one_line

__all__ = ["Mode", "Node", "Row", "Sparse", "mean", "row_of", "sent_row", "standing", "standing_of_row"]

Mode = Literal["attempts", "rows", "candidates", "calls"]
"""What the outermost rows of a run are."""
_HALTED = "halted"
"""The error of a row that was broken off by a stop or by the end of a budget."""
_LONG, _SHORT, _FEW = 240, 80, 50
"""Characters of a cell of the first ``_FEW`` rows, and of those after them, as a front end is sent them."""

Sparse = dict[str, Any]
"""A row or header as it is sent: only the fields that are not empty."""


@dataclass(slots=True, eq=False)
class Node:
    """A row's place in the view. ``of``: the part of the run's record that it shows; ``up``: the row around it;
    ``number``: its place among its siblings, from 0; ``calls``: model calls made in it, but in no row inside it."""

    key: str
    mode: Mode
    of: CandidateProposed | SpanRow | AttemptRow | PredictorCalled
    up: Node | None
    number: int
    children: list[Node] | tuple[()] = ()  # most rows have none: a list for each would keep the garbage collector busy
    calls: list[PredictorCalled] | tuple[()] = ()

    def add_child(self, child: Node) -> None:
        """Put a row inside this one, after the others."""
        if isinstance(self.children, list):
            self.children.append(child)
        else:
            self.children = [child]

    def replace_child(self, before: Node, after: Node) -> None:
        """Put a row inside this one in the place of another."""
        self.children = [after if child is before else child for child in self.children]

    def add_call(self, call: PredictorCalled) -> None:
        """Take note of a call that was made in this row."""
        if isinstance(self.calls, list):
            self.calls.append(call)
        else:
            self.calls = [call]

    def attempts(self) -> list[AttemptRow]:
        """The attempts right inside it."""
        return [child.of for child in self.children if isinstance(child.of, AttemptRow)]


class Row(TypedDict):
    """All that a row can show. ``about``: its hint, inputs, origin or predictor; ``order``: sorts it among its
    siblings; ``by``: ``person``, where a person proposed it or its hint; ``mark``: pinned or dropped, by a person;
    ``tokens``: None where unknown."""

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


def row_of(node: Node, record: RunRecord, *, several: bool = False) -> Row:
    """The row that a node is shown as. ``several``: attempts of more than one search are shown side by side."""
    row: Row = {
        "key": node.key, "order": [0, node.number], "label": str(node.number), "state": "running", "best": False,
        "by": "", "mark": "", "about": [], "score": None, "change": None, "outputs": [], "feedback": "", "error": "",
        "seconds": None, "tokens": 0,
    }  # fmt: skip
    match node.of:
        case AttemptRow():
            _attempt(row, node.of, node, record, several)
        case SpanRow():
            _batch_row(row, node.of, node, record)
        case CandidateProposed():
            _candidate(row, node.of, record)
        case PredictorCalled():
            _call(row, node.of, node.number)
    return row


def standing(node: Node, record: RunRecord) -> tuple[str, float | None]:
    """State and score of a row: what a header counts. Much quicker than the whole row."""
    match node.of:
        case AttemptRow():
            return node.of.state, node.of.score
        case SpanRow():
            return standing_of_row(node.of, record)
        case CandidateProposed():
            own = candidate_scores(record, node.of.id)
            return _state_of_candidate(node.of, record, len(own)), mean(own)
        case PredictorCalled():
            return "failed" if node.of.error else "done", None


def sent_row(node: Node, record: RunRecord, *, several: bool = False) -> Sparse:
    """The row as a front end is sent it: short texts, and only the fields that are not empty."""
    row = row_of(node, record, several=several)
    most = _LONG if node.number < _FEW else _SHORT
    sent: Sparse = {"key": row["key"], "order": row["order"], "label": clip(row["label"], 40), "state": row["state"]}
    for name, pairs in (("about", row["about"]), ("outputs", row["outputs"])):
        if pairs:
            shown = [["", pairs[0][1]]] if len(pairs) == 1 else pairs
            sent[name] = one_line([[of, text[:most]] for of, text in shown], most)
    if row["error"]:
        sent["error"] = one_line(row["error"][: 2 * most], most)
    for name, value in (("score", row["score"]), ("change", row["change"]), ("seconds", row["seconds"])):
        if value is not None:
            sent[name] = _finite(value)
    flags = {
        "best": row["best"],
        "by": row["by"],
        "mark": row["mark"],
        "tokens": row["tokens"],
        "kids": len(node.children),
    }
    for name, flag in flags.items():
        if flag:
            sent[name] = flag
    if node.up is not None:
        sent["up"] = node.up.key
    if isinstance(node.of, CandidateProposed) and node.of.parents:
        sent["parents"] = [f"candidate {parent}" for parent in node.of.parents]
    return sent


def _finite(value: float) -> float | None:
    """The value with six digits; None for infinities and NaN, which JSON cannot express."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


# ── rows of a batch ───────────────────────────────────────────────────────────────────────────────────────────────────
def standing_of_row(span: SpanRow, record: RunRecord) -> tuple[str, float | None]:
    """State and score of a row of a batch: the metric's score, else that of the attempt that was chosen in the row."""
    score = span.score
    if score is None and span.chosen is not None:
        score = span.chosen.score
    if span.error == _HALTED or (record.ended is not None and not span.done):
        return "cancelled", score
    if span.error:
        return "failed", score
    return "done" if span.done else "running", score


def _batch_row(row: Row, span: SpanRow, node: Node, record: RunRecord) -> None:
    above = record.spans.get(span.parent)
    program = f"{above.name}: " if above is not None and above.kind == "evaluation" else ""
    row["label"] = clip(program + span.name.removeprefix("row "), 200)
    row["state"], row["score"] = standing_of_row(span, record)
    row["about"] = named(span.inputs)
    row["outputs"] = named(span.outputs)
    row["error"] = clip(span.error or "")
    row["feedback"] = clip(span.feedback or "")
    row["seconds"] = span.seconds
    usages = [*(call.usage for call in node.calls), *(attempt.usage for attempt in node.attempts())]
    row["tokens"] = span.tokens or sum_tokens(usages)


# ── attempts and calls ────────────────────────────────────────────────────────────────────────────────────────────────
def _attempt(row: Row, attempt: AttemptRow, node: Node, record: RunRecord, several: bool) -> None:
    row["label"] = str(attempt.attempt)
    if node.up is None:
        search = record.search_numbers.get(attempt.parent, 0)
        row["order"] = [search, attempt.attempt]
        if several:
            row["label"] = f"{search + 1}.{attempt.attempt}"
    row["state"] = attempt.state
    row["best"] = attempt.best
    row["by"] = attempt.hint_by
    if isinstance(attempt.hint, Mapping):
        row["about"] = named(attempt.hint)
    elif attempt.hint:
        row["about"] = [["", clip(attempt.hint)]]
    row["score"] = attempt.score
    previous = record.attempt(attempt.parent, attempt.attempt - 1)
    if previous is not None and previous.score is not None and attempt.score is not None:
        row["change"] = attempt.score - previous.score
    row["outputs"] = named(attempt.outputs)
    row["error"] = clip(attempt.error or "")
    row["feedback"] = clip(attempt.feedback or "")
    row["seconds"] = attempt.seconds
    row["tokens"] = attempt.usage.tokens


def _call(row: Row, call: PredictorCalled, place: int) -> None:
    row["label"] = str(place + 1)
    row["state"] = "failed" if call.error else "done"
    row["about"] = [["", clip(call.predictor)]]
    if call.hint:
        row["about"].append(["hint", clip(call.hint)])
    row["outputs"] = named(call.outputs)
    row["error"] = clip(call.error or "")
    row["seconds"] = call.seconds
    row["tokens"] = call.usage.tokens


# ── candidates ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _candidate(row: Row, candidate: CandidateProposed, record: RunRecord) -> None:
    own = candidate_scores(record, candidate.id)
    parent = next((record.candidates[p] for p in candidate.parents if p in record.candidates), None)
    before = None if parent is None else mean(candidate_scores(record, parent.id))
    rollouts = record.rollouts_by_candidate.get((candidate.id, "val"), {})
    row["state"] = _state_of_candidate(candidate, record, len(own))
    row["best"] = candidate.id == winner_of(record)
    row["by"] = "person" if candidate.origin == "person" else ""
    row["mark"] = record.marks.get(candidate.id, "")
    row["about"] = _about_candidate(candidate, record, len(own))
    row["score"] = mean(own)
    if row["score"] is not None and before is not None:
        row["change"] = row["score"] - before
    row["outputs"] = _instructions(candidate, parent, record)
    row["error"] = _failures(rollouts)
    row["tokens"] = sum_tokens(rollout.usage for rollout in rollouts.values())


def _state_of_candidate(candidate: CandidateProposed, record: RunRecord, done: int) -> str:
    """``done``: on how many validation rows it was evaluated."""
    if done == _validation_rows(record):
        return "done"
    tried = bool(record.rollouts_by_candidate.get((candidate.id, "train")))
    if record.ended is not None and not done and not tried:
        return "cancelled"
    if record.ended is not None or (tried and not done):
        return "scored"
    return "running"


def _about_candidate(candidate: CandidateProposed, record: RunRecord, done: int) -> Named:
    about = [["", clip(candidate.origin, 200)]]
    if demos := demos_of(candidate, record):
        about.append(["demos", ", ".join(map(str, demos.values()))])
    total = _validation_rows(record)
    if 0 < done < total:
        about.append(["rows", f"{done:,} of {total:,}"])
    if not done and (tried := candidate_scores(record, candidate.id, "train")):
        about.append(["", f"{number(sum(tried.values()) / len(tried))} on {len(tried):,} training rows"])
    return about


def _instructions(candidate: CandidateProposed, parent: CandidateProposed | None, record: RunRecord) -> Named:
    """The instructions; of several predictors, those that differ from the parent's."""
    own = instructions_of(candidate, record)
    if len(own) == 1:
        return [["", text] for _, text in named(own)]
    before = {} if parent is None else instructions_of(parent, record)
    return named({path: text for path, text in own.items() if before.get(path) != text})


def _failures(rollouts: Mapping[int, RolloutEnded]) -> str:
    errors = [rollout.error for rollout in rollouts.values() if rollout.error is not None]
    return clip(f"{len(errors):,} of {len(rollouts):,} rows failed: {errors[0]}") if errors else ""


def mean(scores: Mapping[int, float]) -> float | None:
    """The mean of scores by row; None where there are none."""
    return sum(scores.values()) / len(scores) if scores else None


def _validation_rows(record: RunRecord) -> int:
    rows: Any = record.started.inputs.get("val") if record.started else None
    return int(rows) if isinstance(rows, int) else 0
