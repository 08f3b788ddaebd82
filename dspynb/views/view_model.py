"""A run as a header and rows: what the live widget, static HTML, plain text and the terminal all show.

``ViewModel`` keeps no facts of its own: they are in the run's record. It keeps what is a matter of display: which rows
are shown, inside which others, and which of them changed. Views hand it the changes of the record as they come
(``note``); it looks at them when something is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import get_args

from dspynb.events import CandidateProposed, PredictorCalled
from dspynb.running.record import RunRecord
from dspynb.running.record_changes import Changes
from dspynb.running.record_rows import AttemptRow, SpanRow
from dspynb.running.tables.candidates import winner_of
from dspynb.views.details import Detail, detail_of
from dspynb.views.header import Counts, Header, header_of
from dspynb.views.rows import Mode, Node, Row, Sparse, row_of, sent_row, standing, standing_of_row

__all__ = ["MOST_FAILED", "MOST_ROWS", "MOST_SENT", "ViewModel"]

MOST_ROWS = 200
"""Rows that text and plain tables show from the start of a run; after them only failed ones, up to ``MOST_FAILED``."""
MOST_FAILED = 50
MOST_SENT = 20_000
"""Rows that a front end is sent; a longer run says so, and its tables have all."""
MOST_AT_ONCE = 1000
"""Rows that ``changes`` gives at a time: to make more would hold the event loop too long."""
_BATCHES = ("batch", "evaluate", "compare", "grid")
_SEARCHES = ("refine", "best_of_n")


class ViewModel:
    """The rows of a run's record. ``search``: show only the attempts of this span.

    Hold ``record.lock`` around every use while the run still goes on: then no event comes in between, and a header and
    rows that are read one after the other belong together.
    """

    def __init__(self, record: RunRecord, search: int = 0) -> None:
        self.record = record
        self.search = search
        self.nodes: dict[str, Node] = {}
        self._counts: dict[Mode, Counts] = {mode: Counts() for mode in get_args(Mode)}
        self._roots: dict[Mode, list[Node]] = {"attempts": [], "rows": [], "candidates": [], "calls": []}
        self._around: dict[int, Node | None] = {}  # span → the innermost row that it is in, or is
        self._whole = True  # the record has not been read yet: all of it is new
        self._run_changed = False
        self._candidates: dict[str, None] = {}  # candidates and spans that changed since the last update
        self._spans: dict[int, None] = {}
        self._unplaced: dict[int, None] = {}  # spans that were counted, but not placed yet
        self._ends_changed = False
        self._calls_read = 0
        self._touched: dict[str, None] = {}  # keys of rows that changed in this update
        self._unsent: dict[str, None] = {}
        self._mode: Mode | None = None  # at the last update

    # ── what changed ──────────────────────────────────────────────────────────────────────────────────────────────
    def note(self, changes: Changes) -> None:
        """Take note of what an event changed in the record. Quick: the record is read at the next ``update``."""
        if self._whole:
            return
        for span in changes.spans:
            self._spans[span] = None
        for candidate in changes.candidates:
            self._candidates[candidate] = None
        if changes.run:
            self._run_changed = True

    def count(self) -> None:
        """Count anew the outermost rows and attempts that changed. For a view that shows counts and no rows: quicker
        than ``update``."""
        if self._whole:
            self._note_all()
        record = self.record
        for span in self._spans:
            row = record.spans.get(span)
            if row is not None:
                if row.kind == "row" and record.is_outermost(row.parent):
                    self._count_row(row)
                continue
            attempt = record.attempts[span]
            if self._is_shown(attempt):
                self._counts["attempts"].put(span, attempt.state, attempt.score)
        if self._run_changed:  # rows that have not ended are cancelled once the run has
            for key in self._counts["rows"].keys("running", "cancelled"):
                self._counts["rows"].put(key, *standing_of_row(record.spans[int(key)], record))
            self._ends_changed = True
            self._run_changed = False
        self._unplaced |= self._spans
        self._spans = {}

    def _count_row(self, row: SpanRow) -> None:
        before = self.record.redone.get(row.span)
        if before is not None:
            self._counts["rows"].drop(before)
        self._counts["rows"].put(row.span, *standing_of_row(row, self.record))

    def _is_shown(self, attempt: AttemptRow) -> bool:
        """Whether an attempt is one of the outermost rows, where these are attempts."""
        if self._one_search():
            return attempt.parent == self.search
        return attempt.parent in self.record.search_numbers

    def update(self) -> None:
        """Look at what changed since the last time: count and place rows, and take note of what is to be sent."""
        self.count()
        for candidate in self._candidates:
            self._touch_candidate(candidate)
        for span in self._unplaced:
            self._touch(self._node(span))
        self._place_calls()
        mode = self.mode()
        if mode != self._mode:
            self._mode = mode
            self._touched.update(dict.fromkeys(self.nodes))
        if self._ends_changed:
            self._touched.update(dict.fromkeys(key for key, node in self.nodes.items() if _depends_on_the_end(node)))
        for key in self._touched:
            if (node := self.nodes.get(key)) is not None and self._is_top(node, mode):
                self._read_top(node)
        self._unsent |= self._touched
        self._candidates = {}
        self._unplaced = {}
        self._touched = {}
        self._ends_changed = False

    def _note_all(self) -> None:
        """A record that a view begins to read has no changes to tell: all that it holds is new."""
        self._whole = False
        self._candidates = dict.fromkeys(self.record.candidates)
        self._spans = dict.fromkeys(sorted([*self.record.spans, *self.record.attempts]))

    def _read_top(self, node: Node) -> None:
        """Count a candidate or a call; take note of the names of a row's fields."""
        counts = self._counts[node.mode]
        match node.of:
            case CandidateProposed():
                counts.put(node.key, *standing(node, self.record))
            case PredictorCalled():
                counts.put(node.key, *standing(node, self.record))
                counts.put_fields((), node.of.outputs or ())
            case AttemptRow():
                counts.put_fields((), node.of.outputs or ())
            case SpanRow():
                counts.put_fields(node.of.inputs, node.of.outputs or ())

    def _touch(self, node: Node | None) -> None:
        """Mark a row and those around it as changed."""
        while node is not None:
            self._touched[node.key] = None
            node = node.up

    # ── which rows there are ──────────────────────────────────────────────────────────────────────────────────────
    def _node(self, span: int) -> Node | None:
        """The innermost row that this span is in, or is; placed when it is first looked for."""
        if not span:
            return None
        if span in self._around:
            return self._around[span]
        up = self._node(self.record.parent_of(span))
        node = self._place(span, up)
        self._around[span] = node
        return node

    def _place(self, span: int, up: Node | None) -> Node | None:
        attempt = self.record.attempts.get(span)
        if attempt is not None:
            return self._add(Node(str(span), "attempts", attempt, up, attempt.attempt - 1))
        row = self.record.spans.get(span)
        if row is not None and row.kind == "row":
            return self._place_row(row, up)
        if row is not None and row.kind == "candidate":
            return self.nodes.get(f"candidate {row.name}")
        return up

    def _place_row(self, row: SpanRow, up: Node | None) -> Node:
        """A row of a batch. One that a resumed run did again takes the place of what it was before."""
        redone = self.record.redone.get(row.span)
        before = None if redone is None else self.nodes.get(str(redone))
        if before is None:
            siblings = self._roots["rows"] if up is None else up.children
            return self._add(Node(str(row.span), "rows", row, up, len(siblings)))
        node = Node(str(row.span), "rows", row, up, before.number)
        if up is None:
            self._roots["rows"][before.number] = node
        else:
            up.replace_child(before, node)
        del self.nodes[before.key]
        self._touched[before.key] = None
        self.nodes[node.key] = node
        return node

    def _add(self, node: Node) -> Node:
        self.nodes[node.key] = node
        if node.up is None:
            self._roots[node.mode].append(node)
        else:
            node.up.add_child(node)
        return node

    def _touch_candidate(self, name: str) -> None:
        key = f"candidate {name}"
        candidate = self.record.candidates.get(name)
        if key not in self.nodes and candidate is not None:
            self._add(Node(key, "candidates", candidate, None, len(self._roots["candidates"])))
        self._touch(self.nodes.get(key))

    def _place_calls(self) -> None:
        """Put new calls into the rows that they were made in; those outside all rows are rows of their own."""
        calls = self.record.calls[self._calls_read :]
        self._calls_read += len(calls)
        for call in calls:
            node = self._node(self.record.parent_of(call.span))
            if node is None:
                number = len(self._roots["calls"])
                node = self._add(Node(f"call {number}", "calls", call, None, number))
            else:
                node.add_call(call)
            self._touch(node)

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────
    def mode(self) -> Mode:
        """Whether the run is seen as attempts, rows of a batch, an optimizer's candidates, or single calls."""
        kind = self.record.started.kind if self.record.started else ""
        if not self.search and self.record.candidates:
            return "candidates"
        if not self.search and (kind in _BATCHES or self._counts["rows"].all):
            return "rows"
        return "attempts" if self.record.attempts or kind in _SEARCHES else "calls"

    @property
    def counts(self) -> Counts:
        """The counts of the outermost rows, as of the last ``count`` or ``update``."""
        return self._counts[self.mode()]

    @property
    def searches(self) -> int:
        """How many searches the outermost attempts are of."""
        return 1 if self._one_search() else len(self.record.search_numbers)

    def tops(self) -> list[Node]:
        """The outermost rows, in order."""
        self.update()
        mode = self.mode()
        if mode != "attempts":
            return self._roots[mode]
        if self._one_search():
            attempts = (self._node(row.span) for row in self.record.children(self.search))
            return [node for node in attempts if node is not None]
        return sorted(self._roots["attempts"], key=self._order)

    def _order(self, node: Node) -> tuple[int, int]:
        search = node.of.parent if isinstance(node.of, AttemptRow) else 0
        return self.record.search_numbers.get(search, 0), node.number

    def _one_search(self) -> bool:
        """Whether only the attempts of one search are shown."""
        return bool(self.search) and self.record.count_of_attempts(self.search) > 0

    def _is_top(self, node: Node, mode: Mode) -> bool:
        if self._one_search():
            return isinstance(node.of, AttemptRow) and node.of.parent == self.search
        return node.up is None and node.mode == mode

    def header(self) -> Header:
        """The header, as of now."""
        self.update()
        return header_of(self.record, self.mode(), self.counts, self.searches)

    def detail(self, key: str) -> Detail | None:
        """Everything about a row; None where there is no such row."""
        self.update()
        node = self.nodes.get(key)
        return None if node is None else detail_of(node, self.record)

    def snapshot(self, most: int = MOST_ROWS) -> tuple[Header, list[Row]]:
        """The header and the outermost rows: the first ``most``, then those that failed, and the best."""
        tops = self.tops()
        failed = [node for node in tops[most:] if standing(node, self.record)[0] == "failed"]
        best = [node for node in tops[most:] if self._is_best(node)]
        shown = dict.fromkeys([*tops[:most], *failed[:MOST_FAILED], *best])
        several = self.searches > 1
        rows = [row_of(node, self.record, several=several) for node in shown]
        header = self.header()
        if len(tops) > len(rows):
            header["notes"].append(
                f"{len(rows):,} of {len(tops):,} {header['mode']} are shown; the run's tables have all of them"
            )
        for row in rows:
            row["about"] = _without(header["columns"], row["about"])
            row["outputs"] = _without(header["columns"], row["outputs"])
        return header, rows

    def _is_best(self, node: Node) -> bool:
        if isinstance(node.of, AttemptRow):
            return node.of.best
        return isinstance(node.of, CandidateProposed) and node.of.id == winner_of(self.record)

    def inside(self, nodes: Iterable[Node]) -> Iterator[Node]:
        """These rows and all inside them."""
        for node in nodes:
            yield node
            yield from self.inside(node.children)

    # ── for a front end ───────────────────────────────────────────────────────────────────────────────────────────
    @property
    def waiting(self) -> bool:
        """Whether ``changes`` has more to give."""
        return bool(self._unsent)

    def changes(self, opened: Iterable[str] = (), most: int = MOST_AT_ONCE) -> tuple[list[Sparse], list[str]]:
        """Rows that changed since this was called last, and the keys of those that are gone. Outermost rows, and those
        right inside the ``opened`` ones; above ``most`` at a time, the others come with the next call."""
        self.update()
        mode = self.mode()
        opened = set(opened)
        rows: list[Sparse] = []
        gone: list[str] = []
        while self._unsent and len(rows) < most:
            key = next(iter(self._unsent))
            del self._unsent[key]
            node = self.nodes.get(key)
            if node is None or (node.up is None and node.mode != mode):
                gone.append(key)
            elif self._is_sent(node, mode, opened):
                rows.append(self.sent(node))
        return rows, gone

    def _is_sent(self, node: Node, mode: Mode, opened: set[str]) -> bool:
        if self._is_top(node, mode):
            return node.number < MOST_SENT
        return node.up is not None and node.up.key in opened

    def resend_inside(self, key: str) -> None:
        """Give the rows right inside this one with the next ``changes``: somebody opened it."""
        if key in self.nodes:
            self._unsent.update(dict.fromkeys(child.key for child in self.nodes[key].children))

    def everything(self, opened: Iterable[str] = ()) -> list[Sparse]:
        """All rows that a front end is sent."""
        opened = set(opened)
        nodes = self.tops()[:MOST_SENT]
        inside = [child for node in self.inside(nodes) if node.key in opened for child in node.children]
        return [self.sent(node) for node in [*nodes, *inside]]

    def sent(self, node: Node) -> Sparse:
        """A row as a front end is sent it."""
        return sent_row(node, self.record, several=self.searches > 1)


def _without(columns: list[str], pairs: list[list[str]]) -> list[list[str]]:
    """Named texts, without the names that the columns' headings say already."""
    return [["" if name in columns else name, text] for name, text in pairs]


def _depends_on_the_end(node: Node) -> bool:
    """Whether it may look different once the run has ended, or is resumed."""
    match node.of:
        case SpanRow():
            return not node.of.done or node.of.error is not None
        case AttemptRow():
            return node.of.best or node.of.state == "running"
        case _:
            return True
