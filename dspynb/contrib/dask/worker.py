"""On a worker: one event loop for all jobs of the process, whole rollouts on it, and one reply each.

A job is a Dask task of its own, which waits on the worker's loop and takes none of its slots, so that a worker holds as
many jobs as the coordinator sends. When Dask no longer wants the task (a stop, a coordinator that has gone), the job is
cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from dspynb.contrib.dask.job import Grant, Header, Job, Ref, Reply
from dspynb.contrib.dask.serialization import pack_reply, unpack
from dspynb.data import Usage
from dspynb.errors import BudgetExhausted, ExecutorError, RunStopped
from dspynb.events import Event, new_span
from dspynb.redact import error_text
from dspynb.running.aio.sync import LoopThread
from dspynb.running.reader import RunReader
from dspynb.running.user_code import guarded
from dspynb.scope.budget import Budget, Meter
from dspynb.scope.core import Layer

__all__ = ["AwayRun", "Granted", "answered", "run_job", "same"]

Ask = Callable[[Mapping[str, Any]], Any]

_LOOK = 0.1
"""Seconds between two looks at whether a job is still wanted."""
_PATIENCE = 30.0
"""Seconds that a job waits for the coordinator's answer."""
_KEPT = 64
"""Programs, metrics and models that are kept unpacked."""

_lock = threading.Lock()
_JOBS = LoopThread("dspynb-jobs")  # not the loop of ``run_sync``, which a metric may use
_unpacked: OrderedDict[str, Any] = OrderedDict()
_questions: dict[str, Future[Any]] = {}
_running: dict[str, tuple[_Doing, asyncio.Future[Reply]]] = {}  # by the task's key
_watching: asyncio.Task[None] | None = None


def same(data: bytes) -> bytes:
    """What travels once, as a task: computed again where the worker that had it is lost."""
    return data


async def run_job(header: Header, packed: bytes, *shipped: bytes) -> Reply:
    """The task: have the job done on this process's loop for jobs, and give what came of it.

    Raises RunStopped where Dask no longer wanted it.
    """
    from distributed import get_worker
    from distributed.worker_state_machine import SecedeEvent

    import dspynb

    worker = get_worker()
    if header.version != dspynb.__version__:
        said = f"it has dspynb {dspynb.__version__} and the coordinator {header.version}: install one version on both"
        return Reply(worker.address, refused=said)
    # What ``secede()`` tells for a task in a thread: this one does not take one of the worker's few slots. It tells no
    # duration: where tasks of a kind take none, Dask's work stealing fails on one that waits, and loses the worker.
    seceded: Any = SecedeEvent
    worker.handle_stimulus(seceded(key=header.key, compute_duration=None, stimulus_id=f"secede-{time.time()}"))
    doing = _Doing()
    future = asyncio.wrap_future(_JOBS.submit(_do, doing, header, packed, shipped, worker))
    _running[header.key] = doing, future
    _watch(worker)
    try:
        await asyncio.wait([future])
        if future.cancelled():
            raise RunStopped
        return future.result()
    finally:
        del _running[header.key]
        doing.stop(future)


class _Doing:
    """A job under way: its run, once it is unpacked."""

    def __init__(self) -> None:
        self.away: AwayRun | None = None

    def stop(self, future: asyncio.Future[Reply]) -> None:
        """End it, where it has not ended."""
        if not future.done() and self.away is not None:
            self.away.stop()
        future.cancel()


def _watch(worker: Any) -> None:
    """Have one task of the worker look at whether Dask still wants what is done here."""
    global _watching  # noqa: PLW0603

    async def watch() -> None:
        while _running:
            await asyncio.sleep(_LOOK)
            for key, (doing, future) in list(_running.items()):
                if not _wanted(worker, key):
                    doing.stop(future)

    if _watching is None or _watching.done():
        _watching = asyncio.get_running_loop().create_task(watch())


async def _do(doing: _Doing, header: Header, packed: bytes, shipped: Sequence[bytes], worker: Any) -> Reply:
    """On the loop for jobs: unpack, run, pack."""
    try:
        job, away = _opened(packed, dict(zip(header.once, shipped, strict=True)), worker, header)
    except Exception as error:
        return Reply(worker.address, refused=f"it cannot read what was sent to it: {error_text(error)}. {_ADVICE}")
    doing.away = away
    return _reply(worker.address, job, away, *await _run(job, away))


