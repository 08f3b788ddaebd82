"""A run's rows as a tree: candidates, rows of a batch, attempts and single calls, each inside what it happened in.

Reads a record that goes on growing: ``add`` takes an event that the record has taken and notes which rows it changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from dspynb.events import (
    AttemptChosen,
    CandidateProposed,
    CandidateScored,
    Event,
    PredictorCalled,
    RolloutEnded,
    RunEnded,
    RunStarted,
    Steered,
)
from dspynb.running.record import AttemptRow, RunRecord, SpanRow

__all__ = ["Mode", "Node", "Tree"]

Mode = Literal["attempts", "rows", "candidates", "calls"]
"""What the outermost rows of a run are."""
_BATCHES = ("batch", "evaluate", "compare", "grid")


@dataclass(slots=True, eq=False)
class Node:
    """One row of a view. ``of``: what it shows; ``up``: the row it happened in; ``calls``: the calls made in it and
    in no row inside it."""

    key: str
    mode: Mode
    of: CandidateProposed | SpanRow | AttemptRow | PredictorCalled
    up: Node | None
    number: int  # among its like, from 0
    children: list[Node] = field(default_factory=list)
    calls: list[PredictorCalled] = field(default_factory=list)

    def attempts(self) -> list[AttemptRow]:
        """The attempts right inside it."""
        return [child.of for child in self.children if isinstance(child.of, AttemptRow)]


class Tree:
    """``tops()``: the outermost rows; ``changed``: the keys of rows that changed since somebody emptied it.

    ``search``: only the attempts of this span.
    """

    def __init__(self, record: RunRecord, search: int = 0) -> None:
        self.record, self.search = record, search
        self.nodes: dict[str, Node] = {}
        self.changed: set[str] = set()
        self.calls: list[Node] = []  # those outside all rows
        self._roots: dict[Mode, list[Node]] = {"attempts": [], "rows": [], "candidates": []}
        self._spans: dict[int, Node | None] = {}
        self._again: dict[tuple[Node | None, int, str], Node] = {}  # a row of a batch, by its name
        self._searches: dict[int, int] = {}  # outermost searches, numbered
        self._numbered: dict[tuple[int, int], AttemptRow] = {}  # search, attempt → attempt
        self._best_on: dict[int, tuple[float, set[str]]] = {}  # validation row → best score, and who has it
        self.leads: dict[str, int] = {}  # candidate id → on how many of those rows: the Pareto front
        self._chosen: dict[int, int] = {}  # search → the number of the attempt that was chosen in it
        self.fates: dict[str, str] = {}  # candidate id → pinned or dropped, by a person
        self._winner: str | None = None
        self._read_all()

    # ── growing ───────────────────────────────────────────────────────────────────────────────────────────────────
    def _read_all(self) -> None:
        """What the record has taken before."""
        for candidate in self.record.candidates.values():
            self._propose(candidate)
        for span in sorted([*self.record.spans, *self.record.attempts]):
            self._node(span)
        for call in self.record.calls:
            self._call(call)
        for rollout in self.record.rollouts:
            self._weigh(rollout)
        for steered in self.record.steered:
            self._steer(steered)
        self._winner = self.record.winner

    def add(self, event: Event) -> None:
        """Take note of an event that the record has taken."""
        match event:
            case PredictorCalled():
                self._call(event)
            case CandidateProposed():
                self._touch(self._propose(event))
            case CandidateScored():
                self._touch(self.nodes.get(f"candidate {event.candidate}"))
            case Steered():
                self._steer(event)
            case AttemptChosen():
                for number in {event.attempt, self._chosen.get(event.span)}:
                    if attempt := self._numbered.get((event.span, number or 0)):
                        self._touch(self._node(attempt.span))
                self._chosen[event.span] = event.attempt
            case RunStarted() | RunEnded():
                self.changed.update(key for key, node in self.nodes.items() if _ends_with_the_run(node))
            case _:
                if isinstance(event, RolloutEnded):
                    self._weigh(event)
                self._touch(self._node(event.span))
        if self.record.winner != self._winner:
            for candidate in (self.record.winner, self._winner):
                self._touch(self.nodes.get(f"candidate {candidate}"))
            self._winner = self.record.winner

    def _touch(self, node: Node | None) -> None:
        while node is not None:
            self.changed.add(node.key)
            node = node.up

    def _node(self, span: int) -> Node | None:
        """The innermost row that this span is in, made when it is first asked for."""
        if span in self._spans:
            return self._spans[span]
        if not span:
            return None
        parent = self.record.parent_of(span)
        up = self._node(parent)
        made = self._of_span(span, parent, up)
        self._spans[span] = made
        return made

    def _of_span(self, span: int, parent: int, up: Node | None) -> Node | None:
        attempt, row = self.record.attempts.get(span), self.record.spans.get(span)
        if attempt is not None:
            self._numbered[parent, attempt.attempt] = attempt
            if up is None:
                self._searches.setdefault(parent, len(self._searches))
            return self._grow(Node(str(span), "attempts", attempt, up, attempt.attempt - 1))
        if row is not None and row.kind == "row":
            return self._row(row, parent, up)
        if row is not None and row.kind == "candidate":
            return self.nodes.get(f"candidate {row.name}")
        return up

    def _row(self, row: SpanRow, parent: int, up: Node | None) -> Node:
        """A row of a batch; of one that a resumed run did again, the last."""
        place = (up, parent, row.name)
        before = self._again.get(place)
        siblings = self._roots["rows"] if up is None else up.children
        made = Node(str(row.span), "rows", row, up, len(siblings) if before is None else before.number)
        self._again[place] = made
        if before is None:
            return self._grow(made)
        siblings[siblings.index(before)] = made
        del self.nodes[before.key]
        self.changed.add(before.key)
        self.nodes[made.key] = made
        return made

    def _grow(self, node: Node) -> Node:
        self.nodes[node.key] = node
        (self._roots[node.mode] if node.up is None else node.up.children).append(node)
        return node

    def _propose(self, candidate: CandidateProposed) -> Node:
        key = f"candidate {candidate.id}"
        if key not in self.nodes:
            self._grow(Node(key, "candidates", candidate, None, len(self._roots["candidates"])))
        return self.nodes[key]

    def _call(self, call: PredictorCalled) -> None:
        node = self._node(self.record.parent_of(call.span))
        if node is None:
            made = Node(f"call {len(self.calls)}", "calls", call, None, len(self.calls))
            self.nodes[made.key] = made
            self.calls.append(made)
            self.changed.add(made.key)
        else:
            node.calls.append(call)
            self._touch(node)

    def _steer(self, event: Steered) -> None:
        """Keep what a person made of candidates."""
        candidate = str(event.values.get("candidate", ""))
        if event.action in ("pin", "unpin"):
            for pinned in [one for one, fate in self.fates.items() if fate == "pinned"]:
                del self.fates[pinned]
                self._touch(self.nodes.get(f"candidate {pinned}"))
        if event.action in ("pin", "drop"):
            self.fates[candidate] = {"pin": "pinned", "drop": "dropped"}[event.action]
            self._touch(self.nodes.get(f"candidate {candidate}"))

    def _weigh(self, rollout: RolloutEnded) -> None:
        """Keep who is best on each validation row: the Pareto front over rows."""
        if rollout.split != "val" or rollout.repeat or rollout.candidate is None or rollout.score is None:
            return
        best, who = self._best_on.get(rollout.row, (rollout.score, set()))
        if rollout.score > best:
            for candidate in who:
                self._lead(candidate, -1)
            best, who = rollout.score, set()
        if rollout.score == best and rollout.candidate not in who:
            who.add(rollout.candidate)
            self._lead(rollout.candidate, 1)
        self._best_on[rollout.row] = best, who

    def _lead(self, candidate: str, rows: int) -> None:
        self.leads[candidate] = self.leads.get(candidate, 0) + rows
        if not self.leads[candidate]:
            del self.leads[candidate]

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────
    def mode(self) -> Mode:
        """What the outermost rows are."""
        kind = self.record.started.kind if self.record.started else ""
        if not self.search and self._roots["candidates"]:
            return "candidates"
        if not self.search and (kind in _BATCHES or self._roots["rows"]):
            return "rows"
        return "attempts" if self.record.attempts or kind in ("refine", "best_of_n") else "calls"

    def tops(self) -> list[Node]:
        """The outermost rows, in order."""
        mode = self.mode()
        if mode == "calls":
            return self.calls
        if mode != "attempts":
            return self._roots[mode]
        if self.search and self.search in self.record.searches():
            return [node for row in self.record.children(self.search) if (node := self._node(row.span)) is not None]
        return sorted(self._roots["attempts"], key=self._order)

    def _order(self, node: Node) -> tuple[int, int]:
        return self.search_of(node), node.number

    def is_top(self, node: Node, mode: Mode) -> bool:
        """Whether it is one of the outermost rows, in this mode."""
        if self.search and self.search in self.record.searches():
            return isinstance(node.of, AttemptRow) and node.of.parent == self.search
        return node.up is None and node.mode == mode

    def search_of(self, node: Node) -> int:
        """Of an outermost attempt: the number of its search, from 0."""
        return self._searches.get(node.of.parent, 0) if isinstance(node.of, AttemptRow) else 0

    def searches(self) -> int:
        """How many outermost searches there are."""
        return 1 if self.search and self.search in self.record.searches() else len(self._searches)

    def previous(self, node: Node) -> AttemptRow | None:
        """Of an attempt, the one before it in its search."""
        attempt = node.of
        return self._numbered.get((attempt.parent, attempt.attempt - 1)) if isinstance(attempt, AttemptRow) else None

    def inside(self, nodes: Iterable[Node]) -> Iterator[Node]:
        """These rows and all inside them."""
        for node in nodes:
            yield node
            yield from self.inside(node.children)


def _ends_with_the_run(node: Node) -> bool:
    """Whether it may be shown differently once the run has ended, or goes on again."""
    match node.of:
        case SpanRow():
            return not node.of.done or node.of.error is not None
        case AttemptRow():
            return node.of.best or node.of.state == "running"
        case _:
            return True
