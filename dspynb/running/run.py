"""Run: the handle of a piece of work. It takes the events, can be stopped, awaited, shown and read.

The outermost module call drives itself through ``Run.drive``; whatever is called inside becomes part of the same run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import dspynb
from dspynb.errors import Halted, InputError, JournalError, RunInterrupted, RunStopped, ScopeError
from dspynb.events import AttemptStarted, Event, RunEnded, RunStarted, Sink, new_span, spans_after
from dspynb.redact import error_text, redact_values
from dspynb.running.aio.signals import foreground
from dspynb.running.aio.tasks import GRACE
from dspynb.running.control import Steerable
from dspynb.running.journal import JournalFile, flush_journals
from dspynb.running.journal_reader import Journal, cut_torn_line, load_journal
from dspynb.running.locks import lock_run
from dspynb.running.reader import RunReader
from dspynb.running.record import RunRecord
from dspynb.running.record_changes import NOTHING, Changes
from dspynb.running.user_code import as_exception
from dspynb.running.view_hook import attach_view, show
from dspynb.scope.core import Layer, current_scope
from dspynb.scope.settings import setting

__all__ = ["Run", "Work", "last_run"]

_log = logging.getLogger("dspynb")
_SMALL = 256
"""Events of a run whose record is made only when somebody reads it. So reading it never costs more than these."""
_last: deque[Run] = deque(maxlen=1)


def last_run() -> Run | None:
    """The run that was started last in this process, or None.

    >>> prediction = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"])).run_sync(question="2+2?")
    >>> dn.last_run() is prediction.run, dn.last_run().status
    (True, 'finished')
    """
    return _last[-1] if _last else None


class Work(Protocol):
    """What a run does: awaited once; ``partial`` gives the best so far when it is stopped, or None."""

    def __call__(self) -> Awaitable[Any]: ...

    def partial(self) -> Any: ...


class Run(Steerable):
    """A run in this process. ``await run`` gives its result; ``run.stop()`` ends it and keeps the best so far.
    While it runs it can be steered: see ``run.steerable``.

    Made by ``module.start(...)`` and by every outermost ``await module(...)``.

    >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> run = ask.run_sync(question="2+2?").run
    >>> run.status, run.usage.calls, run.calls.reply.tolist()
    ('finished', 1, ['answer: 4'])
    """

    def __init__(
        self,
        kind: str,
        name: str,
        inputs: Mapping[str, Any],
        paths: Mapping[str, str],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(None)
        self.kind, self.name, self.span = kind, name, new_span()
        self.paths = paths  # predictor uid -> dotted path
        self.program_type: type | None = None  # of the module whose call this is; None for other work
        self._inputs, self._settings = inputs, settings or {}
        self._listeners: list[Sink] = []
        self._watchers: list[Callable[[Changes], object]] = []
        self._stop_asked = self._interrupted = False
        self._outcome: tuple[bool, Any] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._driver: asyncio.Task[Any] | None = None  # the task that runs the work; may be the caller's own
        self._task: asyncio.Task[Any] | None = None  # the task that start() made
        self._before = 0  # cancellations of that task that others had asked for
        self._lock = threading.RLock()  # held by whoever emits; taken before the record's lock, never after it
        self._journal: JournalFile | None = None
        self._in_flight: set[asyncio.Task[Any] | None] = set()

    # ── events ────────────────────────────────────────────────────────────────────────────────────────────────────
    def emit(self, event: Event) -> None:
        """Take an event and pass it on. A listener that fails is logged and dropped; the run goes on."""
        if self._journal is None and isinstance(event, AttemptStarted):
            self._open_journal()
        with self._lock:  # threads may emit too, and every listener must see one order
            with self._record_lock:
                if self._record is None and len(self._events) < _SMALL and not self._watchers:
                    self._events.append(event)
                    changes = NOTHING
                else:
                    changes = self.record.apply(event)
            for listener in tuple(self._listeners):  # without the record's lock: one may wait for a thread that reads
                self._tell(listener, event)
            if self._watchers and changes is not NOTHING:
                with self._record_lock:
                    for watcher in tuple(self._watchers):
                        self._notify(watcher, changes)

    def _tell(self, listener: Sink, event: Event) -> None:
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
        """Log what a listener raised. Raises it again where it ends the process."""
        if not isinstance(as_exception(error, "the listener"), Exception):
            raise error
        _log.error("a listener of run %s failed and was dropped", self.id, exc_info=error)

    def watch(self, watcher: Callable[[Changes], object]) -> None:
        """Call ``watcher`` with the keys of ``run.record`` that each event changes, from now on and until the run ends.

        It is called after the listeners, in whatever thread emitted the event, and with ``record.lock`` held. It holds
        up the run as long as it takes: remember the changes and read the record later. One that fails is logged and
        dropped.
        """
        with self._lock:
            self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[Changes], object]) -> None:
        """Call ``watcher`` no more."""
        with self._lock, contextlib.suppress(ValueError):
            self._watchers.remove(watcher)

    def listen(self, listener: Sink | Callable[[Event], object], *, replay: bool = False) -> None:
        """Send events from now on to ``listener``; with ``replay`` those so far first.

        ``listener``: a function of an event, or an object with ``emit(event)``. One that fails is logged and dropped.
        Raises InputError for anything else.

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
        sink = _Function(listener) if callable(listener) and not hasattr(listener, "emit") else listener
        if not hasattr(sink, "emit"):
            got = type(listener).__name__
            raise InputError(f"listen takes a function of an event, or an object with emit(event); got {got}")
        with self._lock:
            self._listeners.append(sink)
            for event in self._events_so_far() if replay else ():
                self._tell(sink, event)

    def _events_so_far(self) -> tuple[Event, ...]:
        with self._record_lock:
            return tuple(self._events if self._record is None else self._record.events)

    def unlisten(self, listener: Sink | Callable[[Event], object]) -> None:
        """Send ``listener`` no more events."""
        with self._lock, contextlib.suppress(ValueError):
            self._listeners.remove(listener)  # type: ignore[arg-type]  # a function equals its sink

    async def events(self) -> AsyncIterator[Event]:
        """All events, from the first, until the run ends: ``async for event in run.events()``.

        >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> async def main():
        ...     return [type(event).__name__ async for event in ask.start(question="2+2?").events()]
        >>> dn.run_sync(main)
        ['RunStarted', 'PredictorCalled', 'RunEnded']
        """
        sent, events = 0, self.record.events
        while True:
            while sent < len(events):
                yield events[sent]
                sent += 1
            if self.done:
                return
            await asyncio.sleep(0.05)

    @classmethod
    def resumed(cls, path: Path, kind: str, name: str, inputs: Mapping[str, Any], paths: Mapping[str, str]) -> Run:
        """A run that goes on with the file of one that ended or was lost: its id, its events, and more of them.

        Its file is locked until the run ends. Raises RunInUse while another run writes it, JournalError when the file
        cannot be read or is of another kind of run.
        """
        flush_journals()  # also the end of a run that had it until now
        lock = lock_run(path)
        try:
            journal = _resumable(path, kind)
            run = cls(kind, name, inputs, paths)
            run._take_over(journal, JournalFile(path, None, lock))
        except BaseException:
            lock.release()
            raise
        return run

    def _take_over(self, journal: Journal, file: JournalFile) -> None:
        record = RunRecord(journal.events, self._record_lock)
        self._id, self.path = str(journal.header.get("id", file.path.stem)), str(file.path)
        self._record = record
        spans_after(record.last_span)
        if record.started is not None:
            self._settings, self.span = record.started.settings, record.started.span
        else:
            self.span = new_span()
        self.steering.kept = [event for event in record.steered if event.action not in ("pause", "unpause")]
        self._journal = file
        self.listen(file)

    @contextlib.contextmanager
    def released_on_error(self) -> Iterator[None]:
        """Release the run file where the block raises: what was resumed does not start."""
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
        """Whether the run has ended, however it ended."""
        return self._outcome is not None

    @property
    def is_handle(self) -> bool:
        """Whether ``start()`` made it, so that no cell has to wait for it."""
        return self._task is not None

    @property
    def stopped(self) -> bool:
        """Whether a stop or an interrupt was asked for."""
        return self._stop_asked or self._interrupted

    @property
    def interrupted(self) -> bool:
        """Whether the kernel's stop button or Ctrl-C was what ended it."""
        return self._interrupted

    @property
    def task(self) -> asyncio.Task[Any]:
        """The task that ``start()`` made. Raises ScopeError for a run that is awaited where it was called."""
        if self._task is None:
            raise ScopeError("this run was not started as a handle; it is awaited where it was called")
        return self._task

    @property
    def best(self) -> Any:
        """The best result so far: a prediction, an evaluation or a program, as ``await run`` would give it if the run
        were stopped now; None where there is none yet. See also ``best_parts``, of an optimizer's run."""
        if self._outcome is not None:
            return self._outcome[1] if self._outcome[0] else self._partial()
        return self._partial()

    def _partial(self) -> Any:
        return None

    # ── driving ───────────────────────────────────────────────────────────────────────────────────────────────────
    async def drive(self, work: Work) -> Any:
        """Do the work in the current task and tell how it ended. Used once."""
        task = asyncio.current_task()
        if task is None:
            raise ScopeError("a run needs an asyncio task; await it from a coroutine or use run_sync")
        self._before, self.work = task.cancelling(), work
        self._partial = work.partial  # type: ignore[method-assign]
        with self._lock:
            self.loop, self._driver = asyncio.get_running_loop(), task
        self._nest()
        try:
            with foreground(self), Layer(f"the run of {self.name}", port=self, span=self.span):
                self._begin()
                result = await work()
        except asyncio.CancelledError as error:
            self._release()
            return self._cancelled(task, error)
        except Halted as error:
            self._release()
            self._raise_if_interrupted()
            return self._settle(error)
        except BaseException as error:
            self._release()
            self._raise_if_interrupted()
            failed = self._failed(error)
            if failed is error:
                raise
            raise failed from error
        self._release()
        self._raise_if_interrupted(result)
        self._end("finished", (True, result))
        return result

    def _nest(self) -> None:
        """Tell the runs that this one is started in where in them it is: they get its events too."""
        scope = current_scope()
        if scope.open_run is None:
            return
        for layer in scope.open_layers():
            if isinstance(layer.port, RunReader):
                layer.port.record.nest(self.span, scope.open_span)

    def _begin(self) -> None:
        _last.append(self)
        if self.kind != "call" and self._journal is None:
            self._open_journal()
        started = RunStarted(
            span=self.span,
            kind=self.kind,
            name=self.name,
            inputs=redact_values(self._inputs),
            settings=self._settings,
            paths=tuple(self.paths.values()),
        )
        self.emit(started)
        self.admit()  # stopped before it began

    def _release(self) -> None:
        with self._lock:
            self._driver = None

    def _failed(self, error: BaseException) -> BaseException:
        """End as failed; the error to raise: what user code raised that is no Exception is made one."""
        failed = as_exception(error, f"the program {self.name}")
        self._end("failed", (False, failed), error_text(failed))
        return failed

    def _cancelled(self, task: asyncio.Task[Any], error: asyncio.CancelledError) -> Any:
        """Translate a cancellation of our own; pass on one that came from outside."""
        self._raise_if_interrupted()
        if self._stop_asked and task.uncancel() <= self._before:
            return self._settle(RunStopped(run=self))
        if isinstance(as_exception(error, ""), Exception):
            raise self._failed(error) from error
        self._end("cancelled", (False, error))
        raise error

    def _raise_if_interrupted(self, result: Any = None) -> None:
        """End as interrupted if that was asked for, also when the work came to its end before it noticed."""
        if self._interrupted:
            interrupted = RunInterrupted(self)
            if result is not None:
                self._partial = lambda: result  # type: ignore[method-assign]
            self._end("interrupted", (False, interrupted))
            raise interrupted from None

    def _settle(self, error: Halted) -> Any:
        best = self._partial()
        error.run = error.run or self
        self._end(error.status, (best is not None, best if best is not None else error))
        if best is None:
            raise error
        return best

    def _end(self, status: str, outcome: tuple[bool, Any], error: str | None = None) -> None:
        self.emit(RunEnded(span=self.span, status=status, error=error))
        self._outcome = outcome
        self._let_pass()
        self._listeners.clear()
        self._watchers.clear()
        self._close_journal()

    def start(self, work: Work) -> Run:
        """Drive the work in a task of its own and return at once. Raises ScopeError where no event loop runs."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ScopeError(
                "start() needs a running event loop (a notebook has one); in a script use run_sync"
            ) from None
        _last.append(self)
        self.loop, self.work = loop, work
        self._task = loop.create_task(self.drive(work), name=f"dspynb run {self.id}")
        self._task.add_done_callback(_retrieve)
        self._task.add_done_callback(lambda _: self._close_journal())  # also of one that was cancelled before it began
        return self

    async def watched(self, work: Work) -> Any:
        """Drive the work for the cell that awaits it, with its live view."""
        attach_view(self)
        return await self.drive(work)

    # ── stopping ──────────────────────────────────────────────────────────────────────────────────────────────────
    def stop(self) -> None:
        """End the run and keep the best so far: calls in flight are cancelled, none starts. From any thread.

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
        self._ask(interrupt=False)

    def interrupt(self) -> None:
        """What the kernel's stop button and Ctrl-C do to a run that a cell awaits; safe in a signal handler."""
        self._ask(interrupt=True)

    def _ask(self, *, interrupt: bool) -> None:
        if self.done:
            return
        if interrupt:
            self._interrupted = True
        else:
            self._stop_asked = True
        loop = self.loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._cancel_driver)

    def _cancel_driver(self) -> None:
        # The kernel's own handler may have cancelled this task already; a second cancel would break into its clean-up.
        driver = self._driver
        if driver is not None and driver.cancelling() <= self._before:
            driver.cancel()
        for task in self._in_flight.copy():  # also in tasks and threads that the program made
            if task is None or task is driver:
                continue
            with contextlib.suppress(RuntimeError):
                task.get_loop().call_soon_threadsafe(_cancel_once, task)

    def call_began(self, task: asyncio.Task[Any] | None) -> None:
        """A task waits for a model: a stop may cancel it."""
        self._in_flight.add(task)  # atomic, like the copy that is looked through

    def call_ended(self, task: asyncio.Task[Any] | None) -> None:
        """It waits no longer."""
        self._in_flight.discard(task)

    def admit(self) -> None:
        """Called before each model call. Raises RunStopped once a stop or an interrupt was asked for."""
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
        if self._outcome is None:  # its task was cancelled before it began
            raise asyncio.CancelledError
        succeeded, value = self._outcome
        if not succeeded:
            raise value
        return value

    def _ipython_display_(self) -> None:
        show(self)


