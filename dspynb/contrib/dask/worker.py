"""What runs on a Dask worker: jobs, each of which runs one rollout and returns one reply.

All jobs of a process run on one event loop. Each is a Dask task that waits on the worker's own loop and occupies no
slot of the worker, so that a worker runs as many jobs as the coordinator sends. When Dask no longer needs the task,
since the run was stopped or the coordinator is lost, the job is cancelled.
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
from typing import TYPE_CHECKING, Any

from dspynb.contrib.dask.job import Grant, Header, Job, Ref, Reply
from dspynb.contrib.dask.serialization import pack_reply, unpack
from dspynb.data import Usage
from dspynb.errors import BudgetExhausted, ExecutorError, RunStopped
from dspynb.events import Event, new_span
from dspynb.redact import error_text
from dspynb.running.aio.sync import LoopThread
from dspynb.running.reader import RunReader
from dspynb.running.user_code import guarded
from dspynb.scope.amounts import NOTHING, Amounts
from dspynb.scope.budget import Budget, Meter
from dspynb.scope.clock import Clock
from dspynb.scope.core import Layer
from dspynb.scope.ledger import Ledger
from dspynb.scope.reservation import OpenStep, Reservation

if TYPE_CHECKING:
    from distributed import Worker

__all__ = ["GrantFunds", "WorkerRun", "hold_bytes", "receive_answer", "run_job"]

Ask = Callable[[Mapping[str, Any]], Any]
"""Sends a question to the coordinator and returns the answer."""

_POLL_SECONDS = 0.1
"""Time between two checks whether Dask still needs the jobs."""
_ANSWER_TIMEOUT = 30.0
"""Seconds for which a job waits for the coordinator's answer."""
_SHARED_VALUE_LIMIT = 64
"""How many shared values (programs, metrics, models) a process has in memory."""

_JOB_LOOP = LoopThread("dspynb-jobs")  # not the loop of ``run_sync``, which a metric may use
_shared_values: OrderedDict[str, Any] = OrderedDict()  # by key; the one used last is at the end
_shared_values_lock = threading.Lock()
_open_questions: dict[str, Future[Any]] = {}  # by the id of the question
_running: dict[str, tuple[_RunningJob, asyncio.Future[Reply]]] = {}  # by the key of the Dask task
_watcher: asyncio.Task[None] | None = None


def hold_bytes(data: bytes) -> bytes:
    """The Dask task that holds a shared value. Dask runs it again if the worker that had the result is lost."""
    return data


async def run_job(header: Header, payload: bytes, *shared_values: bytes) -> Reply:
    """The Dask task of a job: run the job on the event loop for jobs, and return its reply.

    Raises RunStopped if Dask no longer needs the job.
    """
    from distributed import get_worker
    from distributed.worker_state_machine import SecedeEvent

    import dspynb

    worker = get_worker()
    if header.version != dspynb.__version__:
        reason = f"it has dspynb {dspynb.__version__} and the coordinator {header.version}: install one version on both"
        return Reply(worker.address, refused=reason)
    # ``secede()`` does the same for a task in a thread: the job occupies none of the worker's few slots. The duration
    # is None, since Dask's work stealing fails on a waiting task if tasks of its kind take no time, and loses the
    # worker.
    secede_event: Any = SecedeEvent
    worker.handle_stimulus(secede_event(key=header.key, compute_duration=None, stimulus_id=f"secede-{time.time()}"))
    running_job = _RunningJob()
    future = asyncio.wrap_future(_JOB_LOOP.submit(_execute, running_job, header, payload, shared_values, worker))
    _running[header.key] = (running_job, future)
    _start_watcher(worker)
    try:
        await asyncio.wait([future])
        if future.cancelled():
            raise RunStopped
        return future.result()
    finally:
        del _running[header.key]
        running_job.stop(future)


