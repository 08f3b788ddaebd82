"""The live view: sends the changes of a run's record to front ends, in batches.

The record changes at any rate and from any thread. ``changed`` remembers which keys an event changed. ``_flush`` builds
their rows (``views/view_model.py``, ``views/rows.py``) and sends them; it runs on the run's event loop, at most ten
times a second. Messages go to a ``Transport``, so this module is independent of widgets.

Messages to a front end:
- ``delta`` {seq, header, rows, removed, leads, live}: the changes since the last delta. Of the header and of rows that
  were sent before, it has only the changed fields; a field that no longer exists is None. ``seq`` numbers the deltas. A
  front end that misses a number requests a snapshot. ``live`` has the calls that are being streamed, by row
  (``views/streams.py``): a short line, and the texts so far for the rows of which a front end has requested the detail.
- ``detail`` {key, detail}: everything about a row, as requested.
- ``refused`` {text}: why the run refused an action of a person.

Messages from a front end: ``stop``; ``snapshot`` (request one); ``alive`` {seq} (this page is open, and has applied
this delta); ``detail`` {key} (request one); ``open`` and ``close`` {key} (show or hide the rows inside a row); and
``steer`` {action, …}.
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
from dspynb.views.rows import Payload
from dspynb.views.streams import LiveRow, live_row
from dspynb.views.view_model import MOST_SENT, ViewModel

__all__ = ["LiveView", "Transport", "Viewed"]

_log = logging.getLogger("dspynb")

INTERVAL = 0.1
"""Seconds between two batches, at least."""
LIVE_INTERVAL = 0.25
"""Seconds between two batches with the texts of calls that are being streamed, at least."""
_MOST_FOLLOWED = 16
"""Rows whose streamed texts are sent: those of which a front end has requested the detail last."""
_PAUSE_FACTOR = 20
"""A batch that took t seconds is followed by a pause of 20 t, so that the view costs at most 5 % of the time."""
_SILENCE_LIMIT = 20.0
"""Seconds without a message from any front end after which no more batches are sent: all pages are closed."""
_FIRST_PUSH = 1.0
"""Seconds until a snapshot is pushed without a request, if messages of front ends wait for the cell to end (ipykernel
before 7.4). The time doubles after each push."""


class Transport(Protocol):
    """Sends messages to front ends. Nothing is sent after ``finish``."""

    def send(self, message: dict[str, Any]) -> None: ...

    def snapshot(self) -> None: ...

    def finish(self, state: ViewModel) -> None: ...


class Viewed(Protocol):
    """The part of a run that the view uses."""

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
    """Sends the changes of a run's record, at most every ``INTERVAL`` seconds, from the run's event loop.

    ``run.watch(view.changed)`` connects it. The view uses the record's lock. The run holds this lock while it applies
    an event and calls ``changed``, so the view never reads a partly applied event. A thread that emits an event takes
    the run's lock first and then this one; the opposite order would be a deadlock.

    Args:
        run: the run to show.
        loop: the event loop that sends.
        note: a note for a kernel on which messages of front ends wait for the cell to end. With a note, front ends
            count as open although they are silent.
    """

    def __init__(self, run: Viewed, loop: asyncio.AbstractEventLoop, note: str = "") -> None:
        self._run = run
        self._loop = loop
        self._note = note
        self._record = run.record
        self._lock = run.record.lock
        self._state = ViewModel(run.record)
        self._transport: Transport | None = None
        self._sent_rows: dict[str, Payload] = {}  # key → the row as it was sent last
        self._sent_header: Payload = {}
        self._sent_leads: dict[str, int] = {}
        self._opened: set[str] = set()  # keys of rows whose children are shown
        self._followed: dict[str, None] = {}  # keys of rows whose detail was requested, the last one at the end
        self._sent_live: dict[str, Any] = {}  # key → the sizes of the row's streamed calls when they were sent last
        self._waits_for_live = False  # whether _live_is_due is scheduled
        self._is_live_due = False
        self._seq = 0
        self._scheduled = False  # whether _flush is scheduled
        self._ended = False
        self._failed = False
        self._next_flush = 0.0  # monotonic time before which nothing is sent
        self._push_interval = _FIRST_PUSH
        self._next_push = time.monotonic() + _FIRST_PUSH
        self._last_message_at = time.monotonic()

    def open(self, transport: Transport) -> None:
        """Begin to send, everything that happened before included."""
        with self._lock:
            self._transport = transport
            self._record.streams.watch(self.stream_grew)
            if self._ended or self._run.done:
                self._finish()
            else:
                self._schedule()

    # ── from the run and from front ends ──────────────────────────────────────────────────────────────────────────
    def changed(self, changes: Changes) -> None:
        """Remember what an event changed. At the end of the run, send everything before returning. Thread-safe."""
        with self._lock:
            self._state.note(changes)
            if changes.run:  # the run was started, resumed or ended
                self._ended = self._record.ended is not None
            if self._ended:
                self._finish()
            else:
                self._schedule()

    def stream_grew(self) -> None:
        """Schedule a batch with the texts of streamed calls. Called for each piece of a reply, in any thread."""
        if not self._waits_for_live:
            self._waits_for_live = True
            self._loop.call_soon_threadsafe(self._loop.call_later, LIVE_INTERVAL, self._live_is_due)

    def _live_is_due(self) -> None:
        with self._lock:
            self._is_live_due = True
            self._schedule()
            if not self._scheduled:  # all pages are closed
                self._waits_for_live = False

    def message(self, content: Mapping[str, Any]) -> None:
        """Handle a message of a front end. Unknown messages are ignored."""
        refusal = self._control(content)
        with self._lock:
            if self._transport is None or self._ended:
                return
            was_silent = self._is_silent()
            self._last_message_at = time.monotonic()
            try:
                self._reply(content, self._transport, was_silent)
                if refusal:
                    self._transport.send({"type": "refused", "text": refusal})
            except Exception:
                self._fail()

    def _control(self, content: Mapping[str, Any]) -> str:
        """Stop or steer the run if the message says so. Returns why the run refuses it; empty if it does not."""
        if content.get("type") == "stop":
            self._run.stop()
        if content.get("type") != "steer":
            return ""
        try:
            steer(self._run, content)
        except (DspynbError, TypeError, ValueError) as error:
            return shorten(str(error), 500)
        return ""

    def _reply(self, content: Mapping[str, Any], transport: Transport, was_silent: bool) -> None:
        key = str(content.get("key", ""))
        match content.get("type"):
            case "snapshot":
                transport.snapshot()
            case "alive":
                if was_silent or content.get("seq") != self._seq:
                    transport.snapshot()
            case "detail":
                detail = self._state.detail(key)
                if detail is not None:
                    self._follow(key)
                    transport.send({"type": "detail", "key": key, "detail": detail})
            case "open":
                if key in self._state.nodes:
                    self._opened.add(key)
                    self._state.resend_children(key)
            case "close":
                self._opened.discard(key)
        self._schedule()

    def _follow(self, key: str) -> None:
        self._followed.pop(key, None)
        self._followed[key] = None
        if len(self._followed) > _MOST_FOLLOWED:
            del self._followed[next(iter(self._followed))]

    # ── to front ends ─────────────────────────────────────────────────────────────────────────────────────────────
    def snapshot(self) -> dict[str, Any]:
        """The header and all rows, with the number of the last delta that they include."""
        with self._lock:
            rows = self._state.payloads(self._opened)
            leads = dict(self._record.front.leads)
            live = {}
            for key, streams in self._state.streams.by_row().items():
                if self._state.is_sent(key, self._opened):
                    live[key] = live_row(streams, with_texts=key in self._followed)
            return {"seq": self._seq, "header": self._header(), "rows": rows, "leads": leads, "live": live}

    def _header(self) -> Payload:
        header = self._state.header()
        count = self._state.counts.all
        if count > MOST_SENT:
            header["notes"].append(self._state.note_of_shown_rows(MOST_SENT, count))
        can_steer = not self._ended and not self._note
        return {
            **header,
            "stopping": self._run.stopped and not self._ended,
            "note": self._note,
            "ended": self._ended,
            "paused": self._run.paused,
            "steerable": sorted(self._run.steerable) if can_steer else [],
        }

    def _is_silent(self) -> bool:
        """Whether all pages that showed the run seem to be closed."""
        return not self._note and time.monotonic() - self._last_message_at > _SILENCE_LIMIT

    def _schedule(self) -> None:
        if not self._scheduled and self._transport is not None and not self._is_silent():
            self._scheduled = True
            self._loop.call_soon_threadsafe(self._wait)

    def _wait(self) -> None:
        self._loop.call_later(max(0.0, self._next_flush - time.monotonic()), self._flush)

    def _flush(self) -> None:
        with self._lock:
            self._scheduled = False
            if self._transport is None or self._ended or self._failed:
                return
            began = time.monotonic()
            self._send(self._transport)
            ended = time.monotonic()
            self._next_flush = ended + max(INTERVAL, _PAUSE_FACTOR * (ended - began))
            if self._state.has_unsent:
                self._schedule()

    def _send(self, transport: Transport) -> None:
        """Send the changes. After a failure nothing more is sent, and the run continues."""
        try:
            transport.send(self._delta())
            if self._note and time.monotonic() >= self._next_push:
                self._push_interval *= 2
                self._next_push = time.monotonic() + self._push_interval
                transport.snapshot()
        except Exception:
            self._fail()

    def _fail(self) -> None:
        self._failed = True
        _log.exception("the live view of run %s failed; the run continues without it", self._run.id)

    def _delta(self) -> dict[str, Any]:
        changed, removed = self._state.take_changes(self._opened)
        patches = []
        for row in changed:
            patch = _patch(self._sent_rows.get(row["key"]), row)
            if patch:
                patch["key"] = row["key"]
                patches.append(patch)
            self._sent_rows[row["key"]] = row
        removed = [key for key in removed if self._sent_rows.pop(key, None) is not None]
        header = self._header()
        header_patch = _patch(self._sent_header, header)
        self._sent_header = header
        self._seq += 1
        message = {"type": "delta", "seq": self._seq, "header": header_patch, "rows": patches, "removed": removed}
        if self._record.front.leads != self._sent_leads:
            self._sent_leads = dict(self._record.front.leads)
            message["leads"] = self._sent_leads
        if self._is_live_due:
            live = self._live()
            if live:
                message["live"] = live
        return message

    def _live(self) -> dict[str, LiveRow]:
        """The rows whose streamed calls have changed since the last batch with such rows."""
        self._is_live_due = False
        self._waits_for_live = False  # before reading, so that no later piece is missed
        rows: dict[str, LiveRow] = {}
        sizes: dict[str, Any] = {}
        for key, streams in self._state.streams.by_row().items():
            if not self._state.is_sent(key, self._opened):
                continue
            with_texts = key in self._followed
            sizes[key] = (with_texts, [(stream.number, stream.size) for stream in streams])
            if self._sent_live.get(key) != sizes[key]:
                rows[key] = live_row(streams, with_texts=with_texts)
        for key in self._sent_live:
            if key not in sizes:
                rows[key] = {"line": ""}
        self._sent_live = sizes
        return rows

    def _finish(self) -> None:
        transport = self._transport
        if transport is None:
            return
        self._transport = None
        self._record.streams.unwatch(self.stream_grew)
        self._is_live_due = bool(self._sent_live)
        if not self._failed and not self._is_silent():
            self._send(transport)
        transport.finish(self._state)


def _patch(before: Payload | None, after: Payload) -> Payload:
    """The fields that changed, and None for fields that no longer exist; empty if nothing changed."""
    if before is None:
        return after
    patch = {name: value for name, value in after.items() if before.get(name) != value or name not in before}
    for name in before:
        if name not in after:
            patch[name] = None
    return patch


def steer(run: Any, content: Mapping[str, Any]) -> None:
    """Apply an action of a person to a run.

    Raises:
        DspynbError: the run refuses the action.
    """
    value = content.get("value")
    match content.get("action"):
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
