"""Events of runs, and front ends with the real store, for tests of views."""

from __future__ import annotations

import asyncio
import atexit
import itertools
from functools import cache
from pathlib import Path

from dspynb.data import Usage
from dspynb.errors import InputError
from dspynb.events import (
    AttemptChosen,
    AttemptEnded,
    AttemptStarted,
    PredictorCalled,
    RunEnded,
    RunStarted,
    SpanEnded,
    SpanStarted,
)
from dspynb.running.record import RunRecord
from dspynb.views.live.live_view import LiveView
from tests.js.node import Node

_numbers = itertools.count(1_000_000)
HOSTILE = "<img src=x onerror=alert(1)></pre></details><script>alert(2)</script>'\"&\ud800"


def a_refine(n=3, text="a sentence", end="finished", hint="be brief"):
    """The events of a Refine of ``n`` attempts with rising scores."""
    run = next(_numbers)
    search = next(_numbers)
    yield RunStarted(span=run, kind="refine", name=f"Refine({text})", at=100.0)
    yield SpanStarted(span=search, parent=run, kind="search", name="Refine")
    for number in range(1, n + 1):
        yield from an_attempt(search, number, text, hint if number > 1 else None, number / n)
    yield AttemptChosen(span=search, parent=run, attempt=n)
    yield RunEnded(span=run, status=end, at=103.0)


def an_attempt(search, number, text="a sentence", hint=None, score=0.5):
    """The events of one scored attempt of a search."""
    span = next(_numbers)
    yield AttemptStarted(span=span, parent=search, attempt=number, wave=number, hint=hint)
    yield PredictorCalled(
        span=next(_numbers),
        parent=span,
        predictor="self",
        uid="u",
        inputs={},
        messages=({"role": "system", "content": f"Write.{f' Hint: {hint}' if hint else ''}"}, {"content": text}),
        hint=hint,
        usage=Usage(calls=1, prompt_tokens=7),
    )
    yield AttemptEnded(
        span=span, parent=search, state="scored", outputs={"sentence": text}, score=score, feedback=text, seconds=1.0
    )


def a_batch(rows=3, failing=(), text="a sentence"):
    """The events of a batch, one row after another."""
    run = next(_numbers)
    yield RunStarted(span=run, kind="batch", name="Predict", inputs={"rows": rows})
    for row in range(rows):
        span = next(_numbers)
        error = f"ParseError: {text}" if row in failing else None
        yield SpanStarted(span=span, parent=run, kind="row", name=f"row {row}", inputs={"subject": text}, row=row)
        yield SpanEnded(span=span, parent=run, outputs=None if error else {"sentence": text}, error=error)
    yield RunEnded(span=run, status="finished")


class FakeRun:
    """The part of a run that views use."""

    id = "a-run"
    done = stopped = paused = False
    steerable = frozenset({"pause", "hint"})

    def __init__(self, events=()):
        self.hints = []
        self.watchers = []
        self.record = RunRecord(events)

    def watch(self, watcher):
        self.watchers.append(watcher)

    def emit(self, event):
        with self.record.lock:
            changes = self.record.apply(event)
            for watcher in self.watchers:
                watcher(changes)

    def stop(self):
        self.stopped = True

    def pause(self):
        self.paused = True

    def suggest_hint(self, hint, *, row=None):
        if not hint:
            raise InputError("a hint needs words")
        self.hints.append((hint, row))


_STORES = Path(__file__).parent.parent / "js" / "stores.mjs"


@cache
def _stores():
    """A Node.js process with the stores of all front ends of these tests."""
    node = Node(_STORES)
    atexit.register(node.close)
    return node


def a_live_view(note="", events=()):
    """A live view in the running loop, and its run."""
    run = FakeRun(events)
    view = LiveView(run, asyncio.get_running_loop(), note)
    run.watch(view.changed)
    return view, run


class FrontEnd:
    """A transport that passes messages to the front end's store in Node.js, and the store's messages to the view.

    While it is ``deaf``, messages to the store are lost.
    """

    def __init__(self, view, clock=lambda: 0.0):
        self.view = view
        self.clock = clock
        self.times = []
        self.messages = []
        self.finished = []
        self.refused = []
        self.deaf = False
        self.snapshot_requests = 0
        self._id = _stores().call("create")
        self.snapshot()

    @property
    def deltas(self):
        return [message for message in self.messages if message["type"] == "delta"]

    @property
    def header(self):
        return self._state()["header"]

    @property
    def rows(self):
        return {row["key"]: row for row in self._state()["rows"]}

    @property
    def seq(self):
        return self._state()["seq"]

    @property
    def leads(self):
        return self._state()["leads"]

    @property
    def details(self):
        return self._state()["details"]

    @property
    def live(self):
        """Key of a row → its calls that are being streamed, if their texts were sent."""
        return self._state()["live"]

    def _state(self):
        return _stores().call("state", id=self._id)

    def entries(self, **options):
        """The level and the label of each row of the table, from top to bottom."""
        return _stores().call("entries", id=self._id, **options)

    def send(self, message):
        self.times.append(self.clock())
        self.messages.append(message)
        if self.deaf:
            return
        if message["type"] == "refused":
            self.refused.append(message["text"])
        for answer in _stores().call("receive", id=self._id, message=message):
            self.snapshot_requests += answer["type"] == "snapshot"
            self.view.message(answer)

    def snapshot(self):
        if not self.deaf:
            _stores().call("snapshot", id=self._id, snapshot=self.view.snapshot())

    def finish(self, record):
        self.finished.append(record)