class _RunningJob:
    """A job that has started. ``run`` is None until the job is unpickled."""

    def __init__(self) -> None:
        self.run: WorkerRun | None = None

    def stop(self, future: asyncio.Future[Reply]) -> None:
        """Stop the job, unless it has ended."""
        if not future.done() and self.run is not None:
            self.run.stop()
        future.cancel()


def _start_watcher(worker: Worker) -> None:
    """Start the task that stops jobs which Dask no longer needs, unless it is running."""
    global _watcher  # noqa: PLW0603

    async def watch() -> None:
        while _running:
            await asyncio.sleep(_POLL_SECONDS)
            for key, (running_job, future) in list(_running.items()):
                if not _is_needed(worker, key):
                    running_job.stop(future)

    if _watcher is None or _watcher.done():
        _watcher = asyncio.get_running_loop().create_task(watch())


async def _execute(
    running_job: _RunningJob, header: Header, payload: bytes, shared_values: Sequence[bytes], worker: Worker
) -> Reply:
    """Unpickle a job, run it and make its reply. Runs on the event loop for jobs."""
    try:
        job, run = _unpack_job(payload, dict(zip(header.once, shared_values, strict=True)), worker, header)
    except Exception as error:
        return Reply(worker.address, refused=f"it cannot read what was sent to it: {error_text(error)}. {_ADVICE}")
    running_job.run = run
    result, raised = await _run(job, run)
    return _reply(worker.address, job, run, result, raised)


_ADVICE = (
    "A module of yours must be importable there: install it on the workers, send it with client.upload_file(path), or "
    "define the function in the notebook"
)


def _is_needed(worker: Worker, key: object) -> bool:
    """Whether Dask still needs the result of a task."""
    task = worker.state.tasks.get(key)
    return task is not None and task.state not in ("cancelled", "released", "forgotten")


class WorkerRun(RunReader):
    """The run as a job on a worker sees it. It records the events of the job, and admits calls until it is stopped."""

    def __init__(self, job: Job, ask: Ask) -> None:
        super().__init__(job.snapshot.run)
        self.paths = job.paths
        self.name = job.name
        self.program_type = None
        self.funds = GrantFunds(job.grant, ask)
        self.unmasked_events: set[int] = set()  # ids of the events of the program itself
        self._stopped = False
        self._waiting_tasks: set[asyncio.Task[Any]] = set()
        self._lock = threading.Lock()

    @property
    def stopped(self) -> bool:
        """Whether the job was stopped."""
        return self._stopped

    @property
    def events(self) -> list[Event]:
        """The events so far."""
        return self.record.events

    def emit(self, event: Event) -> None:
        """Record an event."""
        with self.record.lock:
            self.record.apply(event)

    def admit(self) -> None:
        """Raise RunStopped if the job was stopped."""
        if self._stopped:
            raise RunStopped

    def call_began(self, task: asyncio.Task[Any] | None) -> None:
        """Note that a task waits for a model."""
        if task is not None:
            with self._lock:
                self._waiting_tasks.add(task)

    def call_ended(self, task: asyncio.Task[Any] | None) -> None:
        """Note that a task no longer waits for a model."""
        with self._lock:
            self._waiting_tasks.discard(task)

    def stream_began(self, call: object) -> None:
        """A worker sends no part of a reply: views show the reply when the call has ended."""

    def stop(self) -> None:
        """Admit no further call, and cancel those that are waiting, also in tasks that the program created."""
        self._stopped = True
        with self._lock:
            tasks = list(self._waiting_tasks)
        for task in tasks:
            with contextlib.suppress(RuntimeError):
                task.get_loop().call_soon_threadsafe(task.cancel)


class _UnmaskedEvents:
    """A trace that notes which events are the program's own. Events under a mask do not reach it."""

    def __init__(self, run: WorkerRun) -> None:
        self._run = run

    def emit(self, event: Event) -> None:
        """Note an event."""
        self._run.unmasked_events.add(id(event))


