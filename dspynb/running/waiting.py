"""How long a row or an attempt only waited: for a slot of the model, a rate limit, a retry, or the end of a pause."""

from __future__ import annotations

from collections.abc import Sequence

from dspynb.events import PredictorCalled

__all__ = ["only_waited"]


def only_waited(calls: Sequence[PredictorCalled]) -> float:
    """The seconds in which at least one of these calls waited and none worked. A call waits before it works, as far as
    its event tells."""
    if len(calls) == 1:  # as of most evaluated rows
        return calls[0].waited
    if not any(call.waited for call in calls):
        return 0.0
    changes: list[tuple[float, int, int]] = []  # (time, change of the calls that wait, change of those that work)
    for call in calls:
        begins_work = call.at - call.seconds
        changes += [(call.started, 1, 0), (begins_work, -1, 1), (call.at, 0, -1)]
    changes.sort()
    seconds = 0.0
    waiting = working = 0
    before = changes[0][0]
    for time, waits, works in changes:
        if waiting and not working:
            seconds += time - before
        before = time
        waiting += waits
        working += works
    return seconds
