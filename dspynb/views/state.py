"""A run as a header and rows of plain JSON-able values: what the live widget, static HTML and text all show.

``RunState`` reads a record that goes on growing. For a view that shows all there is, ``snapshot``; for one that is told
what changed, ``add`` and ``changes``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any, TypedDict

from dspynb.data import tokens_text
from dspynb.events import CandidateProposed, Event
from dspynb.json_checks import is_real
from dspynb.running.record import AttemptRow, RunRecord, SpanRow
from dspynb.running.tables.candidates import summary_of, winner_of
from dspynb.views.cells import Row, cells, standing
from dspynb.views.details import Detail, detail_of
from dspynb.views.texts import clip, number, one_line
from dspynb.views.tree import Mode, Node, Tree

__all__ = ["MOST_FAILED", "MOST_ROWS", "MOST_SENT", "Header", "Row", "RunState", "Sparse"]

MOST_ROWS = 200
"""Rows that text and plain tables show from the start of a run; after them only failed ones, up to ``MOST_FAILED``."""
MOST_FAILED = 50
MOST_SENT = 20_000
"""Rows that a front end is sent; a longer run says so, and its tables have all."""
MOST_AT_ONCE = 1000
"""Rows that ``changes`` gives at a time: to make more would hold the event loop too long."""
_LONG, _SHORT, _FEW = 240, 80, 50
"""Characters of a cell of the first ``_FEW`` rows, and of those after them, as a front end is sent them."""

Sparse = dict[str, Any]
"""A row or header as it is sent: what is not as in a new one."""


class Header(TypedDict):
    """What is said above the rows. ``result`` (best or mean score), ``progress`` and ``facts`` (what it cost) are ready
    to show; ``done`` of ``total`` is how far it is; ``low`` and ``high`` are the ends of the score bars; ``columns``
    head the second column and the outputs; ``summary`` says how an optimizer's run ended."""

    mode: str
    state: str
    name: str
    kind: str
    progress: str
    done: int
    total: int | None
    result: str
    facts: list[str]
    elapsed: float | None
    columns: list[str]
    low: float
    high: float
    notes: list[str]
    summary: str


