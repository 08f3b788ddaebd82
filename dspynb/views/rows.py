"""One row of a view: its place in the view (``Node``), everything it shows (``Row``), and what a front end is sent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from dspynb.data import sum_tokens
from dspynb.events import CandidateProposed, PredictorCalled, RolloutEnded
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import AttemptRow, SpanRow, candidate_name
from dspynb.running.streamed_calls import StreamedCall
from dspynb.running.tables.candidates import candidate_scores, demos_of, instructions_of, winner_of
from dspynb.views.texts import Named, clip, named, number, one_line

__all__ = [
    "Mode",
    "Node",
    "Payload",
    "Row",
    "build_row",
    "mean",
    "row_payload",
    "state_and_score",
    "state_and_score_of_row",
]

Mode = Literal["attempts", "rows", "candidates", "calls"]
"""What the outermost rows of a run are."""
_HALTED = "halted"
"""The error of a row that did not finish because the run was stopped or its budget was spent."""
_LONG_CELL = 240
"""Characters of a cell in the first ``_LONG_ROWS`` rows, as they are sent to a front end."""
_SHORT_CELL = 80
"""Characters of a cell in later rows."""
_LONG_ROWS = 50

Payload = dict[str, Any]
"""A row or header as it is sent to a front end: only the fields that are not empty."""


@dataclass(slots=True, eq=False)
class Node:
    """A row and its place in the view."""

    key: str
    mode: Mode
    item: CandidateProposed | SpanRow | AttemptRow | PredictorCalled | StreamedCall
    """The part of the run's record that the row shows, or a call that has not ended."""
    parent: Node | None
    """The row that this one is inside."""
    number: int
    """Its position among its siblings, from 0."""
    children: list[Node] | tuple[()] = ()
    """The rows inside it. A tuple while it has none: a list for each row would slow down the garbage collector."""
    calls: list[PredictorCalled] | tuple[()] = ()
    """Its model calls, without those of its children."""

    def add_child(self, child: Node) -> None:
        """Add a row inside this one, after the others."""
        if isinstance(self.children, list):
            self.children.append(child)
        else:
            self.children = [child]

    def replace_child(self, before: Node, after: Node) -> None:
        """Replace a row inside this one."""
        self.children = [after if child is before else child for child in self.children]

    def add_call(self, call: PredictorCalled) -> None:
        """Add a model call of this row."""
        if isinstance(self.calls, list):
            self.calls.append(call)
        else:
            self.calls = [call]

    def attempts(self) -> list[AttemptRow]:
        """The attempts among its children."""
        return [child.item for child in self.children if isinstance(child.item, AttemptRow)]


class Row(TypedDict):
    """Everything that a row can show."""

    key: str
    order: list[int]
    """Sorts it among its siblings."""
    label: str
    state: str
    best: bool
    by: str
    """``person`` if a person proposed the candidate or the hint; else empty."""
    mark: str
    """``pinned`` or ``dropped`` if a person did so; else empty."""
    about: Named
    """The second column: its hint, inputs, origin or predictor."""
    score: float | None
    change: float | None
    """The difference to the score of the previous attempt, or of the parent candidate."""
    outputs: Named
    feedback: str
    error: str
    seconds: float | None
    tokens: int | None
    """None where the number is unknown."""


def build_row(node: Node, record: RunRecord, *, several: bool = False) -> Row:
    """Everything that a node's row shows. ``several``: attempts of more than one search are shown in one table."""
    row: Row = {
        "key": node.key, "order": [0, node.number], "label": str(node.number), "state": "running", "best": False,
        "by": "", "mark": "", "about": [], "score": None, "change": None, "outputs": [], "feedback": "", "error": "",
        "seconds": None, "tokens": 0,
    }  # fmt: skip
    match node.item:
        case AttemptRow():
            _attempt(row, node.item, node, record, several)
        case SpanRow():
            _batch_row(row, node.item, node, record)
        case CandidateProposed():
            row["label"] = candidate_name(node.number)
            _candidate(row, node.item, record)
        case PredictorCalled():
            _call(row, node.item, node.number)
        case StreamedCall():
            row["label"] = str(node.number + 1)
            row["about"] = [["", clip(node.item.predictor)]]
    return row