class GrantFunds:
    """The Grant of a job as the funds of its scope. When it is used up, the coordinator is asked for each call.

    ``remaining`` and ``used`` have two numbers: calls and metric calls. ``remaining`` is what is unused of a limited
    grant; ``used`` counts where the grant sets no limit. Tokens and USD are reserved from what the grant has of them.
    """

    covers = True
    is_free = False
    step: OpenStep | None = None

    def __init__(self, grant: Grant, ask: Ask) -> None:
        self._ask = ask
        self._grant = grant
        self._lock = threading.Lock()
        self.remaining = [grant.calls or 0, grant.metric_calls or 0]
        self.used = [0, 0]
        self.usage = Usage()
        self.estimate = 0
        self._meter = _meter_of(grant)
        self.ledger: Ledger | None = None if self._meter is None else self._meter.ledger
        self.clock: Clock | None = None if self._meter is None else self._meter.clock

    def take(self, calls: int = 0, metric_calls: int = 0) -> None:
        """Take calls from the grant, or from the budget of the coordinator. Raises BudgetExhausted."""
        if self._meter is not None:
            self._meter.take()
        requested = (calls, metric_calls)
        with self._lock:
            granted = [
                number if self._is_unlimited(kind) else min(number, self.remaining[kind])
                for kind, number in enumerate(requested)
            ]
            self._count(granted, 1)
        missing = [number - part for number, part in zip(requested, granted, strict=True)]
        if any(missing):
            refusal = self._ask({"calls": missing[0], "metric_calls": missing[1]})
            if refusal is not None:
                self.give_back(*granted)
                raise BudgetExhausted(str(refusal))

    def _is_unlimited(self, kind: int) -> bool:
        return (self._grant.calls, self._grant.metric_calls)[kind] is None

    def _count(self, numbers: Sequence[int], sign: int) -> None:
        """Count calls and metric calls that are taken (sign 1) or returned (sign -1)."""
        for kind, number in enumerate(numbers):
            if self._is_unlimited(kind):
                self.used[kind] += sign * number
            else:
                self.remaining[kind] -= sign * number

    def give_back(self, calls: int, metric_calls: int = 0) -> None:
        """Give back calls that were taken and not used."""
        with self._lock:
            self._count((calls, metric_calls), -1)

    def add(self, usage: Usage, estimate: int = 0, reservation: Reservation | None = None) -> None:
        """Count what a call cost. ``estimate``: its tokens, where the usage does not have them. ``reservation``: what
        was reserved for it."""
        if usage.tokens is None:
            usage = replace(usage, prompt_tokens=0, completion_tokens=0)
        with self._lock:
            self.usage += usage
            self.estimate += estimate
        if self._meter is not None:
            self._meter.add(usage, estimate, reservation)

    def settle_unknown(self, reservation: Reservation) -> Amounts:
        """Count what a request may have cost that was stopped, and return it."""
        if self._meter is None:
            return NOTHING
        amounts = self._meter.settle_unknown(reservation)
        with self._lock:
            self.estimate += int(amounts.tokens)
            self.usage += Usage(usd=amounts.usd)
        return amounts

    def available(self) -> float:
        """The number of calls that can be taken, as far as this process knows."""
        if self._is_unlimited(0):
            return math.inf
        return self.remaining[0] + self._grant.remaining_calls

    def metric_calls_left(self) -> float:
        """The number of metric calls that can be taken, as far as this process knows."""
        if self._is_unlimited(1):
            return math.inf
        return self.remaining[1] + self._grant.remaining_metric_calls


def _meter_of(grant: Grant) -> Meter | None:
    """A meter for the tokens, USD and seconds of a grant; None if it limits none of them."""
    limits: dict[str, float] = {}
    if grant.tokens is not None:
        limits["tokens"] = max(1, int(grant.tokens))
    if grant.usd is not None:
        limits["usd"] = max(1e-12, grant.usd)
    if grant.seconds is not None:
        limits["seconds"] = max(1e-9, grant.seconds)
    return Meter(Budget(**limits)) if limits else None  # type: ignore[arg-type]