_ADVICE = (
    "A module of yours must be importable there: install it on the workers, send it with client.upload_file(path), or "
    "define the function in the notebook"
)


def _wanted(worker: Any, key: Any) -> bool:
    """Whether Dask still wants the task's result."""
    task = worker.state.tasks.get(key)
    return task is not None and task.state not in ("cancelled", "released", "forgotten")


class AwayRun(RunReader):
    """What stands for the run on a worker: keeps a job's events, and admits calls until the job is stopped."""

    def __init__(self, job: Job, ask: Ask) -> None:
        super().__init__(job.snapshot.run)
        self.paths, self.name, self.program_type = job.paths, job.name, None
        self.granted = Granted(job.grant, ask)
        self.program: set[int] = set()  # ids of events that no mask hides
        self._stopped = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lock = threading.Lock()

    @property
    def stopped(self) -> bool:
        """Whether the job was stopped."""
        return self._stopped

    @property
    def events(self) -> list[Event]:
        """Those so far."""
        return self.record.events

    def emit(self, event: Event) -> None:
        """Keep an event."""
        with self.record.lock:
            self.record.apply(event)

    def admit(self) -> None:
        """Raise RunStopped once the job was stopped."""
        if self._stopped:
            raise RunStopped

    def call_began(self, task: asyncio.Task[Any] | None) -> None:
        """A task waits for a model."""
        if task is not None:
            with self._lock:
                self._tasks.add(task)

    def call_ended(self, task: Any) -> None:
        """It waits no longer."""
        with self._lock:
            self._tasks.discard(task)

    def stop(self) -> None:
        """No call starts any more; those in flight are cancelled, also in tasks that the program made."""
        self._stopped = True
        with self._lock:
            waiting = list(self._tasks)
        for task in waiting:
            with contextlib.suppress(RuntimeError):
                task.get_loop().call_soon_threadsafe(task.cancel)


class _Program:
    """Hears what no mask hides."""

    def __init__(self, run: AwayRun) -> None:
        self._run = run

    def emit(self, event: Event) -> None:
        """Take note of it."""
        self._run.program.add(id(event))


class Granted:
    """A grant as funds of a scope. What it lacks is asked for where the budget is."""

    covers = True

    def __init__(self, grant: Grant, ask: Ask) -> None:
        self._ask, self._grant, self._lock = ask, grant, threading.Lock()
        self.left = [grant.calls or 0, grant.metric_calls or 0]
        self.used = [0, 0]
        self.usage, self.estimate = Usage(), 0
        limits = {
            "tokens": None if grant.tokens is None else max(1, int(grant.tokens)),
            "usd": None if grant.usd is None else max(1e-12, grant.usd),
            "seconds": None if grant.seconds is None else max(1e-9, grant.seconds),
        }
        limited = any(limit is not None for limit in limits.values())
        self._meter = Meter(Budget(**limits)) if limited else None  # type: ignore[arg-type]

    def take(self, calls: int = 0, metric_calls: int = 0) -> None:
        """Take calls; those that the grant lacks are asked for. Raises BudgetExhausted."""
        if self._meter is not None:
            self._meter.take()
        wanted = (calls, metric_calls)
        with self._lock:
            own = [n if self._free(kind) else min(n, self.left[kind]) for kind, n in enumerate(wanted)]
            self._move(own, 1)
        lacking = [n - mine for n, mine in zip(wanted, own, strict=True)]
        if any(lacking):
            refused = self._ask({"calls": lacking[0], "metric_calls": lacking[1]})
            if refused is not None:
                self.give_back(*own)
                raise BudgetExhausted(str(refused))

    def _free(self, kind: int) -> bool:
        return (self._grant.calls, self._grant.metric_calls)[kind] is None

    def _move(self, numbers: Sequence[int], sign: int) -> None:
        for kind, number in enumerate(numbers):
            if self._free(kind):
                self.used[kind] += sign * number
            else:
                self.left[kind] -= sign * number

    def give_back(self, calls: int, metric_calls: int = 0) -> None:
        """What was taken and not used."""
        with self._lock:
            self._move((calls, metric_calls), -1)

    def add(self, usage: Usage, estimate: int = 0) -> None:
        """Count what a call turned out to cost, and an estimate of its tokens where they are unknown."""
        if usage.tokens is None:
            usage = replace(usage, prompt_tokens=0, completion_tokens=0)
        with self._lock:
            self.usage += usage
            self.estimate += estimate
        if self._meter is not None:
            self._meter.add(usage, estimate)

    def available(self) -> float:
        """Calls that can be taken, as far as is known here."""
        return math.inf if self._free(0) else self.left[0] + self._grant.more

    def metric_calls_left(self) -> float:
        """Metric calls that can be taken, as far as is known here."""
        return math.inf if self._free(1) else self.left[1] + self._grant.more_metric_calls


