"""A run's record as spans: one frozen value of each call, module, row, attempt and tool, in the order of a tree."""

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
    ``path``: of a call the predictor's dotted path, else the name. ``parent``: the span it happened in, 0 for none.
    ``hint`` is never part of ``inputs``; ``candidate`` is the id of the scoped instruction and demos, where there are
    any. ``usage`` of what holds calls is their sum, and it is ``cached`` if all of them are. ``started``: unix seconds;
    ``seconds`` is None for what had not ended. ``score``: of an attempt.

    Two spans are equal when a file would hold the same of them, so a span equals itself read back; values that JSON
    does not know (dates, say) are read back as text.
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

    def _written(self) -> str:
        return json.dumps([plain(getattr(self, name)) for name in _NAMES], default=repr)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Span) and self.span == other.span and self._written() == other._written()

    def __hash__(self) -> int:
        return self.span


_NAMES = tuple(f.name for f in fields(Span))
_OF_CALLS = tuple(set(_NAMES) & {f.name for f in fields(PredictorCalled)})


def spans_of(record: RunRecord) -> tuple[Span, ...]:
    """The spans of a record: parents before what happened in them, otherwise by the time they started."""
    with record.lock:
        drafts = {row.span: _draft_of_span(row) for row in record.spans.values()}
        drafts |= {row.span: _draft_of_attempt(row) for row in record.attempts.values()}
        drafts |= {call.span: _draft_of_call(call) for call in record.calls}
    tree = list(_in_order(drafts))
    for draft in reversed(tree):  # from the leaves up
        leaves = draft.pop("leaves")
        draft["cached"] = bool(leaves) and all(leaves)
        parent = drafts.get(draft["parent"])
        while parent is not None and parent["kind"] == "call":  # of a repair: a call's usage is its own
            parent = drafts.get(parent["parent"])
        if leaves and parent is not None:
            parent["usage"] += draft["usage"]
            parent["leaves"].append(draft["cached"])
    return tuple(Span(**draft) for draft in tree)


def _draft(row: SpanRow | AttemptRow, **more: Any) -> dict[str, Any]:
    """What is the same for spans and attempts; usage and leaves are those of the calls inside, filled in later."""
    same = {name: getattr(row, name) for name in ("span", "parent", "started", "outputs", "score")}
    return {**same, "usage": Usage(), "leaves": [], **more}


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
    same = {name: getattr(call, name) for name in _OF_CALLS}
    began = call.at - call.seconds
    return {**same, "kind": "call", "path": call.predictor, "started": began, "leaves": [call.cached]}


def _in_order(drafts: dict[int, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each span after its parent. A parent that is not among them is none, and neither is one in a circle."""
    inside: dict[int, list[int]] = {}
    for number, draft in sorted(drafts.items(), key=lambda item: (item[1]["started"], item[0]), reverse=True):
        if draft["parent"] not in drafts:
            draft["parent"] = 0
        inside.setdefault(draft["parent"], []).append(number)
    seen: set[int] = set()
    for root in [*reversed(inside.get(0, ())), *drafts]:
        if root not in seen:
            drafts[root].update(parent=0, depth=0)
        waiting = [] if root in seen else [root]
        while waiting:
            number = waiting.pop()
            seen.add(number)
            yield drafts[number]
            below = [inner for inner in inside.get(number, ()) if inner not in seen]
            for inner in below:
                drafts[inner]["depth"] = drafts[number]["depth"] + 1
            waiting += below


_COLUMNS = (
    "span", "parent", "depth", "kind", "path", "inputs", "outputs", "hint", "candidate", "score", "messages", "reply",
    "error", "tokens", "usd", "cached", "seconds", "started", "model", "rollout",
)  # fmt: skip


def spans_frame(spans: Iterable[Span]) -> pd.DataFrame:
    """One row a span: span, parent, depth, kind, path, inputs, outputs, hint, candidate, score, messages, reply, error,
    tokens, usd, cached, seconds, started (UTC), model, rollout. Tokens and usd of a span hold those inside it: sum them
    over ``kind == "call"``."""
    import pandas as pd

    rows = list(spans)
    cells: dict[str, Any] = {
        name: pd.Series([getattr(row, name) for row in rows], dtype=object)
        for name in _COLUMNS
        if name not in ("tokens", "usd")
    }
    cells["tokens"] = pd.Series([row.usage.tokens for row in rows], dtype=object)
    cells["usd"] = pd.Series([row.usage.usd for row in rows], dtype=float)
    cells["messages"] = pd.Series([list(row.messages) for row in rows], dtype=object)
    cells["started"] = pd.to_datetime([row.started for row in rows], unit="s", utc=True)
    numbers: dict[str, Any] = {"span": int, "parent": int, "depth": int, "cached": bool}
    if all(row.rollout < 2**63 for row in rows):  # of searches in searches in searches it is larger
        numbers["rollout"] = int
    frame = pd.DataFrame(cells, columns=list(_COLUMNS))
    return with_costs(frame.astype({**numbers, "score": float, "seconds": float}))
