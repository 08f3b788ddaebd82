"""The parts of a run's record that an event changed. Views are notified of them."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["NOTHING", "Changes"]


class Changes(NamedTuple):
    """The keys of a ``RunRecord`` that one event changed. Their new values are looked up in the record.

    ``run``: whether the run was started, resumed or ended, so that ``started``, ``ended`` and ``status`` differ. Spans
    that had not ended may be displayed differently then; they are not listed in ``spans``.
    ``spans``: keys of ``record.spans`` or ``record.attempts`` that are new or have changed. They include the attempts
    around a model call, whose ``calls`` and ``usage`` grew, and attempts that became or are no longer the ``best``.
    ``candidates``: keys of ``record.candidates`` that are new, were scored, became or are no longer the ``winner``, or
    were pinned, unpinned or dropped. An id may be unknown to the record where a file lacks its beginning.
    ``grown``: names of the record's lists that have one more item at their end: ``calls`` (then ``usage``, ``cached``
    and ``models`` may differ too), ``rollouts``, ``proposals``, ``milestones``, ``steered``, ``hint_failures``. Items
    are never removed or replaced, so a reader that remembers how many items it has read finds the new ones by index.

    A reader may collect the changes of many events and read the record once. The values may then be newer than a
    change. An event that changed nothing gives ``NOTHING``, which is false.

    >>> from dspynb.events import RunStarted
    >>> from dspynb.running.record import RunRecord
    >>> record = RunRecord()
    >>> record.apply(RunStarted(span=1, kind="call", name="Predict"))
    Changes(run=True, spans=(), candidates=(), grown=())
    """

    run: bool = False
    spans: tuple[int, ...] = ()
    candidates: tuple[str, ...] = ()
    grown: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self != NOTHING


NOTHING = Changes()
"""No key changed."""