class _Function:
    """A function that listens."""

    def __init__(self, fn: Callable[[Event], object]) -> None:
        self._fn = fn

    def emit(self, event: Event) -> None:
        """Call the function."""
        self._fn(event)

    def __eq__(self, other: object) -> bool:
        return self._fn == (other._fn if isinstance(other, _Function) else other)

    def __hash__(self) -> int:
        return hash(self._fn)


def _header(run: Run) -> dict[str, Any]:
    """The first line of a run file; ``version``: of dspynb, that wrote it."""
    return {"id": run.id, "kind": run.kind, "name": run.name, "version": dspynb.__version__}


def _resumable(path: Path, kind: str) -> Journal:
    """A run file that can be resumed, without its torn last line."""
    journal = load_journal(path, leave_prompts=True)
    if damage := journal.damage():
        raise JournalError(f"cannot resume {path}: {damage}; dn.open_run reads the rest")
    if journal.header.get("kind") != kind:
        raise JournalError(f"{path} is the run of {journal.header.get('kind')!r}; only {kind!r} can go on with it")
    cut_torn_line(path)
    return journal


def _cancel_once(task: asyncio.Task[Any]) -> None:
    if not task.done() and not task.cancelling():
        task.cancel()


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Mark the exception as seen: the handle keeps it, and nobody may ever await the handle."""
    if not task.cancelled():
        task.exception()
