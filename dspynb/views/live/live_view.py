"""The live view: a run's record changes at any rate and from any thread; what changed is sent in batches.

``changed`` takes note of the keys that an event changed. ``_flush``, at most ten times a second on the run's event
loop, makes rows of them (``views/view_model.py``, ``views/rows.py``). Nothing here knows of widgets: messages are
handed to a ``Transport``.

Out go messages of these types:
- ``delta`` {seq, header, rows, gone, leads}: what changed since the last one. Of the header and of rows that were sent
  before, only the fields that changed (None: no longer there). Each has a number; a front end that sees a gap asks for
  a snapshot and has lost nothing.
- ``detail`` {key, detail}: everything about a row, when it was asked for.
- ``refused`` {text}: why something that a person asked for cannot be done.

In come ``stop``, ``snapshot``, ``here`` {seq} (this front end is alive, and where it is), ``detail`` {key}, ``open``
and ``shut`` {key} (rows inside a row), and ``steer`` {action, …}.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, Protocol

from dspynb.errors import DspynbError, shorten
from dspynb.running.record import RunRecord
from dspynb.running.record_changes import Changes
from dspynb.views.rows import Sparse
from dspynb.views.view_model import MOST_SENT, ViewModel

__all__ = ["LiveView", "Transport", "Viewed"]

_log = logging.getLogger("dspynb")

INTERVAL = 0.1
"""Seconds between two batches, at least."""
_SHARE = 20
"""A batch that took t seconds to make is followed by none for 20 t, so that watching costs at most 5 % of the time."""
_SILENCE = 20.0
"""Seconds without a word from any front end after which nothing more is made for them: their pages are closed."""
_FIRST_PUSH = 1.0
"""Where front ends are not heard (on a kernel older than 7.4 their messages wait for the cell): seconds until the
snapshot is sent unasked; then after twice as long each time."""


class Transport(Protocol):
    """Where a live view sends to. Nothing is sent after ``finish``."""

    def send(self, message: dict[str, Any]) -> None: ...

    def snapshot(self) -> None: ...

    def finish(self, state: ViewModel) -> None: ...


class Viewed(Protocol):
    """What the view needs of a run."""

    @property
    def id(self) -> str: ...

    @property
    def record(self) -> RunRecord: ...

    @property
    def done(self) -> bool: ...

    @property
    def stopped(self) -> bool: ...

    @property
    def paused(self) -> bool: ...

    @property
    def steerable(self) -> frozenset[str]: ...

    def stop(self) -> None: ...


class LiveView:
    """Sends what changed in a run's record, at most every ``INTERVAL`` seconds, from the run's event loop.

    ``run.watch(view.changed)`` connects it. Its lock is the record's, which the run holds while it applies an event and
    calls ``changed``: so nothing is read while an event is half applied. Who emits takes the run's lock and then
    this one, never the other way round.
    ``note``: what to say where messages of a front end wait for the cell; then it counts as present.
    """

    def __init__(self, run: Viewed, loop: asyncio.AbstractEventLoop, note: str = "") -> None:
        self._run, self._loop, self._note = run, loop, note
        self._record = run.record
        self._lock = run.record.lock
        self._state = ViewModel(run.record)
        self._transport: Transport | None = None
        self._sent: dict[str, Sparse] = {}  # rows as they were sent last
        self._head: Sparse = {}
        self._leads: dict[str, int] = {}
        self._opened: set[str] = set()
        self._seq = 0
        self._armed = self._ended = self._broken = False
        self._not_before = 0.0
        self._push_at, self._push_after = time.monotonic() + _FIRST_PUSH, _FIRST_PUSH
        self._heard = time.monotonic()

    def open(self, transport: Transport) -> None:
        """Begin to send; what came before is sent too."""
        with self._lock:
            self._transport = transport
            if self._ended or self._run.done:
                self._finish()
            else:
                self._arm()

    # ── in ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def changed(self, changes: Changes) -> None:
        """Take note of what an event changed; from any thread. At the run's end everything is sent before this
        returns."""
        with self._lock:
            self._state.note(changes)
            if changes.run:  # it began, was resumed, or ended
                self._ended = self._record.ended is not None
            if self._ended:
                self._finish()
            else:
                self._arm()

    def message(self, content: Mapping[str, Any]) -> None:
        """Take a message of a front end. One that makes no sense is ignored."""
        refused = self._asked(content)
        with self._lock:
            if self._transport is None or self._ended:
                return
            was_silent, self._heard = self._silent(), time.monotonic()
            try:
                self._take(content, self._transport, was_silent)
                if refused:
                    self._transport.send({"type": "refused", "text": refused})
            except Exception:
                self._break()

    def _asked(self, content: Mapping[str, Any]) -> str:
        """Do what a person asked of the run; why not, where it refuses."""
        if content.get("type") == "stop":
            self._run.stop()
        if content.get("type") != "steer":
            return ""
        try:
            steer(self._run, content)
        except (DspynbError, TypeError, ValueError) as error:
            return shorten(str(error), 500)
        return ""

    def _take(self, content: Mapping[str, Any], transport: Transport, was_silent: bool) -> None:
        key = str(content.get("key", ""))
        match content.get("type"):
            case "snapshot":
                transport.snapshot()
            case "here" if was_silent or content.get("seq") != self._seq:
                transport.snapshot()
            case "detail" if (detail := self._state.detail(key)) is not None:
                transport.send({"type": "detail", "key": key, "detail": detail})
            case "open" if key in self._state.nodes:
                self._opened.add(key)
                self._state.resend_inside(key)
            case "shut":
                self._opened.discard(key)
        self._arm()

    # ── out ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def snapshot(self) -> dict[str, Any]:
        """The whole state, with the number of the last batch that it includes."""
        with self._lock:
            rows = self._state.everything(self._opened)
            leads = dict(self._record.front.leads)
            return {"seq": self._seq, "header": self._header(), "rows": rows, "leads": leads}

    def _header(self) -> Sparse:
        stopping = self._run.stopped and not self._ended
        steerable = [] if self._ended or self._note else sorted(self._run.steerable)
        more = {"stopping": stopping, "note": self._note, "ended": self._ended, "paused": self._run.paused}
        header = self._state.header()
        count = self._state.counts.all
        if count > MOST_SENT:
            header["notes"].append(
                f"{MOST_SENT:,} of {count:,} {header['mode']} are shown; the run's tables have all of them"
            )
        return {**header, **more, "steerable": steerable}

    def _silent(self) -> bool:
        """Whether all pages that showed the run seem to be closed."""
        return not self._note and time.monotonic() - self._heard > _SILENCE

    def _arm(self) -> None:
        if not self._armed and self._transport is not None and not self._silent():
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
            if self._state.waiting:
                self._arm()

    def _send(self, transport: Transport) -> None:
        """Send what changed. A front end that fails is left alone until the end; the run goes on."""
        try:
            transport.send(self._delta())
            if self._note and time.monotonic() >= self._push_at:
                self._push_after *= 2
                self._push_at = time.monotonic() + self._push_after
                transport.snapshot()
        except Exception:
            self._break()

    def _break(self) -> None:
        self._broken = True
        _log.exception("the live view of run %s failed; the run goes on without it", self._run.id)

    def _delta(self) -> dict[str, Any]:
        changed, gone = self._state.changes(self._opened)
        rows = [patch for row in changed if (patch := _patch(self._sent.get(row["key"]), row, keep="key"))]
        self._sent |= {row["key"]: row for row in changed}
        gone = [key for key in gone if self._sent.pop(key, None) is not None]
        header = self._header()
        patch = _patch(self._head, header)
        self._head = header
        self._seq += 1
        message = {"type": "delta", "seq": self._seq, "header": patch, "rows": rows, "gone": gone}
        if self._record.front.leads != self._leads:
            self._leads = dict(self._record.front.leads)
            message["leads"] = self._leads
        return message

    def _finish(self) -> None:
        transport, self._transport = self._transport, None
        if transport is None:
            return
        if not self._broken and not self._silent():
            self._send(transport)
        transport.finish(self._state)


def _patch(before: Sparse | None, after: Sparse, keep: str | None = None) -> Sparse:
    """The fields that changed, None for those that are no longer there; empty if none did. ``keep``: the one that
    names what it is."""
    if before is None:
        return after
    patch = {name: value for name, value in after.items() if before.get(name) != value or name not in before}
    patch |= {name: None for name in before if name not in after}
    if patch and keep is not None:
        patch[keep] = after[keep]
    return patch


def steer(run: Any, content: Mapping[str, Any]) -> None:
    """One intervention of a person. Raises DspynbError where the run refuses it."""
    action, value = content.get("action"), content.get("value")
    match action:
        case "hint":
            run.suggest_hint(value, row=content.get("row"))
        case "propose":
            run.propose(value, parent=content.get("parent"))
        case "drop":
            run.drop(value)
        case "pin":
            run.pin(value)
        case "unpin":
            run.unpin()
        case "pause":
            run.pause()
        case "unpause":
            run.unpause()
        case "budget":
            run.set_budget(**dict(value or {}))
