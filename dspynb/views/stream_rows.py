"""The rows of a view in which calls are being streamed."""

from __future__ import annotations

from collections.abc import Callable

from dspynb.events import CandidateProposed
from dspynb.running.record import RunRecord
from dspynb.running.streamed_calls import StreamedCall
from dspynb.views.rows import Node

__all__ = ["StreamRows"]


class StreamRows:
    """The streamed calls of a run by row, and the rows of those outside of all other rows.

    Args:
        record: the run's record.
        node_of: the innermost row that contains a span; None if there is none.
    """

    def __init__(self, record: RunRecord, node_of: Callable[[int], Node | None]) -> None:
        self.own_nodes: dict[str, Node] = {}
        """Key → the row of a call outside of all other rows."""
        self._record = record
        self._node_of = node_of

    def _pending(self) -> list[StreamedCall]:
        return list(self._record.streams.pending.values())

    def place(self, nodes: dict[str, Node], ended_calls: int) -> list[str]:
        """Add a row for each streamed call outside of all rows to ``nodes``, after those of the calls that have ended,
        and remove the rows of calls that are no longer streamed. Returns the keys that changed."""
        before = self.own_nodes
        pending = self._pending()
        if not pending and not before:
            return []
        changed = []
        self.own_nodes = {}
        for stream in pending:
            if self._node_of(stream.parent) is not None:
                continue
            number = ended_calls + len(self.own_nodes)
            key = f"call {number}"
            node = before.get(key)
            if node is None or node.item is not stream:
                node = Node(key, "calls", stream, None, number)
                nodes[key] = node
                changed.append(key)
            self.own_nodes[key] = node
        for key, node in before.items():
            if nodes[key] is node and key not in self.own_nodes:
                del nodes[key]
                changed.append(key)
        return changed

    def by_row(self) -> dict[str, list[StreamedCall]]:
        """Key of a row → the streamed calls inside it. Candidates are left out, since many calls run inside one."""
        streams: dict[str, list[StreamedCall]] = {}
        for key, own_node in self.own_nodes.items():
            if isinstance(own_node.item, StreamedCall):
                streams[key] = [own_node.item]
        for stream in self._pending():
            node = self._node_of(stream.parent)
            while node is not None and not isinstance(node.item, CandidateProposed):
                streams.setdefault(node.key, []).append(stream)
                node = node.parent
        return streams
