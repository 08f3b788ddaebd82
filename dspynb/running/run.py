"""Run: the handle of a piece of work. It receives the events, and can be awaited, stopped, displayed and read.

The outermost module call drives itself through ``Run.drive``; calls inside it become part of the same run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import dspynb
from dspynb.errors import Halted, InputError, JournalError, RunInterrupted, RunStopped, ScopeError
from dspynb.events import AttemptStarted, Event, RunEnded, RunStarted, Sink, new_span, spans_after
from dspynb.redact import error_text, redact, redact_values
from dspynb.running.aio.signals import foreground
from dspynb.running.aio.tasks import GRACE
from dspynb.running.control import Steerable
from dspynb.running.journal import JournalFile, flush_journals
from dspynb.running.journal_reader import Journal, cut_torn_line, load_journal
from dspynb.running.locks import lock_run
from dspynb.running.reader import RunReader
from dspynb.running.record import RunRecord
from dspynb.running.record_changes import NOTHING, Changes
from dspynb.running.streamed_calls import StreamedCall
from dspynb.running.tracking import TRACKED_ELSEWHERE, InnerRun, begin_tracking
from dspynb.running.user_code import as_exception
from dspynb.running.view_hook import attach_view, show
from dspynb.scope.call_context import CallContext
from dspynb.scope.core import Layer, current_scope
from dspynb.scope.settings import setting

__all__ = ["Run", "Work", "last_run"]

_log = logging.getLogger("dspynb")
_MAX_UNAPPLIED = 256
"""Up to this many events are collected before the record of a run is made, unless somebody reads it earlier. So the
first reading never has to apply more events than these."""
_NO_SETTINGS: Mapping[str, Any] = {}
_paths: deque[Mapping[str, str]] = deque(maxlen=1)
_last: deque[Run] = deque(maxlen=1)


def _shared_paths(paths: Mapping[str, str]) -> Mapping[str, str]:
    """The paths of the run before if they are equal, so that thousands of concurrent runs of a program share a dict."""
    if _paths and _paths[0] == paths:
        return _paths[0]
    _paths.append(paths)
    return paths


def last_run() -> Run | None:
    """The run that was started last in this process, or None.

    >>> prediction = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"])).run_sync(question="2+2?")
    >>> dn.last_run() is prediction.run, dn.last_run().status
    (True, 'finished')
    """
    return _last[-1] if _last else None


class Work(Protocol):
    """The work of a run, awaited once. ``partial`` returns the best result so far when the run is stopped, or None."""

    def __call__(self) -> Awaitable[Any]: ...

    def partial(self) -> Any: ...


class Run(Steerable):
    """A run in this process. ``await run`` returns its result; ``run.stop()`` ends it and keeps the best so far.
    While it runs, it can be steered: see ``run.steerable``.

    ``module.start(...)`` and every outermost ``await module(...)`` create one.

    >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> run = ask.run_sync(question="2+2?").run
    >>> run.status, run.usage.calls, run.calls.reply.tolist()
    ('finished', 1, ['answer: 4'])
    """

    # Few runs have these, and Python shares the keys of an object's dict only while it has at most 29 attributes.
    limits: Mapping[str, float] = {}
    """The limits of the run's own budget, by name."""
    end_reason: str = ""
    """Why the run ends where it does; its work sets it."""

    def __init__(
        self,
        kind: str,
        name: str,
        inputs: Mapping[str, Any],
        paths: Mapping[str, str],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(None)
        self.kind = kind
        self.name = name
        self.span = new_span()
        self.paths = _shared_paths(paths)  # predictor uid → dotted path
        self.program_type: type | None = None  # the type of the module whose call this is; None for other work
        self._inputs = inputs
        self._settings: Mapping[str, Any] = settings or _NO_SETTINGS
        self._listeners: tuple[Sink, ...] = ()
        self._watchers: tuple[Callable[[Changes], object], ...] = ()
        self._stop_requested = False
        self._interrupted = False
        self._outcome: tuple[Any, BaseException | None] | None = None  # the result, or the best so far, and the error
        self.loop: asyncio.AbstractEventLoop | None = None
        self._driver: asyncio.Task[Any] | None = None  # the task that runs the work; may be the caller's own
        self._task: asyncio.Task[Any] | None = None  # the task that start() created
        self._earlier_cancellations = 0  # cancellations of the driver that were requested before it drove the work
        self._lock = threading.RLock()  # held while emitting; acquired before the record's lock, never after it
        self._journal: JournalFile | None = None
        self._in_flight: set[asyncio.Task[Any] | None] = set()  # tasks that wait for a model
        self._tracker: Sink | None = None  # receives the events for the system of the setting ``track``

    # ── events ────────────────────────────────────────────────────────────────────────────────────────────────────
    def emit(self, event: Event) -> None:
        """Apply an event to the record and pass it to the listeners. A listener that fails is logged and removed; the
        run continues."""
        if self._journal is None and isinstance(event, AttemptStarted):
            self._open_journal()
        with self._lock:  # threads may emit too, and every listener must see one order
            with self._record_lock:
                record = self._record
                if record is None and (self._watchers or len(self._events) >= _MAX_UNAPPLIED):
                    record = self.record
                if record is None:
                    self._events.append(event)
                    changes = NOTHING
                else:
                    changes = record.apply(event)
            if self._listeners:  # without the record's lock: a listener may wait for a reading thread
                for listener in self._listeners:
                    self._send(listener, event)
            if self._watchers and changes is not NOTHING:
                with self._record_lock:
                    for watcher in self._watchers:
                        self._notify(watcher, changes)

    def _send(self, listener: Sink, event: Event) -> None:
        try:
            listener.emit(event)
        except BaseException as error:
            self._log_failure(error)
            self.unlisten(listener)

    def _notify(self, watcher: Callable[[Changes], object], changes: Changes) -> None:
        try:
            watcher(changes)
        except BaseException as error:
            self._log_failure(error)
            self.unwatch(watcher)

    def _log_failure(self, error: BaseException) -> None:
        """Log the error of a listener. Raises it again if it must end the process."""
        if not isinstance(as_exception(error, "the listener"), Exception):
            raise error
        _log.error("a listener of run %s failed and was dropped", self.id, exc_info=error)

    def watch(self, watcher: Callable[[Changes], object]) -> None:
        """Call ``watcher`` with the keys of ``run.record`` that each event changes, until the run ends.

        It is called after the listeners, in the thread that emitted the event, with ``record.lock`` held. It delays the
        run, so it should only note the changes and read the record later. A watcher that fails is logged and removed.
        """
        with self._lock:
            self._watchers = (*self._watchers, watcher)

    def unwatch(self, watcher: Callable[[Changes], object]) -> None:
        """Stop calling ``watcher``."""
        with self._lock:
            self._watchers = tuple(each for each in self._watchers if each != watcher)

    def listen(self, listener: Sink | Callable[[Event], object], *, replay: bool = False) -> None:
        """Send each further event to ``listener``, until the run ends.

        ``listener``: a function of an event, or an object with ``emit(event)``; one that fails is logged and removed.
        ``replay``: send all earlier events first. Raises InputError for any other listener.

        >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> names = []
        >>> async def main():
        ...     run = ask.start(question="2+2?")
        ...     run.listen(lambda event: names.append(type(event).__name__))
        ...     await run
        >>> dn.run_sync(main)
        >>> names
        ['RunStarted', 'PredictorCalled', 'RunEnded']
        """
        if hasattr(listener, "emit"):
            sink: Sink = listener
        elif callable(listener):
            sink = _FunctionSink(listener)
        else:
            type_name = type(listener).__name__
            raise InputError(f"listen takes a function of an event, or an object with emit(event); got {type_name}")
        with self._lock:
            self._listeners = (*self._listeners, sink)
            if replay:
                for event in self._events_so_far():
                    self._send(sink, event)

    def _events_so_far(self) -> tuple[Event, ...]:
        with self._record_lock:
            return tuple(self._events if self._record is None else self._record.events)

    def unlisten(self, listener: Sink | Callable[[Event], object]) -> None:
        """Stop sending events to ``listener``."""
        with self._lock:
            self._listeners = tuple(each for each in self._listeners if each != listener)  # a function equals its sink

    async def events(self) -> AsyncIterator[Event]:
        """Yield all events from the first one until the run ends: ``async for event in run.events()``.

        >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> async def main():
        ...     return [type(event).__name__ async for event in ask.start(question="2+2?").events()]
        >>> dn.run_sync(main)
        ['RunStarted', 'PredictorCalled', 'RunEnded']
        """
        events = self.record.events
        position = 0
        while True:
            while position < len(events):
                yield events[position]
                position += 1
            if self.done:
                return
            await asyncio.sleep(0.05)

    @classmethod
    def resumed(cls, path: Path, kind: str, name: str, inputs: Mapping[str, Any], paths: Mapping[str, str]) -> Run:
        """A run that resumes the file of an earlier one: it keeps the id and the events, and appends further events.

        The file is locked until the run ends. Raises RunInUse while another run writes the file, JournalError where it
        cannot be read or belongs to another kind of run.
        """
        flush_journals()  # the last lines of a run that has just ended may still be waiting to be written
        lock = lock_run(path)
        try:
            journal = _resumable(path, kind)
            run = cls(kind, name, inputs, paths)
            run._continue(journal, JournalFile(path, None, lock))
        except BaseException:
            lock.release()
            raise
        return run

    @classmethod
    def continuing(cls, earlier: Run) -> Run:
        """A run that goes on where an ended run of this process stopped, in its file if it has one.

        Raises RunInUse while another run writes the file, JournalError where it cannot be read.
        """
        if earlier.path is not None:
            run = cls.resumed(Path(earlier.path), earlier.kind, earlier.name, earlier._inputs, earlier.paths)
        else:
            run = cls(earlier.kind, earlier.name, earlier._inputs, earlier.paths)
            run._id = earlier.id
            run.span = earlier.span
            run._record = RunRecord(earlier.record.events, run._record_lock)
        run._settings = earlier._settings
        run.program_type = earlier.program_type
        return run

    def _continue(self, journal: Journal, file: JournalFile) -> None:
        """Load the record of a run file, and append the further events to the file."""
        record = RunRecord(journal.events, self._record_lock)
        self._id = str(journal.header.get("id", file.path.stem))
        self.path = str(file.path)
        self._record = record
        spans_after(record.last_span)
        if record.started is not None:
            self._settings = record.started.settings
            self.span = record.started.span
        else:
            self.span = new_span()
        self.steering.applied = [event for event in record.steered if event.action not in ("pause", "unpause")]
        self._journal = file
        self.listen(file)

    @contextlib.contextmanager
    def released_on_error(self) -> Iterator[None]:
        """Release the run file if the block raises, since the resumed run then does not start."""
        try:
            yield
        except BaseException:
            self._close_journal()
            raise

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def _open_journal(self) -> None:
        folder = setting("runs_dir")
        if folder is None:
            return
        self.path = str((Path(folder) / f"{self.id}.jsonl").absolute())
        self._journal = JournalFile(Path(self.path), _header(self))
        self.listen(self._journal, replay=True)

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────
    @property
    def done(self) -> bool:
        """Whether the run has ended, in whatever way."""
        return self._outcome is not None

    @property
    def is_handle(self) -> bool:
        """Whether the run was created by ``start()``, so that no cell has to wait for it."""
        return self._task is not None

    @property
    def stopped(self) -> bool:
        """Whether a stop or an interrupt was requested."""
        return self._stop_requested or self._interrupted

    @property
    def interrupted(self) -> bool:
        """Whether the kernel's stop button or Ctrl-C interrupted the run."""
        return self._interrupted

    @property
    def task(self) -> asyncio.Task[Any]:
        """The task that ``start()`` created. Raises ScopeError for a run that is awaited where it was called."""
        if self._task is None:
            raise ScopeError("this run was not started as a handle; it is awaited where it was called")
        return self._task

    @property
    def best(self) -> Any:
        """The best result so far: a prediction, an evaluation or a program. It is what ``await run`` would return if
        the run were stopped now; None where there is none yet. An optimizer's run also has ``best_parts``."""
        if self._outcome is not None:
            result, error = self._outcome
            if error is None or result is not None:
                return result
        return self._partial()

    def _partial(self) -> Any:
        return None if self.work is None else self.work.partial()

    # ── driving ───────────────────────────────────────────────────────────────────────────────────────────────────
    async def drive(self, work: Work) -> Any:
        """Do the work in the current task, record how it ended, and return its result. Called once.

        Raises the error of the work, RunStopped or RunInterrupted where it was stopped without a result, ScopeError
        outside an asyncio task.
        """
        task = asyncio.current_task()
        if task is None:
            raise ScopeError("a run needs an asyncio task; await it from a coroutine or use run_sync")
        self._earlier_cancellations = task.cancelling()
        self.work = work
        with self._lock:
            self.loop = asyncio.get_running_loop()
            self._driver = task
        self._nest()
        try:
            name = f"the run of {self.name}"
            context = None if self._record is None else self._resumed_context(self._record)
            with foreground(self), Layer(name, context=context, port=self, span=self.span):
                self._begin()
                result = await work()
        except asyncio.CancelledError as error:
            self._forget_driver()
            return self._end_cancelled(task, error)
        except Halted as error:
            self._forget_driver()
            self._raise_if_interrupted()
            return self._end_halted(error)
        except BaseException as error:
            self._forget_driver()
            self._raise_if_interrupted()
            exception = self._end_failed(error)
            if exception is error:
                raise
            raise exception from error
        self._forget_driver()
        self._raise_if_interrupted(result)
        self._end(getattr(work, "final_status", "finished"), (result, None))
        return result

    def _resumed_context(self, record: RunRecord) -> CallContext | None:
        """The call context with the profiles of models that the run file holds; None where it holds none."""
        if not record.learned_profiles:
            return None
        context = current_scope().context
        return replace(context, learned_profiles={**(context.learned_profiles or {}), **record.learned_profiles})

    def _nest(self) -> None:
        """Tell each run around this one in which of its spans this one starts: it receives this run's events too, and
        so does its tracker."""
        scope = current_scope()
        if scope.open_run is None:
            return
        for layer in scope.open_layers():
            if isinstance(layer.port, RunReader):
                layer.port.record.nest(self.span, scope.open_span)
            if isinstance(layer.port, Run):
                self._tracker = self._tracker or layer.port._tracker
            elif layer.port is not None and self._tracker is None:
                self._tracker = TRACKED_ELSEWHERE
        if self._tracker is not None:
            self.listen(InnerRun(self._tracker, scope.open_span))

    def _begin(self) -> None:
        _last.append(self)
        if self.kind != "call" and self._journal is None:
            self._open_journal()
        if self._tracker is None and setting("track") is not None:
            self._tracker = begin_tracking()
            if self._tracker is not None:
                self.listen(self._tracker)
        started = RunStarted(
            span=self.span,
            kind=self.kind,
            name=self.name,
            inputs=redact_values(self._inputs),
            settings=self._settings,
            paths=tuple(self.paths.values()),
            budget=self.limits,
        )
        self.emit(started)
        self.admit()  # raises if the run was stopped before it began

    def _forget_driver(self) -> None:
        with self._lock:
            self._driver = None

    def _end_failed(self, error: BaseException) -> BaseException:
        """End the run as failed. Returns the error to raise: what user code raised, wrapped if it is no Exception."""
        exception = as_exception(error, f"the program {self.name}")
        self._end("failed", (None, exception), error_text(exception))
        return exception

    def _end_cancelled(self, task: asyncio.Task[Any], error: asyncio.CancelledError) -> Any:
        """End the run after a cancellation. One that ``stop`` caused ends it as stopped; any other is raised again."""
        self._raise_if_interrupted()
        if self._stop_requested and task.uncancel() <= self._earlier_cancellations:
            return self._end_halted(RunStopped(run=self))
        if isinstance(as_exception(error, ""), Exception):
            raise self._end_failed(error) from error
        self._end("cancelled", (None, error))
        raise error

    def _raise_if_interrupted(self, result: object = None) -> None:
        """End the run as interrupted if it was, even if the work finished before it noticed."""
        if self._interrupted:
            interrupted = RunInterrupted(self)
            self._end("interrupted", (result, interrupted))
            raise interrupted from None

    def _end_halted(self, error: Halted) -> Any:
        """End the run as stopped or exhausted, and return the best so far. Raises the error where there is none."""
        best = self._partial()
        error.run = error.run or self
        if error.status == "exhausted":
            self.end_reason = str(error)
        if best is None:
            self._end(error.status, (None, error))
            raise error
        self._end(error.status, (best, None))
        return best

    def _end(self, status: str, outcome: tuple[Any, BaseException | None], error: str | None = None) -> None:
        self.emit(RunEnded(span=self.span, status=status, error=error, reason=redact(self.end_reason)))
        self._outcome = outcome
        self._open_gate()
        self._listeners = self._watchers = ()
        self._close_journal()

    def start(self, work: Work) -> Run:
        """Drive the work in a new task and return at once. Raises ScopeError where no event loop runs."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ScopeError(
                "start() needs a running event loop (a notebook has one); in a script use run_sync"
            ) from None
        _last.append(self)
        self.loop = loop
        self.work = work
        self._task = loop.create_task(self.drive(work), name=f"dspynb run {self.id}")
        self._task.add_done_callback(_retrieve)
        self._task.add_done_callback(lambda _: self._close_journal())  # even if it is cancelled before it begins
        return self

    async def watched(self, work: Work) -> Any:
        """Drive the work and display the live view, for a cell that awaits it."""
        attach_view(self)
        return await self.drive(work)

    # ── stopping ──────────────────────────────────────────────────────────────────────────────────────────────────
    def stop(self) -> None:
        """End the run and keep the best so far. Calls in flight are cancelled, and no further call starts. Can be
        called from any thread.

        >>> import asyncio
        >>> async def answer(request):
        ...     await asyncio.sleep(60 * request.rollout)  # the second attempt takes a minute
        ...     return "answer: four"
        >>> best = dn.BestOfN(dn.Predict("question -> answer", lm=dn.FunctionLM(answer)), lambda row, prediction: 0.5)
        >>> async def main():
        ...     run = best.start(question="2+2?")
        ...     while run.best is None:
        ...         await asyncio.sleep(0)
        ...     run.stop()
        ...     return (await run).answer, run.status
        >>> dn.run_sync(main)
        ('four', 'stopped')
        """
        self._request_end(interrupt=False)

    def interrupt(self) -> None:
        """Interrupt the run, as the kernel's stop button and Ctrl-C do while a cell awaits it. Safe in a signal
        handler."""
        self._request_end(interrupt=True)

    def _request_end(self, *, interrupt: bool) -> None:
        if self.done:
            return
        if interrupt:
            self._interrupted = True
        else:
            self._stop_requested = True
        loop = self.loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._cancel_tasks)

    def _cancel_tasks(self) -> None:
        # The kernel's own handler may have cancelled this task already; a second cancel would disturb its clean-up.
        driver = self._driver
        if driver is not None and driver.cancelling() <= self._earlier_cancellations:
            driver.cancel()
        for task in self._in_flight.copy():  # also tasks that the program created, perhaps in other threads
            if task is None or task is driver:
                continue
            with contextlib.suppress(RuntimeError):
                task.get_loop().call_soon_threadsafe(_cancel_once, task)

    def call_began(self, task: asyncio.Task[Any] | None) -> None:
        """Note that a task waits for a model, so that a stop can cancel it."""
        self._in_flight.add(task)  # atomic, like the copy in _cancel_tasks

    def call_ended(self, task: asyncio.Task[Any] | None) -> None:
        """Note that a task no longer waits for a model."""
        self._in_flight.discard(task)

    def stream_began(self, call: StreamedCall) -> None:
        """Let the views of the run show the reply of a call while it arrives."""
        self.record.streams.add(call)

    def admit(self) -> None:
        """Check that a model call may start. Raises RunStopped once a stop or an interrupt was requested."""
        if self.stopped:
            raise RunStopped("the run was stopped; no further calls are made", self)

    # ── awaiting and showing ──────────────────────────────────────────────────────────────────────────────────────
    def __await__(self) -> Generator[Any, None, Any]:
        return self._join().__await__()

    async def _join(self) -> Any:
        if self._outcome is None:
            task = self.task
            with foreground(self):
                try:
                    await asyncio.wait({task})
                except asyncio.CancelledError:
                    task.cancel()
                    await asyncio.wait({task}, timeout=GRACE)
                    if self._interrupted:
                        raise RunInterrupted(self) from None
                    raise
        return self._result()

    def _result(self) -> Any:
        if self._outcome is None:  # the task was cancelled before it began
            raise asyncio.CancelledError
        result, error = self._outcome
        if error is not None:
            raise error
        return result

    def _ipython_display_(self) -> None:
        show(self)


class _FunctionSink:
    """A listener that calls a function. It equals the function, so that ``unlisten`` finds it."""

    def __init__(self, fn: Callable[[Event], object]) -> None:
        self._fn = fn

    def emit(self, event: Event) -> None:
        """Call the function."""
        self._fn(event)

    def __eq__(self, other: object) -> bool:
        return self._fn == (other._fn if isinstance(other, _FunctionSink) else other)

    def __hash__(self) -> int:
        return hash(self._fn)


def _header(run: Run) -> dict[str, Any]:
    """The header of a run file, its first line. ``version`` is that of the dspynb that wrote it."""
    return {"id": run.id, "kind": run.kind, "name": run.name, "version": dspynb.__version__}


def _resumable(path: Path, kind: str) -> Journal:
    """Load a run file in order to resume it, and remove an incomplete last line from it."""
    journal = load_journal(path, leave_prompts=True)
    damage = journal.damage()
    if damage:
        raise JournalError(f"cannot resume {path}: {damage}; dn.open_run reads the rest")
    file_kind = journal.header.get("kind")
    if file_kind != kind:
        raise JournalError(f"cannot resume {path}: it is the file of a run of {file_kind!r}, not of {kind!r}")
    cut_torn_line(path)
    return journal


def _cancel_once(task: asyncio.Task[Any]) -> None:
    if not task.done() and not task.cancelling():
        task.cancel()


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Retrieve the exception of a task, so that asyncio does not log it: the run keeps it, and may never be awaited."""
    if not task.cancelled():
        task.exception()
