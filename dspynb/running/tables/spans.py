"""The record of a run as spans: a frozen value for each call, module, row, attempt and tool, in tree order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from dspynb.data import Usage
from dspynb.events import Hint, PredictorCalled, plain
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import AttemptRow, SpanRow
from dspynb.running.tables.frames import with_costs

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Span", "spans_frame", "spans_of"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Span:
    """One piece of work that a program did.

    ``kind``: ``call`` (a predictor's model call), ``module``, ``search``, ``attempt``, ``row``, ``run`` or ``tool``.
    ``path``: the dotted path of the predictor for a call, else the name. ``parent``: the span in which this one
    happened, 0 for none. ``hint``: the hint in force, never part of ``inputs``. ``candidate``: the id of the scoped
    instruction and demos, if any. ``usage``: for a span that holds calls, their sum; ``cached``: whether all of them
    were. ``started``: unix seconds. ``seconds``: None for a span that had not ended. ``score``: of an attempt.

    Two spans are equal when a file would hold the same text for both, so a span equals itself read back from a file.
    Values that JSON does not know, such as dates, are read back as text.
    """

    span: int
    kind: str
    path: str
    started: float
    parent: int = 0
    depth: int = 0
    inputs: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[Mapping[str, Any], ...] = ()
    reply: str | None = None
    outputs: Mapping[str, Any] | None = None
    hint: Hint = None
    candidate: str | None = None
    score: float | None = None
    usage: Usage = field(default_factory=Usage)
    cached: bool = False
    model: str = ""
    rollout: int = 0
    seconds: float | None = None
    error: str | None = None

    def _as_json(self) -> str:
        return json.dumps([plain(getattr(self, name)) for name in _FIELDS], default=repr)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Span) and self.span == other.span and self._as_json() == other._as_json()

    def __hash__(self) -> int:
        return self.span


_FIELDS = tuple(f.name for f in fields(Span))
_CALL_FIELDS = tuple(set(_FIELDS) & {f.name for f in fields(PredictorCalled)})


def spans_of(record: RunRecord) -> tuple[Span, ...]:
    """The spans of a record: each parent before the spans inside it, otherwise by the time at which they started."""
    with record.lock:
        drafts = {row.span: _draft_of_span(row) for row in record.spans.values()}
        drafts |= {row.span: _draft_of_attempt(row) for row in record.attempts.values()}
        drafts |= {call.span: _draft_of_call(call) for call in record.calls}
    tree = list(_in_tree_order(drafts))
    for draft in reversed(tree):  # each span before its parent, which adds up the usage
        cached_calls = draft.pop("cached_calls")
        draft["cached"] = bool(cached_calls) and all(cached_calls)
        parent = drafts.get(draft["parent"])
        while parent is not None and parent["kind"] == "call":  # a repair is inside a call, which has its own usage
            parent = drafts.get(parent["parent"])
        if cached_calls and parent is not None:
            parent["usage"] += draft["usage"]
            parent["cached_calls"].append(draft["cached"])
    return tuple(Span(**draft) for draft in tree)


def _draft(row: SpanRow | AttemptRow, **values: Any) -> dict[str, Any]:
    """The fields of a Span, and ``cached_calls``: for each call inside, whether it was cached. ``usage`` and
    ``cached_calls`` are filled in later."""
    common = {name: getattr(row, name) for name in ("span", "parent", "started", "outputs", "score")}
    return {**common, "usage": Usage(), "cached_calls": [], **values}


def _draft_of_span(row: SpanRow) -> dict[str, Any]:
    seconds = row.seconds
    if seconds is None and row.ended is not None:
        seconds = row.ended - row.started
    return _draft(row, kind=row.kind, path=row.name, inputs=row.inputs, error=row.error, seconds=seconds)


def _draft_of_attempt(row: AttemptRow) -> dict[str, Any]:
    error = "cancelled" if row.state == "cancelled" else row.error
    path = f"attempt {row.attempt}"
    return _draft(row, kind="attempt", path=path, hint=row.hint, error=error, seconds=row.seconds)


def _draft_of_call(call: PredictorCalled) -> dict[str, Any]:
    draft = {name: getattr(call, name) for name in _CALL_FIELDS}
    return {**draft, "kind": "call", "path": call.predictor, "started": call.started, "cached_calls": [call.cached]}


def _in_tree_order(drafts: dict[int, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield each span after its parent, and set ``depth``. A span becomes a root where its parent is unknown or where
    the parents form a circle, as in a damaged file."""
    children: dict[int, list[int]] = {}
    for number, draft in sorted(drafts.items(), key=lambda item: (item[1]["started"], item[0]), reverse=True):
        if draft["parent"] not in drafts:
            draft["parent"] = 0
        children.setdefault(draft["parent"], []).append(number)
    visited: set[int] = set()
    for root in [*reversed(children.get(0, ())), *drafts]:
        if root in visited:
            continue
        drafts[root].update(parent=0, depth=0)
        stack = [root]
        while stack:
            number = stack.pop()
            visited.add(number)
            yield drafts[number]
            for child in children.get(number, ()):
                if child not in visited:
                    drafts[child]["depth"] = drafts[number]["depth"] + 1
                    stack.append(child)


_COLUMNS = (
    "span", "parent", "depth", "kind", "path", "inputs", "outputs", "hint", "candidate", "score", "messages", "reply",
    "error", "tokens", "usd", "cached", "seconds", "started", "model", "rollout",
)  # fmt: skip


def spans_frame(spans: Iterable[Span]) -> pd.DataFrame:
    """One row per span: span, parent, depth, kind, path, inputs, outputs, hint, candidate, score, messages, reply,
    error, tokens, usd, cached, seconds, started (UTC), model, rollout.

    The tokens and usd of a span include those of the spans inside it: for a total, sum over ``kind == "call"``.
    """
    import pandas as pd

    spans = list(spans)
    columns: dict[str, Any] = {}
    for name in _COLUMNS:
        if name not in ("tokens", "usd"):
            columns[name] = pd.Series([getattr(span, name) for span in spans], dtype=object)
    columns["tokens"] = pd.Series([span.usage.tokens for span in spans], dtype=object)
    columns["usd"] = pd.Series([span.usage.usd for span in spans], dtype=float)
    columns["messages"] = pd.Series([list(span.messages) for span in spans], dtype=object)
    columns["started"] = pd.to_datetime([span.started for span in spans], unit="s", utc=True)
    numbers: dict[str, Any] = {"span": int, "parent": int, "depth": int, "cached": bool}
    if all(span.rollout < 2**63 for span in spans):  # searches nested three deep have larger numbers
        numbers["rollout"] = int
    frame = pd.DataFrame(columns, columns=list(_COLUMNS))
    return with_costs(frame.astype({**numbers, "score": float, "seconds": float}))