def state_and_score(node: Node, record: RunRecord) -> tuple[str, float | None]:
    """The state and score of a row, which a header counts. Much faster than building the whole row."""
    match node.item:
        case AttemptRow():
            return _state_of_attempt(node.item, record), node.item.score
        case SpanRow():
            return state_and_score_of_row(node.item, record)
        case CandidateProposed():
            scores = candidate_scores(record, node.item.id)
            return _state_of_candidate(node.item, record, len(scores)), mean(scores)
        case PredictorCalled():
            return "failed" if node.item.error else "done", None
        case StreamedCall():
            return "running", None


def row_payload(node: Node, record: RunRecord, *, several: bool = False) -> Payload:
    """The row as it is sent to a front end: with short texts, and only the fields that are not empty."""
    row = build_row(node, record, several=several)
    most = _LONG_CELL if node.number < _LONG_ROWS else _SHORT_CELL
    payload: Payload = {
        "key": row["key"],
        "order": row["order"],
        "label": clip(row["label"], 40),
        "state": row["state"],
    }
    for name, pairs in (("about", row["about"]), ("outputs", row["outputs"])):
        if pairs:
            payload[name] = _cell_text(pairs, most)
    if row["error"]:
        payload["error"] = one_line(row["error"][: 2 * most], most)
    for name, value in (("score", row["score"]), ("change", row["change"]), ("seconds", row["seconds"])):
        if value is not None:
            payload[name] = _finite(value)
    optional = {
        "best": row["best"],
        "by": row["by"],
        "mark": row["mark"],
        "tokens": row["tokens"],
        "kids": len(node.children),
    }
    for name, field in optional.items():
        if field:
            payload[name] = field
    if node.parent is not None:
        payload["up"] = node.parent.key
    if isinstance(node.item, CandidateProposed) and node.item.parents:
        payload["parents"] = [f"candidate {parent}" for parent in node.item.parents]
    return payload


def _cell_text(pairs: Named, most: int) -> str:
    """Named texts on one line of at most ``most`` characters; a single text stands without its name."""
    if len(pairs) == 1:
        pairs = [["", pairs[0][1]]]
    return one_line([[name, text[:most]] for name, text in pairs], most)


