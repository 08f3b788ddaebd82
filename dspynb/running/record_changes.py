"""Which parts of a run's record an event changed: what views are notified of."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["NOTHING", "Changes"]


class Changes(NamedTuple):
    """Which keys of a ``RunRecord`` one event changed. What they hold now is looked up in the record.

    ``run``: the run began, was resumed or ended, so ``started``, ``ended`` and ``status`` differ. A view then shows all
    that had not ended differently; those spans are not listed one by one.
    ``spans``: keys of ``record.spans`` or ``record.attempts`` that are new or hold something else: also the attempts
    around a model call, whose ``calls`` and ``usage`` grew, and attempts that became or are no longer the ``best``.
    ``candidates``: keys of ``record.candidates`` that are new, were scored, became or are no longer the ``winner``, or
    were pinned, unpinned or dropped. An id may be unknown to the record where a file lacks its beginning.
    ``grown``: names of the record's lists that have one more item, at their end: ``calls`` (then ``usage``, ``cached``
    and ``models`` may differ too), ``rollouts``, ``proposals``, ``milestones``, ``steered``, ``hint_failures``. Items
    are never removed or replaced, so a reader that remembers how many it has read finds the new ones by position.

    A reader may collect the changes of many events and look at the record once: the record never goes back, so what it
    finds may be newer than the change. An event that changed nothing gives ``NOTHING``, which is false.

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