# ── one job ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def _unpack_job(
    payload: bytes, shared_values: Mapping[str, bytes], worker: Worker, header: Header
) -> tuple[Job, WorkerRun]:
    """Unpickle a job and put the shared values in the place of their references."""
    job: Job = unpack(payload)
    ask = _asker(worker, header.topic, job.id)
    was_moved = header.worker not in ("", worker.address)
    if was_moved and not ask({"has_worker": header.worker}):
        # The first worker is lost, and may have used the grant. If it still exists, Dask moved the job before it began.
        job = replace(job, grant=job.grant.without_calls())

    def resolve(value: object) -> Any:
        if isinstance(value, Ref):
            return _shared_value(value.key, shared_values[value.key])
        return value

    arguments = {name: resolve(value) for name, value in job.arguments.items()}
    if arguments.get("opened") is not None:
        arguments["opened"] = new_span()
    settings = {name: resolve(value) for name, value in job.snapshot.settings.items()}
    context = {name: resolve(value) for name, value in job.snapshot.context.items()}
    if "interceptors" in context:
        context["interceptors"] = tuple(interceptor.connected(ask) for interceptor in context["interceptors"])
    job = replace(job, arguments=arguments, snapshot=replace(job.snapshot, settings=settings, context=context))
    return job, WorkerRun(job, ask)


def _shared_value(key: str, data: bytes) -> Any:
    """The shared value of a key. All jobs of this process get the same object."""
    with _shared_values_lock:
        if key in _shared_values:
            _shared_values.move_to_end(key)
            return _shared_values[key]
    value = unpack(data)
    with _shared_values_lock:
        value = _shared_values.setdefault(key, value)
        while len(_shared_values) > _SHARED_VALUE_LIMIT:
            _shared_values.popitem(last=False)
    return value


async def _run(job: Job, run: WorkerRun) -> tuple[Any, bool]:
    """Call the function of a job. Returns its result or error, and whether it is an error that it raised."""
    layer = Layer("a rollout on a worker", port=run, trace=_UnmaskedEvents(run), funds=run.funds)
    try:
        with job.snapshot.enter(), layer:
            return await guarded("the program", job.fn, **job.arguments), False
    except Exception as error:
        return error, True


def _reply(address: str, job: Job, run: WorkerRun, result: object, raised: bool) -> Reply:
    events = list(run.events)
    try:
        payload = pack_reply(events, result)
    except ExecutorError as error:
        payload = pack_reply(events, error)
        raised = True
    masked = frozenset(index for index, event in enumerate(events) if id(event) not in run.unmasked_events)
    funds = run.funds
    return Reply(
        address,
        payload,
        raised,
        opened=job.arguments.get("opened"),
        masked=masked,
        unused=(funds.remaining[0], funds.remaining[1]),
        used=(funds.used[0], funds.used[1]),
        usage=funds.usage,
        estimate=funds.estimate,
    )


# ── questions to the coordinator ──────────────────────────────────────────────────────────────────────────────────────
def _asker(worker: Worker, topic: str, job_id: str) -> Ask:
    """A function that asks the coordinator and waits for the answer, which takes some milliseconds.

    It raises ExecutorError if there is no answer.
    """

    def ask(question: Mapping[str, Any]) -> Any:
        question_id = uuid.uuid4().hex
        answer = Future[Any]()
        _open_questions[question_id] = answer
        message = {"id": question_id, "job": job_id, "worker": worker.address, "question": dict(question)}
        worker.loop.add_callback(worker.log_event, topic, message)
        try:
            return answer.result(_ANSWER_TIMEOUT)
        except TimeoutError:
            raise ExecutorError(f"the coordinator gave no answer within {_ANSWER_TIMEOUT:g} s") from None
        finally:
            _open_questions.pop(question_id, None)

    return ask


def receive_answer(question_id: str, answer: object) -> None:
    """Hand an answer to the job that asked. The coordinator calls this on the worker."""
    future = _open_questions.get(question_id)
    if future is not None and not future.done():
        future.set_result(answer)
