"""The connection to a Dask cluster: it checks the cluster, sends jobs to workers and waits for their replies."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import importlib.util
import platform
import threading
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from dspynb.contrib.dask.job import Header, Reply
from dspynb.contrib.dask.worker import hold_bytes, receive_answer, run_job
from dspynb.errors import ConfigurationError, ExecutorError, WorkerLost, shorten
from dspynb.redact import error_text
from dspynb.running.aio.threads import in_thread

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["Cluster", "ClusterCheck", "PackedJob"]

T = TypeVar("T")
Answer = Callable[[Mapping[str, Any]], Any]
"""Returns the answer to a question of a job."""

_DASK_PACKAGES = ("dask", "distributed", "cloudpickle")
_POLL_SECONDS = 1.0
"""Time between two requests for the list of workers."""
_HOW_TO_RESUME = "Finished rollouts are in the run: see dn.last_run(), and resume it with .resume(run id, …)"

# As text, so that it also runs on workers without dspynb.
_ABOUT = """
def about():
    import platform
    try:
        import dspynb
        version = dspynb.__version__
    except ImportError:
        version = None
    return {"python": ".".join(platform.python_version_tuple()[:2]), "dspynb": version}
"""


@dataclass(frozen=True, slots=True)
class PackedJob:
    """A job to send to a worker."""

    job_id: str
    payload: bytes
    """The Job, pickled."""
    shared_values: Mapping[str, bytes]
    """Values that are sent to each worker once and used by many jobs, pickled, by key."""
    sent_values: dict[str, Any]
    """The Dask futures of the shared values that have been sent, by key. Dask holds a value as long as its future."""
    answer: Answer
    """Answers questions of the job. Called in another thread."""


@dataclass(frozen=True, slots=True)
class ClusterCheck:
    """The result of checking a cluster."""

    workers: tuple[str, ...]
    """Their addresses."""
    problems: tuple[str, ...]
    """Why the cluster cannot run jobs of this process; one sentence per problem."""
    other_releases: Mapping[str, str]
    """Packages of Dask whose release differs from that of this process, which Dask tolerates; by who has them."""


class Quarantine:
    """A lock that lets many jobs run together, or a suspect alone. A suspect is a job that may end its workers."""

    def __init__(self) -> None:
        self._running_together = 0
        self._suspects = 0
        self._alone = asyncio.Lock()
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """Run with other jobs. Waits until no suspect runs or waits."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._suspects)
            self._running_together += 1
        try:
            yield
        finally:
            self._running_together -= 1
            await self._notify()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Run as a suspect. Waits until all other jobs have ended; no further job starts before this one."""
        self._suspects += 1
        try:
            async with self._alone:
                async with self._changed:
                    await self._changed.wait_for(lambda: not self._running_together)
                yield
        finally:
            self._suspects -= 1
            await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class Cluster:
    """The connection to a Dask cluster. ``await ready()`` connects; ``await run(job)`` runs a job on a worker."""

    def __init__(self, target: object, timeout: float) -> None:
        if importlib.util.find_spec("distributed") is None:  # checked at once, before a job is packed
            raise ConfigurationError('DaskExecutor needs Dask: pip install "dspynb[scale]"')
        if not isinstance(target, str) and not hasattr(target, "scheduler_address") and not hasattr(target, "submit"):
            raise ConfigurationError(
                "DaskExecutor takes the address of a scheduler, as in 'tcp://127.0.0.1:8786', or a dask.distributed "
                f"Client or cluster; got {type(target).__name__}"
            )
        self._target = target  # the address of a scheduler, a Client or a cluster
        self._timeout = timeout
        self._client: Any = None
        self._owns_client = False
        self._lock = threading.Lock()
        self._connection_attempts = 0
        self._connection_error: ExecutorError | None = None
        self._topic = f"dspynb-{uuid.uuid4().hex}"
        self._jobs_on: Counter[str] = Counter()  # by the address of the worker
        self._workers: list[str] = []
        self._workers_listed_at = -_POLL_SECONDS
        self._last_worker_at = 0.0  # the last time at which there was a worker
        self._answers: dict[str, Answer] = {}
        self._answer_tasks: set[asyncio.Task[None]] = set()
        self._quarantine = Quarantine()

    @property
    def address(self) -> str:
        """The address of the scheduler; ``?`` if it is unknown."""
        if isinstance(self._target, str):
            return self._target
        scheduler = getattr(self._target, "scheduler", None)
        return str(getattr(self._target, "scheduler_address", None) or getattr(scheduler, "address", "?"))

    def close(self) -> None:
        """Disconnect. A Client that the user passed stays open."""
        with self._lock:
            client = self._client
            self._client = None
        if client is not None:
            client.unsubscribe_topic(self._topic)
            if self._owns_client:
                client.close()

    # ── connection ────────────────────────────────────────────────────────────────────────────────────────────────
    async def ready(self) -> None:
        """Connect and check the cluster, if this has not been done. Raises ExecutorError if it cannot be used."""
        if self._client is None:
            await in_thread(self._connect, "dspynb-connect")

    def _connect(self) -> None:
        attempts = self._connection_attempts
        with self._lock:
            if self._client is not None:
                return
            if attempts != self._connection_attempts and self._connection_error is not None:
                raise self._connection_error  # another thread tried while this one waited for the lock
            try:
                client = self._open_client()
                self._check(client)
                client.subscribe_topic(self._topic, self._on_question)
            except ExecutorError as error:
                self._connection_error = error
                raise
            finally:
                self._connection_attempts += 1
            self._client = client
            self._connection_error = None
            self._quarantine = Quarantine()

    def _open_client(self) -> Any:
        from distributed import Client

        if isinstance(self._target, Client):
            if self._target.status not in ("running", "connecting"):
                raise ExecutorError(f"the Dask client is {self._target.status}: give one that is connected")
            return self._target
        self._owns_client = True
        try:
            return Client(self._target, timeout=self._timeout, set_as_default=False)
        except (OSError, ValueError) as error:  # a TimeoutError is an OSError; a malformed address is a ValueError
            raise ExecutorError(
                f"no Dask scheduler answers at {self.address} within {self._timeout:g} s ({error_text(error, 300)}). "
                "Start one with `dask scheduler`, or LocalCluster(), and give its address"
            ) from None

    def _check(self, client: Client) -> None:
        """Raise ExecutorError if the cluster does not answer, has no workers, or has some that cannot run jobs."""
        for problem in self._problems(client):
            raise ExecutorError(problem)

    def check(self) -> ClusterCheck:
        """Check the cluster, and disconnect. Raises ExecutorError if it does not answer or has no workers."""
        client = self._open_client()
        try:
            problems = self._problems(client)
            try:
                other_releases = _other_releases(client.get_versions())
            except (OSError, RuntimeError) as error:
                raise self._no_answer(error) from None
            return ClusterCheck(tuple(self._workers), tuple(problems), other_releases)
        finally:
            if self._owns_client:
                client.close()

    def _problems(self, client: Client) -> list[str]:
        """Why the scheduler or a worker cannot run jobs of this process."""
        try:
            return _run_on_client_loop(client, self._version_problems(client)).result()
        except (OSError, RuntimeError) as error:  # a closed event loop raises RuntimeError
            raise self._no_answer(error) from None

    def _no_answer(self, error: Exception) -> ExecutorError:
        return ExecutorError(f"the Dask cluster at {self.address} does not answer: {error_text(error, 300)}")

    async def _version_problems(self, client: Client) -> list[str]:
        await self._wait_for_worker(client)
        namespace: dict[str, Any] = {"__name__": "__main__"}
        exec(_ABOUT, namespace)  # noqa: S102  # the text above: a function outside of any module is sent by value
        about = namespace["about"]
        versions = {"the scheduler": await client.run_on_scheduler(about)}  # it unpickles the tasks too
        for address, worker_versions in (await client.run(about)).items():
            versions[f"the worker {address}"] = worker_versions
        problems: list[str] = []
        for machine in sorted(versions):
            problems += _differences(machine, versions[machine])
        return problems

    async def _wait_for_worker(self, client: Client) -> None:
        """Wait until there is a worker. Submits a task in the meantime, for which an adaptive cluster starts one."""
        deadline = time.monotonic() + self._timeout
        placeholder = None
        while not await self._list_workers(client):
            if placeholder is None:
                placeholder = client.submit(hold_bytes, b"", pure=False)
            if time.monotonic() > deadline:
                raise ExecutorError(
                    f"the Dask cluster at {self.address} has no workers, and none came within {self._timeout:g} s"
                )
            await asyncio.sleep(0.1)

    # ── jobs ──────────────────────────────────────────────────────────────────────────────────────────────────────
    async def run(self, job: PackedJob) -> Reply:
        """Run a job on a worker and return its reply.

        Raises WorkerLost if several workers ended while they ran it, and ExecutorError if it could not be run.
        """
        client = self._client
        return await asyncio.wrap_future(_run_on_client_loop(client, self._run(client, job)))

    async def _run(self, client: Client, job: PackedJob) -> Reply:
        """Runs on the client's event loop.

        If workers ended while they ran the job, another job may be the cause. So the job is tried once more, alone.
        """
        try:
            async with self._quarantine.together():
                return await self._submit_and_wait(client, job)
        except WorkerLost:
            async with self._quarantine.alone():
                return await self._submit_and_wait(client, job)

    async def _submit_and_wait(self, client: Client, job: PackedJob) -> Reply:
        await self._list_workers(client)
        worker = self._least_loaded()
        future = self._submit(client, job, worker)
        self._answers[job.job_id] = job.answer
        self._jobs_on[worker] += 1
        try:
            reply = await self._wait_for_reply(client, future)
        finally:
            self._jobs_on[worker] -= 1
            del self._answers[job.job_id]
            future.release()  # the worker cancels a job whose future has been released
        if reply.refused is not None:
            raise ExecutorError(f"the worker {reply.worker} cannot run the rollout: {reply.refused}")
        return reply

    def _submit(self, client: Client, job: PackedJob, worker: str) -> Any:
        """Submit the job as a Dask task, and return its future. Dask runs it on another worker if this one is lost."""
        import dspynb

        sent = job.sent_values
        for key, data in job.shared_values.items():
            if key not in sent:
                sent[key] = client.submit(hold_bytes, data, key=f"dspynb-once-{key}-{self._topic}")
        task_key = f"dspynb-rollout-{job.job_id}"
        header = Header(dspynb.__version__, self._topic, task_key, worker, tuple(job.shared_values))
        return client.submit(
            run_job,
            header,
            job.payload,
            *(sent[key] for key in job.shared_values),
            key=task_key,
            pure=False,
            workers=[worker] if worker else None,
            allow_other_workers=bool(worker),
        )

    async def _wait_for_reply(self, client: Client, future: Future) -> Reply:
        """The reply of a job. Raises ExecutorError if the cluster is lost or has no workers any more."""
        reply = asyncio.ensure_future(_result(future))
        try:
            while True:
                done, _ = await asyncio.wait([reply], timeout=_POLL_SECONDS)
                if done:
                    return reply.result()
                await self._check_for_workers(client, reply)
        finally:
            reply.cancel()

    async def _check_for_workers(self, client: Client, reply: asyncio.Future[Any]) -> None:
        """Raise ExecutorError if there has been no worker for ``timeout`` seconds. Returns once ``reply`` is done."""
        workers: asyncio.Future[Any] = asyncio.ensure_future(self._list_workers(client))
        await asyncio.wait([reply, workers], return_when=asyncio.FIRST_COMPLETED)
        if reply.done():
            workers.cancel()
        elif not workers.result() and time.monotonic() - self._last_worker_at > self._timeout:
            raise ExecutorError(
                f"the Dask cluster at {self.address} has had no worker for {self._timeout:g} s. {_HOW_TO_RESUME}"
            )

    async def _list_workers(self, client: Client) -> list[str]:
        """The addresses of the workers, at most a second old. Notes when there was a worker last."""
        if time.monotonic() - self._workers_listed_at >= _POLL_SECONDS:
            self._workers_listed_at = time.monotonic()
            try:
                identity = await client.scheduler.identity()
            except (OSError, AttributeError):
                raise ExecutorError(f"the Dask cluster at {self.address} has gone. {_HOW_TO_RESUME}") from None
            self._workers = sorted(identity["workers"])
            if self._workers:
                self._last_worker_at = time.monotonic()
        return self._workers

    def _least_loaded(self) -> str:
        """The address of the worker with the fewest jobs; empty if there is no worker.

        Dask itself would send all jobs to the workers that have the program already.
        """
        return min(self._workers, key=lambda address: self._jobs_on[address], default="")

    # ── questions of jobs ─────────────────────────────────────────────────────────────────────────────────────────
    def _on_question(self, event: tuple[float, Mapping[str, Any]]) -> None:
        _, message = event
        task = asyncio.get_running_loop().create_task(self._answer(message))
        self._answer_tasks.add(task)
        task.add_done_callback(self._answer_tasks.discard)

    async def _answer(self, message: Mapping[str, Any]) -> None:
        answer = self._answers.get(message["job"])
        client = self._client
        if answer is None or client is None:
            return
        question = message["question"]
        if "has_worker" in question:
            identity = await client.scheduler.identity()
            reply = question["has_worker"] in identity["workers"]
        else:
            reply = answer(question)
        await client.run(receive_answer, message["id"], reply, workers=[message["worker"]])


def _differences(machine: str, versions: Mapping[str, Any]) -> list[str]:
    """Why a scheduler or worker with these versions cannot run jobs of this process."""
    import dspynb

    if versions["dspynb"] is None:
        return [f"{machine} does not have dspynb: pip install dspynb=={dspynb.__version__} there"]
    own_versions = {"dspynb": dspynb.__version__, "python": ".".join(platform.python_version_tuple()[:2])}
    differences = []
    for name, own_version in own_versions.items():
        if versions[name] != own_version:
            differences.append(
                f"{machine} has {name} {versions[name]}, and here it is {own_version}: user code and rows can only be "
                "sent between the same versions"
            )
    return differences


def _other_releases(versions: Mapping[str, Any]) -> dict[str, str]:
    """From ``Client.get_versions``: the packages of Dask that have another release than here, by who has them."""
    own_packages = versions["client"]["packages"]
    machines = {"the scheduler": versions["scheduler"]}
    for address, worker_versions in versions["workers"].items():
        machines[f"the worker {address}"] = worker_versions
    other_releases = {}
    for machine, machine_versions in machines.items():
        packages = machine_versions["packages"]
        differing = [name for name in _DASK_PACKAGES if packages.get(name) != own_packages.get(name)]
        if differing:
            other_releases[machine] = ", ".join(f"{name} {packages.get(name)}" for name in differing)
    return other_releases


async def _result(future: Future) -> Reply:
    from distributed import CancelledError
    from distributed.scheduler import KilledWorker

    try:
        reply: Reply = await future
    except KilledWorker as error:
        raise WorkerLost(
            f"{error.allowed_failures + 1} workers ended while they ran this rollout, the last at "
            f"{error.last_worker.address}: it may need more memory than they have, or end its process"
        ) from None
    except (CancelledError, OSError) as error:
        raise ExecutorError(f"the Dask cluster has gone ({shorten(error, 200)}). {_HOW_TO_RESUME}") from None
    return reply


def _run_on_client_loop(client: Client, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
    return asyncio.run_coroutine_threadsafe(coroutine, client.loop.asyncio_loop)
