"""A run as a header and rows: what the live widget, static HTML, plain text and the terminal all show.

The facts of a run are in its record. ``ViewModel`` holds only what concerns the display: which rows are shown, which
rows are inside others, and which rows changed. A view passes it the record's changes as they happen (``note``); the
record is read when the view next asks for the header or for rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import get_args

from dspynb.events import CandidateProposed, PredictorCalled
from dspynb.running.record import RunRecord
from dspynb.running.record_changes import Changes
from dspynb.running.record_rows import AttemptRow, SpanRow
from dspynb.running.tables.candidates import winner_of
from dspynb.views.counts import Counts
from dspynb.views.details import Detail, build_detail
from dspynb.views.header import Header, build_header
from dspynb.views.rows import Mode, Node, Payload, Row, build_row, row_payload, state_and_score, state_and_score_of_row
from dspynb.views.stream_rows import StreamRows
from dspynb.views.streams import stream_blocks

__all__ = ["MOST_FAILED", "MOST_ROWS", "MOST_SENT", "ViewModel"]

MOST_ROWS = 200
"""Rows that text and plain tables show from the start of a run. Of later rows, they show up to ``MOST_FAILED`` failed
ones."""
MOST_FAILED = 50
MOST_SENT = 20_000
"""Outermost rows that are sent to a front end. A longer run has a note that its tables have all rows."""
MOST_AT_ONCE = 1000
"""Rows that one call of ``take_changes`` returns; building more would block the event loop for too long."""
_BATCHES = ("batch", "evaluate", "compare", "grid")
_SEARCHES = ("refine", "best_of_n")


class ViewModel:
    """The rows and the header of a run's record.

    While the run is active, hold ``record.lock`` around every use. No event is applied meanwhile, so a header and rows
    that are read one after the other belong together.

    Args:
        record: the run's record.
        search: the span of a search, to show only its attempts; 0: the whole run.
    """

    def __init__(self, record: RunRecord, search: int = 0) -> None:
        self.record = record
        self.search = search
        self.nodes: dict[str, Node] = {}
        self._counts: dict[Mode, Counts] = {mode: Counts() for mode in get_args(Mode)}
        self._roots: dict[Mode, list[Node]] = {"attempts": [], "rows": [], "candidates": [], "calls": []}
        self._node_of_span: dict[int, Node | None] = {}  # span → the innermost row that contains it
        self._is_unread = True  # nothing of the record has been read
        self._run_changed = False
        self._changed_candidates: dict[str, None] = {}  # since the last update
        self._changed_spans: dict[int, None] = {}  # since the last count
        self._spans_to_place: dict[int, None] = {}  # counted since the last update
        self._end_changed = False
        self._calls_read = 0
        self.streams = StreamRows(record, self._node)
        self._changed_keys: dict[str, None] = {}  # rows that changed in this update
        self._unsent: dict[str, None] = {}
        self._last_mode: Mode | None = None  # the mode at the last update

    # ── reading the record's changes ──────────────────────────────────────────────────────────────────────────────
    def note(self, changes: Changes) -> None:
        """Remember what an event changed in the record. Fast: the record is read at the next ``update``."""
        if self._is_unread:
            return
        for span in changes.spans:
            self._changed_spans[span] = None
        for candidate in changes.candidates:
            self._changed_candidates[candidate] = None
        if changes.run:
            self._run_changed = True

    def count(self) -> None:
        """Update the counts of the outermost rows and attempts. Faster than ``update``, for views without rows."""
        if self._is_unread:
            self._read_whole_record()
        record = self.record
        for span in self._changed_spans:
            row = record.spans.get(span)
            if row is not None:
                if row.kind == "row" and record.is_outermost(row.parent):
                    self._count_row(row)
                continue
            attempt = record.attempts[span]
            if self._is_outermost_attempt(attempt):
                self._counts["attempts"].put(span, attempt.state, attempt.score)
        if self._run_changed:  # at the end of a run, unfinished rows become cancelled
            for key in self._counts["rows"].keys("running", "cancelled"):
                self._counts["rows"].put(key, *state_and_score_of_row(record.spans[int(key)], record))
            self._end_changed = True
            self._run_changed = False
        self._spans_to_place |= self._changed_spans
        self._changed_spans = {}

    def _count_row(self, row: SpanRow) -> None:
        replaced = self.record.redone.get(row.span)
        if replaced is not None:
            self._counts["rows"].remove(replaced)
        self._counts["rows"].put(row.span, *state_and_score_of_row(row, self.record))

    def _is_outermost_attempt(self, attempt: AttemptRow) -> bool:
        """Whether an attempt is an outermost row in the mode ``attempts``."""
        if self._shows_one_search():
            return attempt.parent == self.search
        return attempt.parent in self.record.search_numbers

    def update(self) -> None:
        """Count and place the rows that changed since the last update, and mark them as not sent yet."""
        self.count()
        for candidate in self._changed_candidates:
            self._update_candidate(candidate)
        for span in self._spans_to_place:
            self._mark_changed(self._node(span))
        self._place_calls()
        changed_streams = self.streams.place(self.nodes, len(self._roots["calls"]))
        self._changed_keys.update(dict.fromkeys(changed_streams))
        mode = self.mode()
        if mode != self._last_mode:
            self._last_mode = mode
            self._changed_keys.update(dict.fromkeys(self.nodes))
        if self._end_changed:
            for key, node in self.nodes.items():
                if _changes_at_the_end(node):
                    self._changed_keys[key] = None
        for key in self._changed_keys:
            changed = self.nodes.get(key)
            if changed is not None and self._is_outermost(changed, mode):
                self._count_outermost(changed)
        self._unsent |= self._changed_keys
        self._changed_candidates = {}
        self._spans_to_place = {}
        self._changed_keys = {}
        self._end_changed = False

    def _read_whole_record(self) -> None:
        """Treat everything in the record as changed: a view has begun to read it."""
        self._is_unread = False
        self._changed_candidates = dict.fromkeys(self.record.candidates)
        self._changed_spans = dict.fromkeys(sorted([*self.record.spans, *self.record.attempts]))

    def _count_outermost(self, node: Node) -> None:
        """Count a candidate or a call, and add the names of a row's fields."""
        counts = self._counts[node.mode]
        match node.item:
            case CandidateProposed():
                counts.put(node.key, *state_and_score(node, self.record))
            case PredictorCalled():
                counts.put(node.key, *state_and_score(node, self.record))
                counts.put_fields((), node.item.outputs or ())
            case AttemptRow():
                counts.put_fields((), node.item.outputs or ())
            case SpanRow():
                counts.put_fields(node.item.inputs, node.item.outputs or ())

    def _mark_changed(self, node: Node | None) -> None:
        """Mark a row and all rows around it as changed."""
        while node is not None:
            self._changed_keys[node.key] = None
            node = node.parent

    # ── placing rows ──────────────────────────────────────────────────────────────────────────────────────────────
    def _node(self, span: int) -> Node | None:
        """The innermost row that contains this span. It is placed when it is first needed."""
        if not span:
            return None
        if span in self._node_of_span:
            return self._node_of_span[span]
        parent = self._node(self.record.parent_of(span))
        node = self._place(span, parent)
        self._node_of_span[span] = node
        return node

    def _place(self, span: int, parent: Node | None) -> Node | None:
        attempt = self.record.attempts.get(span)
        if attempt is not None:
            return self._add(Node(str(span), "attempts", attempt, parent, attempt.attempt - 1))
        row = self.record.spans.get(span)
        if row is not None and row.kind == "row":
            return self._place_row(row, parent)
        if row is not None and row.kind == "candidate":
            return self.nodes.get(f"candidate {row.name}")
        return parent

    def _place_row(self, row: SpanRow, parent: Node | None) -> Node:
        """Place a row of a batch. A row that a resumed run repeated replaces its earlier node."""
        redone = self.record.redone.get(row.span)
        replaced = None if redone is None else self.nodes.get(str(redone))
        if replaced is None:
            siblings = self._roots["rows"] if parent is None else parent.children
            return self._add(Node(str(row.span), "rows", row, parent, len(siblings)))
        node = Node(str(row.span), "rows", row, parent, replaced.number)
        if parent is None:
            self._roots["rows"][replaced.number] = node
        else:
            parent.replace_child(replaced, node)
        del self.nodes[replaced.key]
        self._changed_keys[replaced.key] = None
        self.nodes[node.key] = node
        return node

    def _add(self, node: Node) -> Node:
        self.nodes[node.key] = node
        if node.parent is None:
            self._roots[node.mode].append(node)
        else:
            node.parent.add_child(node)
        return node

    def _update_candidate(self, name: str) -> None:
        key = f"candidate {name}"
        candidate = self.record.candidates.get(name)
        if key not in self.nodes and candidate is not None:
            self._add(Node(key, "candidates", candidate, None, len(self._roots["candidates"])))
        self._mark_changed(self.nodes.get(key))

    def _place_calls(self) -> None:
        """Add new model calls to their rows. A call outside all rows becomes a row of its own."""
        calls = self.record.calls[self._calls_read :]
        self._calls_read += len(calls)
        for call in calls:
            node = self._node(self.record.parent_of(call.span))
            if node is None:
                number = len(self._roots["calls"])
                node = self._add(Node(f"call {number}", "calls", call, None, number))
            else:
                node.add_call(call)
            self._mark_changed(node)

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────
    def mode(self) -> Mode:
        """Whether the outermost rows are attempts, rows of a batch, an optimizer's candidates, or model calls."""
        kind = self.record.started.kind if self.record.started else ""
        if not self.search and self.record.candidates:
            return "candidates"
        if not self.search and (kind in _BATCHES or self._counts["rows"].all):
            return "rows"
        return "attempts" if self.record.attempts or kind in _SEARCHES else "calls"

    @property
    def counts(self) -> Counts:
        """The counts of the outermost rows at the last ``count`` or ``update``."""
        return self._counts[self.mode()]

    @property
    def searches(self) -> int:
        """The number of searches that the outermost attempts belong to."""
        return 1 if self._shows_one_search() else len(self.record.search_numbers)

    def outermost_nodes(self) -> list[Node]:
        """The outermost rows, in order."""
        self.update()
        mode = self.mode()
        if mode != "attempts":
            return self._roots[mode]
        if self._shows_one_search():
            attempts = (self._node(row.span) for row in self.record.children(self.search))
            return [node for node in attempts if node is not None]
        return sorted(self._roots["attempts"], key=self._order_of_attempt)

    def _order_of_attempt(self, node: Node) -> tuple[int, int]:
        search = node.item.parent if isinstance(node.item, AttemptRow) else 0
        return self.record.search_numbers.get(search, 0), node.number

    def _shows_one_search(self) -> bool:
        """Whether only the attempts of one search are shown."""
        return bool(self.search) and self.record.count_of_attempts(self.search) > 0

    def _is_outermost(self, node: Node, mode: Mode) -> bool:
        if self._shows_one_search():
            return isinstance(node.item, AttemptRow) and node.item.parent == self.search
        return node.parent is None and node.mode == mode

    def header(self) -> Header:
        """The present header."""
        self.update()
        return build_header(self.record, self.mode(), self.counts, self.searches)

    def detail(self, key: str) -> Detail | None:
        """Everything about the row with this key; None if there is no such row."""
        self.update()
        node = self.nodes.get(key)
        if node is None:
            return None
        detail = build_detail(node, self.record)
        detail["blocks"] += stream_blocks(self.streams.by_row().get(key, ()))
        return detail

    def snapshot(self, most: int = MOST_ROWS) -> tuple[Header, list[Row]]:
        """The header and the outermost rows: the first ``most``, then later ones that failed, and the best."""
        nodes = self.outermost_nodes()
        later = nodes[most:]
        failed = [node for node in later if state_and_score(node, self.record)[0] == "failed"]
        best = [node for node in later if self._is_best(node)]
        shown = dict.fromkeys([*nodes[:most], *failed[:MOST_FAILED], *best])
        several = self.searches > 1
        rows = [build_row(node, self.record, several=several) for node in shown]
        header = self.header()
        if len(nodes) > len(rows):
            header["notes"].append(self.note_of_shown_rows(len(rows), len(nodes)))
        for row in rows:
            row["about"] = _without_headings(row["about"], header["columns"])
            row["outputs"] = _without_headings(row["outputs"], header["columns"])
        return header, rows

    def note_of_shown_rows(self, shown: int, count: int) -> str:
        """The note of a view that shows only some of the outermost rows."""
        return f"{shown:,} of {count:,} {self.mode()} are shown; the run's tables have all of them"

    def _is_best(self, node: Node) -> bool:
        if isinstance(node.item, AttemptRow):
            return node.item.best
        return isinstance(node.item, CandidateProposed) and node.item.id == winner_of(self.record)

    def with_descendants(self, nodes: Iterable[Node]) -> Iterator[Node]:
        """These rows and all rows inside them."""
        for node in nodes:
            yield node
            yield from self.with_descendants(node.children)

    # ── for a front end ───────────────────────────────────────────────────────────────────────────────────────────
    @property
    def has_unsent(self) -> bool:
        """Whether ``take_changes`` has more rows to return."""
        return bool(self._unsent)

    def take_changes(self, opened: Iterable[str] = (), most: int = MOST_AT_ONCE) -> tuple[list[Payload], list[str]]:
        """The rows that changed since the last call, and the keys of rows that were removed.

        Args:
            opened: keys of rows whose children are shown; other rows inside rows are left out.
            most: how many rows to return at most; the next call returns the others.
        """
        self.update()
        mode = self.mode()
        opened = set(opened)
        rows: list[Payload] = []
        removed: list[str] = []
        while self._unsent and len(rows) < most:
            key = next(iter(self._unsent))
            del self._unsent[key]
            node = self.nodes.get(key)
            if node is None or (node.parent is None and node.mode != mode):
                removed.append(key)
            elif self._is_sent(node, mode, opened):
                rows.append(self.payload(node))
        return rows, removed

    def _is_sent(self, node: Node, mode: Mode, opened: set[str]) -> bool:
        if self._is_outermost(node, mode):
            return node.number < MOST_SENT
        return node.parent is not None and node.parent.key in opened

    def is_sent(self, key: str, opened: set[str]) -> bool:
        """Whether a front end is sent the row with this key. ``opened``: keys of rows whose children are shown."""
        node = self.nodes.get(key)
        return node is not None and self._is_sent(node, self.mode(), opened)

    def resend_children(self, key: str) -> None:
        """Let the next ``take_changes`` return the children of a row that was opened."""
        if key in self.nodes:
            self._unsent.update(dict.fromkeys(child.key for child in self.nodes[key].children))

    def payloads(self, opened: Iterable[str] = ()) -> list[Payload]:
        """All rows as a front end is sent them: the outermost ones, and the children of the ``opened`` ones."""
        opened = set(opened)
        outermost = self.outermost_nodes()[:MOST_SENT]
        nodes = list(outermost)
        if self.mode() == "calls":
            nodes.extend(self.streams.own_nodes.values())
        for node in self.with_descendants(outermost):
            if node.key in opened:
                nodes.extend(node.children)
        return [self.payload(node) for node in nodes]

    def payload(self, node: Node) -> Payload:
        """A row as a front end is sent it."""
        return row_payload(node, self.record, several=self.searches > 1)


def _without_headings(pairs: list[list[str]], headings: list[str]) -> list[list[str]]:
    """Named texts without the names that are headings of the table."""
    return [["" if name in headings else name, text] for name, text in pairs]


def _changes_at_the_end(node: Node) -> bool:
    """Whether the row may look different after the run has ended or was resumed."""
    match node.item:
        case SpanRow():
            return not node.item.done or node.item.error is not None
        case AttemptRow():
            return node.item.best or node.item.state == "running"
        case _:
            return True