def _finite(value: float) -> float | None:
    """The value with six significant digits; None for infinities and NaN, which JSON cannot express."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _state_of_attempt(attempt: AttemptRow, record: RunRecord) -> str:
    if attempt.end is None and record.is_over:
        return "cancelled"
    return attempt.state


# ── rows of a batch ───────────────────────────────────────────────────────────────────────────────────────────────────
def state_and_score_of_row(span: SpanRow, record: RunRecord) -> tuple[str, float | None]:
    """The state and score of a row of a batch. Without a score of a metric, the score of its chosen attempt counts."""
    score = span.score
    if score is None and span.chosen is not None:
        score = span.chosen.score
    if span.error == _HALTED or (record.is_over and not span.done):
        return "cancelled", score
    if span.error:
        return "failed", score
    return "done" if span.done else "running", score


def _batch_row(row: Row, span: SpanRow, node: Node, record: RunRecord) -> None:
    label = span.name.removeprefix("row ")
    parent = record.spans.get(span.parent)
    if parent is not None and parent.kind == "evaluation":
        label = f"{parent.name}: {label}"
    row["label"] = clip(label, 200)
    row["state"], row["score"] = state_and_score_of_row(span, record)
    row["about"] = named(span.inputs)
    row["outputs"] = named(span.outputs)
    row["error"] = clip(span.error or "")
    row["feedback"] = clip(span.feedback or "")
    row["seconds"] = span.seconds
    usages = [call.usage for call in node.calls]
    usages += [attempt.usage for attempt in node.attempts()]
    row["tokens"] = span.tokens or sum_tokens(usages)


# ── attempts and calls ────────────────────────────────────────────────────────────────────────────────────────────────
def _attempt(row: Row, attempt: AttemptRow, node: Node, record: RunRecord, several: bool) -> None:
    row["label"] = str(attempt.attempt)
    if node.parent is None:
        search = record.search_numbers.get(attempt.parent, 0)
        row["order"] = [search, attempt.attempt]
        if several:
            row["label"] = f"{search + 1}.{attempt.attempt}"
    row["state"] = _state_of_attempt(attempt, record)
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


def _call(row: Row, call: PredictorCalled, position: int) -> None:
    row["label"] = str(position + 1)
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
    scores = candidate_scores(record, candidate.id)
    score = mean(scores)
    parent = _first_parent(candidate, record)
    parent_score = None if parent is None else mean(candidate_scores(record, parent.id))
    rollouts = record.rollouts_by_candidate.get((candidate.id, "val"), {})
    row["state"] = _state_of_candidate(candidate, record, len(scores))
    row["best"] = candidate.id == winner_of(record)
    row["by"] = "person" if candidate.origin == "person" else ""
    row["mark"] = record.marks.get(candidate.id, "")
    row["about"] = _about_candidate(candidate, record, len(scores))
    row["score"] = score
    if score is not None and parent_score is not None:
        row["change"] = score - parent_score
    row["outputs"] = _instructions(candidate, parent, record)
    row["error"] = _failures(rollouts)
    row["tokens"] = sum_tokens(rollout.usage for rollout in rollouts.values())


def _first_parent(candidate: CandidateProposed, record: RunRecord) -> CandidateProposed | None:
    """Its first parent that is in the record."""
    for parent in candidate.parents:
        if parent in record.candidates:
            return record.candidates[parent]
    return None


def _state_of_candidate(candidate: CandidateProposed, record: RunRecord, scored_rows: int) -> str:
    """The state of a candidate that was scored on ``scored_rows`` validation rows."""
    if scored_rows == _validation_rows(record):
        return "done"
    has_training_rollouts = bool(record.rollouts_by_candidate.get((candidate.id, "train")))
    if record.is_over and not scored_rows and not has_training_rollouts:
        return "cancelled"
    if record.is_over or (has_training_rollouts and not scored_rows):
        return "scored"
    return "running"


def _about_candidate(candidate: CandidateProposed, record: RunRecord, scored_rows: int) -> Named:
    about = [["", clip(candidate.origin, 200)]]
    demos = demos_of(candidate, record)
    if demos:
        about.append(["demos", ", ".join(map(str, demos.values()))])
    total = _validation_rows(record)
    if 0 < scored_rows < total:
        about.append(["rows", f"{scored_rows:,} of {total:,}"])
    if not scored_rows:
        training_scores = candidate_scores(record, candidate.id, "train")
        training_mean = mean(training_scores)
        if training_mean is not None:
            about.append(["", f"{number(training_mean)} on {len(training_scores):,} training rows"])
    return about


def _instructions(candidate: CandidateProposed, parent: CandidateProposed | None, record: RunRecord) -> Named:
    """Its instruction; for a program with several predictors, the instructions that differ from the parent's."""
    instructions = instructions_of(candidate, record)
    if len(instructions) == 1:
        return [["", text] for _, text in named(instructions)]
    parent_instructions = {} if parent is None else instructions_of(parent, record)
    changed = {path: text for path, text in instructions.items() if parent_instructions.get(path) != text}
    return named(changed)


def _failures(rollouts: Mapping[int, RolloutEnded]) -> str:
    """How many rows failed, and the first error; empty if none failed."""
    errors = [rollout.error for rollout in rollouts.values() if rollout.error is not None]
    if not errors:
        return ""
    return clip(f"{len(errors):,} of {len(rollouts):,} rows failed: {errors[0]}")


def mean(scores: Mapping[int, float]) -> float | None:
    """The mean of scores by row; None without scores."""
    return sum(scores.values()) / len(scores) if scores else None


def _validation_rows(record: RunRecord) -> int:
    rows: Any = record.started.inputs.get("val") if record.started else None
    return int(rows) if isinstance(rows, int) else 0