class RunState:
    """``search``: show only the attempts of this span."""

    def __init__(self, record: RunRecord, search: int = 0) -> None:
        self.record, self.tree = record, Tree(record, search)
        self._counts = _Counts()
        self._counted: Mode | None = None
        self._unsent: dict[str, None] = {}
        self._fields: dict[str, set[str]] = {"about": set(), "outputs": set()}  # names that rows have there

    # ── whole ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def mode(self) -> Mode:
        """Whether the run is seen as attempts, rows of a batch, an optimizer's candidates, or single calls."""
        return self.tree.mode()

    def snapshot(self, most: int = MOST_ROWS) -> tuple[Header, list[Row]]:
        """The header and the outermost rows: the first ``most``, then those that failed, and the best."""
        tops = self.tree.tops()
        failed = [node for node in tops[most:] if standing(node, self.tree)[0] == "failed"][:MOST_FAILED]
        best = [
            node for node in tops[most:] if isinstance(node.of, AttemptRow | CandidateProposed) and self._is_best(node)
        ]
        shown = dict.fromkeys([*tops[:most], *failed, *best])
        rows = [cells(node, self.tree) for node in shown]
        header = self.header()
        if len(tops) > len(rows):
            told = f"{len(rows):,} of {len(tops):,} {header['mode']} are shown; the run's tables have all of them"
            header["notes"].append(told)
        for row in rows:  # where the heading names the field, it needs no naming
            row["about"], row["outputs"] = (
                [["" if name in header["columns"] else name, text] for name, text in pairs]
                for pairs in (row["about"], row["outputs"])
            )
        return header, rows

    def _is_best(self, node: Node) -> bool:
        return node.of.best if isinstance(node.of, AttemptRow) else node.key == f"candidate {winner_of(self.record)}"

    def detail(self, key: str) -> Detail | None:
        """Everything about a row; None where there is no such row."""
        node = self.tree.nodes.get(key)
        return None if node is None else detail_of(node, self.record)

    # ── piecemeal ─────────────────────────────────────────────────────────────────────────────────────────────────
    def add(self, event: Event) -> None:
        """Take an event."""
        self.record.apply(event)
        self.tree.add(event)

    def changes(self, opened: Iterable[str] = (), most: int = MOST_AT_ONCE) -> tuple[list[Sparse], list[str]]:
        """Rows that changed since this was asked last, and the keys of those that are gone. Outermost rows, and those
        right inside the ``opened`` ones; above ``most`` at a time, the others come when it is asked next."""
        mode = self.mode()
        changed = self.tree.changed if mode == self._counted else self.tree.changed | set(self.tree.nodes)
        self.tree.changed = set()
        self._count(mode, changed)
        self._unsent |= dict.fromkeys(changed)
        opened, rows, gone = set(opened), list[Sparse](), list[str]()
        while self._unsent and len(rows) < most:
            key = next(iter(self._unsent))
            del self._unsent[key]
            node = self.tree.nodes.get(key)
            if node is None or (node.up is None and node.mode != mode):
                gone.append(key)
            elif self._is_sent(node, mode, opened):
                rows.append(self.sent(node))
        return rows, gone

    @property
    def count(self) -> int:
        """How many outermost rows there are, as of the last header."""
        return self._counts.all

    @property
    def waiting(self) -> bool:
        """Whether rows that changed have not been given yet."""
        return bool(self._unsent)

    def _is_sent(self, node: Node, mode: Mode, opened: set[str]) -> bool:
        if self.tree.is_top(node, mode):
            return node.number < MOST_SENT
        return node.up is not None and node.up.key in opened

    def everything(self, opened: Iterable[str] = ()) -> list[Sparse]:
        """All rows that a front end is sent."""
        opened = set(opened)
        nodes = self.tree.tops()[:MOST_SENT]
        inside = [child for node in self.tree.inside(nodes) if node.key in opened for child in node.children]
        return [self.sent(node) for node in [*nodes, *inside]]

    def sent(self, node: Node) -> Sparse:
        """A row as a front end is sent it."""
        return _sparse(cells(node, self.tree), node)

    # ── the header ────────────────────────────────────────────────────────────────────────────────────────────────
    def _count(self, mode: Mode, changed: Iterable[str]) -> None:
        """Count the outermost rows among those that changed."""
        if mode != self._counted:
            self._counted, self._counts = mode, _Counts()
        for key in changed:
            node = self.tree.nodes.get(key)
            if node is None or not self.tree.is_top(node, mode):
                self._counts.drop(key)
            else:
                self._counts.put(key, *standing(node, self.tree))
                if not isinstance(node.of, CandidateProposed):
                    self._fields["outputs"].update(node.of.outputs or ())
                if isinstance(node.of, SpanRow):
                    self._fields["about"].update(node.of.inputs)

    def _columns(self, mode: Mode) -> list[str]:
        """The headings of the second column and the outputs: a field's name, where all rows have that one field."""
        usual = {"about": _ABOUT[mode], "outputs": "instruction" if mode == "candidates" else "outputs"}
        found = {place: names for place, names in self._fields.items() if len(names) == 1 and "" not in names}
        return [next(iter(found.get(place, {name}))) for place, name in usual.items()]

    def header(self) -> Header:
        """The header, as of now."""
        record, started, mode = self.record, self.record.started, self.mode()
        if self.tree.changed or mode != self._counted:  # nobody asks for changes
            self._count(mode, self.tree.nodes)
        counts = self._counts
        notes = [
            clip(f"wave {note.wave} had no new hint: the advisor failed: {note.error}", 500)
            for note in record.hint_failures[:20]
        ]
        notes += ["a reward that returns dn.Score(value, feedback=...) needs no advisor"] if notes else []
        if record.ended and record.ended.error:
            notes.append(clip(record.ended.error))
        done, total = self._done(mode)
        return {
            "mode": mode,
            "state": record.status,
            "name": clip(started.name if started else "", 200),
            "kind": started.kind if started else "",
            "progress": self._progress(mode, done, total),
            "done": done,
            "total": total,
            "result": self._result(mode),
            "facts": self._costs(),
            "elapsed": _elapsed(record),
            "columns": self._columns(mode),
            "low": min(0.0, counts.low),
            "high": max(1.0, counts.high),
            "notes": notes,
            "summary": clip(summary_of(record), 1000) if mode == "candidates" and record.ended else "",
        }

    def _done(self, mode: Mode) -> tuple[int, int | None]:
        """How many attempts or rows have ended, and of how many; of an optimizer, its candidates."""
        counts, started = self._counts, self.record.started
        ended = counts.all - counts.of("running")
        if mode == "rows":
            told: Any = started.inputs.get("rows") if started else None
            return ended - counts.of("cancelled"), told if isinstance(told, int) else counts.all
        limit: Any = started.settings.get("n") if started else None
        return ended, limit if mode == "attempts" and isinstance(limit, int) and self.tree.searches() <= 1 else None

    def _progress(self, mode: Mode, done: int, total: int | None) -> str:
        counts, record = self._counts, self.record
        if mode == "rows":
            failed = f", {counts.of('failed'):,} failed" if counts.of("failed") else ""
            return f"{done:,} of {total:,} rows{failed}"
        if mode == "calls":
            return "" if record.ended else "calling"
        if mode == "candidates":
            told = f"{_n(counts.all, 'candidate')}, {_n(len(record.rollouts), 'rollout')}"
            bad = sum(proposal.error is not None for proposal in record.proposals)
            return f"{told}, {_n(bad, 'failed proposal')}" if bad else told
        if self.tree.searches() > 1:
            return f"{_n(counts.all, 'attempt')} in {self.tree.searches():,} searches"
        of = "" if total is None else f" of {total}"
        if record.ended is None:
            return f"attempt {counts.all}{of}"
        return f"{counts.all}{of} attempt{_s(counts.all if total is None else total)}"

    def _result(self, mode: Mode) -> str:
        counts = self._counts
        if mode == "rows":  # of an evaluation, the mean of all rows: those that failed count too
            counted: Any = self.record.started.settings.get("failure_score") if self.record.started else None
            failed = counts.of("failed") if is_real(counted) else 0
            rows = counts.scored + failed
            total = counts.sum + (failed * counted if failed else 0.0)
            return f"mean {number(total / rows)}" if rows else ""
        if mode == "candidates":
            best = self.tree.nodes.get(f"candidate {winner_of(self.record)}")
            score = None if best is None else cells(best, self.tree)["score"]
            return "" if score is None else f"best {number(score)}"
        return f"best {number(counts.best)}" if counts.scored else ""

    def _costs(self) -> list[str]:
        usage, calls = self.record.usage, len(self.record.calls)
        facts = [_n(calls, "call") + (f" ({self.record.cached:,} cached)" if self.record.cached else "")]
        facts += [tokens] if (tokens := tokens_text(usage.tokens)) else []
        facts += [f"{usage.usd:.4f} USD"] if usage.usd else []
        return [*facts, *(clip(model, 60) for model in self.record.models[:2])]


