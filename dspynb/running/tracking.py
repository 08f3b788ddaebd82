"""The setting ``track``: other systems receive the events of runs while the runs run.

A new system needs a class with the methods of ``Tracker``, a line in ``_TRACKERS``, and its name in the type of the
setting (``dspynb/scope/settings.py``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from dspynb.events import Event, PredictorCalled, RunEnded, RunStarted, Sink
from dspynb.scope.settings import setting

__all__ = ["TRACKED_ELSEWHERE", "InnerRun", "Tracker", "begin_tracking", "track_call"]

_log = logging.getLogger("dspynb")


class Tracker(Protocol):
    """A system that receives the events of runs."""

    def begin(self) -> Sink | None:
        """The listener of a run that begins, or of a single call; None if the system is not ready to receive events.

        The listener gets each event when it is emitted, in the thread that emits it, from RunStarted to RunEnded. A
        run inside the run has events of the same listener, with a RunStarted whose parent is the span around it.
        """


def _otel() -> Tracker:
    from dspynb.running.otel.live import OtelTracker

    return OtelTracker()


_TRACKERS: Mapping[str, Callable[[], Tracker]] = {"otel": _otel}


def begin_tracking() -> Sink | None:
    """The listener of the system that the setting ``track`` names; None without the setting, and if the system cannot
    receive events. A system that fails is logged, and the run continues without it."""
    name = setting("track")
    if name is None:
        return None
    try:
        return _TRACKERS[name]().begin()
    except Warning:  # the user has asked for errors in place of warnings
        raise
    except Exception as error:
        _log.error("tracking with %s could not begin; the run continues without it", name, exc_info=error)
        return None


def track_call(call: PredictorCalled) -> None:
    """Send a call outside of all runs to the system that the setting ``track`` names. A failure is logged."""
    sink = begin_tracking()
    if sink is None:
        return
    try:
        sink.emit(call)
    except Exception as error:
        _log.error("a call of %s could not be tracked", call.model, exc_info=error)


class _TrackedElsewhere:
    def emit(self, event: Event) -> None:
        """Do nothing."""


TRACKED_ELSEWHERE: Sink = _TrackedElsewhere()
"""The listener of a run inside a run of another process: that process sends the events of both."""


class InnerRun:
    """The listener of a run inside a run that is tracked. The outer run passes on all events of the inner one except
    its start and its end, which this listener passes on. ``parent``: the span in which the inner run was started."""

    def __init__(self, tracker: Sink, parent: int) -> None:
        self._tracker = tracker
        self._parent = parent

    def emit(self, event: Event) -> None:
        """Pass on the start and the end of the inner run."""
        if isinstance(event, RunStarted):
            self._tracker.emit(replace(event, parent=self._parent))
        elif isinstance(event, RunEnded):
            self._tracker.emit(event)