# ── one job ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def _opened(packed: bytes, shipped: Mapping[str, bytes], worker: Any, header: Header) -> tuple[Job, AwayRun]:
    job: Job = unpack(packed)
    ask = _asker(worker, header.topic, job.id)
    if header.worker not in ("", worker.address) and not ask({"stolen from": header.worker}):
        job = replace(job, grant=job.grant.spent())  # the worker that had it is lost, and with it what it spent

    def there(value: Any) -> Any:
        return _once(value.key, shipped[value.key]) if isinstance(value, Ref) else value

    arguments = {name: there(value) for name, value in job.arguments.items()}
    if arguments.get("opened") is not None:
        arguments["opened"] = new_span()
    settings = {name: there(value) for name, value in job.snapshot.settings.items()}
    context = {name: there(value) for name, value in job.snapshot.context.items()}
    if "interceptors" in context:
        context["interceptors"] = tuple(interceptor.connected(ask) for interceptor in context["interceptors"])
    job = replace(job, arguments=arguments, snapshot=replace(job.snapshot, settings=settings, context=context))
    return job, AwayRun(job, ask)


def _once(key: str, data: bytes) -> Any:
    """The one object of these bytes in this process."""
    with _lock:
        if key in _unpacked:
            _unpacked.move_to_end(key)
            return _unpacked[key]
    value = unpack(data)
    with _lock:
        value = _unpacked.setdefault(key, value)
        while len(_unpacked) > _KEPT:
            _unpacked.popitem(last=False)
    return value


async def _run(job: Job, away: AwayRun) -> tuple[Any, bool]:
    """What the function comes to, and whether it was raised."""
    layer = Layer("a rollout on a worker", port=away, trace=_Program(away), funds=away.granted)
    try:
        with job.snapshot.enter(), layer:
            return await guarded("the program", job.fn, **job.arguments), False
    except Exception as error:
        return error, True


def _reply(address: str, job: Job, away: AwayRun, result: Any, raised: bool) -> Reply:
    events, granted = list(away.events), away.granted
    try:
        packed = pack_reply(events, result)
    except ExecutorError as error:
        packed, raised = pack_reply(events, error), True
    return Reply(
        address,
        packed,
        raised,
        opened=job.arguments.get("opened"),
        masked=frozenset(place for place, event in enumerate(events) if id(event) not in away.program),
        left=(granted.left[0], granted.left[1]),
        used=(granted.used[0], granted.used[1]),
        usage=granted.usage,
        estimate=granted.estimate,
    )


# ── asking the coordinator ────────────────────────────────────────────────────────────────────────────────────────────
def _asker(worker: Any, topic: str, job: str) -> Ask:
    """Asks the coordinator and waits for its answer, which takes some milliseconds. Raises ExecutorError."""

    def ask(question: Mapping[str, Any]) -> Any:
        number, answer = uuid.uuid4().hex, Future[Any]()
        _questions[number] = answer
        message = {"question": number, "job": job, "worker": worker.address, "asked": dict(question)}
        worker.loop.add_callback(worker.log_event, topic, message)
        try:
            return answer.result(_PATIENCE)
        except TimeoutError:
            raise ExecutorError(f"the coordinator gave no answer within {_PATIENCE:g} s") from None
        finally:
            _questions.pop(number, None)

    return ask


def answered(number: str, answer: Any) -> None:
    """Called by the coordinator on the worker that asked."""
    waiting = _questions.get(number)
    if waiting is not None and not waiting.done():
        waiting.set_result(answer)