def _sparse(row: Row, node: Node) -> Sparse:
    """A row as a front end gets it: short texts, and only what is not empty."""
    most = _LONG if node.number < _FEW else _SHORT
    sparse: Sparse = {"key": row["key"], "order": row["order"], "label": clip(row["label"], 40), "state": row["state"]}
    for name, pairs in (("about", row["about"]), ("outputs", row["outputs"])):
        if pairs:
            alone = [["", pairs[0][1]]] if len(pairs) == 1 else pairs
            sparse[name] = one_line([[of, text[:most]] for of, text in alone], most)
    if row["error"]:
        sparse["error"] = one_line(row["error"][: 2 * most], most)
    for name, value in (("score", row["score"]), ("change", row["change"]), ("seconds", row["seconds"])):
        if value is not None:
            sparse[name] = _finite(value)
    for name, flag in (
        ("best", row["best"]),
        ("by", row["by"]),
        ("mark", row["mark"]),
        ("tokens", row["tokens"]),
        ("kids", len(node.children)),
    ):
        if flag:
            sparse[name] = flag
    if node.up is not None:
        sparse["up"] = node.up.key
    if isinstance(node.of, CandidateProposed) and node.of.parents:
        sparse["parents"] = [f"candidate {parent}" for parent in node.of.parents]
    return sparse


def _finite(value: float) -> float | None:
    """Six digits of it; None for what JSON has no number for."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


class _Counts:
    """How many rows are in which state, and what they score, kept up to date row by row."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[str, float | None]] = {}
        self._states: dict[str, int] = {}
        self.sum, self.scored = 0.0, 0
        self.low = self.high = 0.0
        self._best: float | None = None

    @property
    def all(self) -> int:
        return len(self._rows)

    def of(self, state: str) -> int:
        return self._states.get(state, 0)

    @property
    def best(self) -> float:
        """The highest score; looked for again after a row that had it has changed."""
        if self._best is None:
            self._best = max((s for _, s in self._rows.values() if s is not None), default=0.0)
        return self._best

    def put(self, key: str, state: str, score: float | None) -> None:
        counted = None if state in ("cancelled", "failed") else score
        if self._rows.get(key) == (state, counted):
            return
        self.drop(key)
        self._rows[key] = state, counted
        self._states[state] = self.of(state) + 1
        if counted is not None:
            self.sum, self.scored = self.sum + counted, self.scored + 1
            self.low, self.high = min(self.low, counted), max(self.high, counted)
            if self._best is not None or self.scored == 1:
                self._best = counted if self.scored == 1 else max(self.best, counted)

    def drop(self, key: str) -> None:
        state, score = self._rows.pop(key, (None, None))
        if state is not None:
            self._states[state] -= 1
        if score is not None:
            self.sum, self.scored = self.sum - score, self.scored - 1
            if score == self._best:
                self._best = None


_ABOUT = {"attempts": "hint", "rows": "inputs", "candidates": "made in", "calls": "predictor"}


def _n(n: int, unit: str) -> str:
    return f"{n:,} {unit}{_s(n)}"


def _s(n: int) -> str:
    return "" if n == 1 else "s"


def _elapsed(record: RunRecord) -> float | None:
    if record.started is None:
        return None
    return max(0.0, (record.ended.at if record.ended else time.time()) - record.started.at)
