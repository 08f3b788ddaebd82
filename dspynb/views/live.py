"""The live view's timing: events come in at any rate and from any thread, changed rows go out in batches.

Nothing here knows of widgets; what goes out is handed to a ``Transport``. Each batch has a number, and each row in it
is whole, so a front end that sees a gap asks for a snapshot and has lost nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from dspynb.events import Event, RunEnded
from dspynb.results import Fold
from dspynb.views.state import Row, RunState

__all__ = ["LiveView", "Transport", "Viewed"]

_log = logging.getLogger("dspynb")

INTERVAL = 0.1
"""Seconds between two batches, at least."""
_SHARE = 20
"""A batch that took t seconds to make is followed by none for 20 t, so that watching costs at most 5 % of the time."""
_FIRST_PUSH = 1.0
"""Seconds until the snapshot is sent unasked; then after twice as long each time. It reaches front ends whose request
cannot: on a kernel older than 7.4 their messages wait for the cell."""


class Transport(Protocol):
    """Where a live view sends to. Nothing is sent after ``finish``."""

    def delta(self, message: dict[str, Any]) -> None: ...

    def snapshot(self) -> None: ...

    def finish(self, fold: Fold) -> None: ...


class Viewed(Protocol):
    """What the view needs of a run."""

    @property
    def id(self) -> str: ...

    @property
    def stopped(self) -> bool: ...

    def stop(self) -> None: ...


class LiveView:
    """Listens to a run and sends what changed, at most every ``INTERVAL`` seconds, from the run's event loop."""

    def __init__(self, run: Viewed, loop: asyncio.AbstractEventLoop, note: str = "") -> None:
        self._run, self._loop, self._note = run, loop, note
        self._lock = threading.RLock()
        self._fold = Fold()
        self._state = RunState(self._fold)
        self._transport: Transport | None = None
        self._sent: dict[str, Row] = {}
        self._seq = 0
        self._armed = self._ended = self._broken = False
        self._not_before = 0.0
        self._push_at, self._push_after = time.monotonic() + _FIRST_PUSH, _FIRST_PUSH

    def open(self, transport: Transport) -> None:
        """Begin to send; what came before is sent too."""
        with self._lock:
            self._transport = transport
            if self._ended:
                self._finish()
            else:
                self._arm()

    # ── events in ─────────────────────────────────────────────────────────────────────────────────────────────────
    def emit(self, event: Event) -> None:
        """Take an event of the run; from any thread. At the run's end everything is sent before this returns."""
        with self._lock:
            if self._ended:
                return
            self._fold.add(event)
            if isinstance(event, RunEnded):
                self._ended = True
                self._finish()
            else:
                self._arm()

    def message(self, content: Mapping[str, Any]) -> None:
        """Take a message of the front end: ``stop`` or ``snapshot``; anything else is ignored."""
        if content.get("type") == "stop":
            self._run.stop()
        with self._lock:
            if self._transport is None or self._ended:
                return
            if content.get("type") == "snapshot":
                self._transport.snapshot()
            else:
                self._arm()

    # ── batches out ───────────────────────────────────────────────────────────────────────────────────────────────
    def snapshot(self) -> dict[str, Any]:
        """The whole state, with the number of the last batch that it includes."""
        with self._lock:
            header, rows = self._state.snapshot()
            return {"seq": self._seq, "header": self._told(header), "rows": rows}

    def _told(self, header: Any) -> dict[str, Any]:
        stopping = self._run.stopped and not self._ended
        return {**header, "stopping": stopping, "note": self._note, "ended": self._ended}

    def _arm(self) -> None:
        if not self._armed and self._transport is not None:
            self._armed = True
            self._loop.call_soon_threadsafe(self._wait)

    def _wait(self) -> None:
        self._loop.call_later(max(0.0, self._not_before - time.monotonic()), self._flush)

    def _flush(self) -> None:
        with self._lock:
            self._armed = False
            if self._transport is None or self._ended or self._broken:
                return
            began = time.monotonic()
            self._send(self._transport)
            ended = time.monotonic()
            self._not_before = ended + max(INTERVAL, _SHARE * (ended - began))

    def _send(self, transport: Transport) -> None:
        """Send what changed. A front end that fails is left alone until the end; the run goes on."""
        try:
            transport.delta(self._delta())
            if time.monotonic() >= self._push_at:
                self._push_after *= 2
                self._push_at = time.monotonic() + self._push_after
                transport.snapshot()
        except Exception:
            self._broken = True
            _log.exception("the live view of run %s failed; the run goes on without it", self._run.id)

    def _delta(self) -> dict[str, Any]:
        header, rows = self._state.snapshot()
        now = {row["key"]: row for row in rows}
        changed = [row for key, row in now.items() if self._sent.get(key) != row]
        gone = [key for key in self._sent if key not in now]
        self._sent, self._seq = now, self._seq + 1
        return {"type": "delta", "seq": self._seq, "header": self._told(header), "rows": changed, "gone": gone}

    def _finish(self) -> None:
        transport, self._transport = self._transport, None
        if transport is None:
            return
        if not self._broken:
            self._send(transport)
        transport.finish(self._fold)
