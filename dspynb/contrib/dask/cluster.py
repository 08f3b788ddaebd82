"""The connection to a Dask cluster: checked once, jobs sent to the worker that has the fewest, lost ones told."""

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
from typing import Any, TypeVar

from dspynb.contrib.dask.job import Header, Reply
from dspynb.contrib.dask.worker import answered, run_job, same
from dspynb.errors import ConfigurationError, ExecutorError, WorkerLost, shorten
from dspynb.redact import error_text
from dspynb.running.aio.threads import in_thread

__all__ = ["Cluster", "Parcel", "Survey"]

T = TypeVar("T")
Answer = Callable[[Mapping[str, Any]], Any]

_DASK = ("dask", "distributed", "cloudpickle")
_LOOK = 1.0
"""Seconds between two looks at which workers there are."""
_KEPT = "What had finished is kept: see dn.last_run(), and go on with .resume(run id, …)"

# Sent as text, so that it runs on workers without dspynb too.
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
class Parcel:
    """One job on its way. ``shipped``: what travels once, by key; ``held``: of that, what its sender has sent, which is
    kept as long as the sender is. ``answer``: answers what the job asks, in another thread."""

    job: str
    packed: bytes
    shipped: Mapping[str, bytes]
    held: dict[str, Any]
    answer: Answer


@dataclass(frozen=True, slots=True)
class Survey:
    """What a cluster is. ``refused``: why it takes no work from here, a line each; ``differing``: packages of another
    release than here, which Dask puts up with, by who has them."""

    workers: tuple[str, ...]
    refused: tuple[str, ...]
    differing: Mapping[str, str]


class Quarantine:
    """Lets many be under way at a time, or one alone."""

    def __init__(self) -> None:
        self._inside, self._suspects = 0, 0
        self._alone = asyncio.Lock()
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def among_others(self) -> AsyncIterator[None]:
        """With others, once no suspect is waited for."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._suspects)
            self._inside += 1
        try:
            yield
        finally:
            await self._left(inside=1)

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Alone, once those inside have left; no other enters before."""
        self._suspects += 1
        try:
            async with self._alone:
                async with self._changed:
                    await self._changed.wait_for(lambda: not self._inside)
                yield
        finally:
            await self._left(suspects=1)

    async def _left(self, inside: int = 0, suspects: int = 0) -> None:
        self._inside, self._suspects = self._inside - inside, self._suspects - suspects
        async with self._changed:
            self._changed.notify_all()


class Cluster:
    """``await ready()`` connects and checks; ``await run(…)`` has a job done by a worker."""

    def __init__(self, given: Any, timeout: float) -> None:
        if importlib.util.find_spec("distributed") is None:  # now, before anything is packed for it
            raise ConfigurationError('DaskExecutor needs Dask: pip install "dspynb[scale]"')
        self._given, self._timeout = given, timeout
        self._client: Any = None
        self._own = False
        self._lock = threading.Lock()
        self._tries = 0
        self._failed: ExecutorError | None = None
        self._topic = f"dspynb-{uuid.uuid4().hex}"
        self._load: Counter[str] = Counter()
        self._workers: list[str] = []
        self._looked = -_LOOK
        self._seen = 0.0  # when there last was a worker
        self._answers: dict[str, Answer] = {}
        self._asked: set[asyncio.Task[None]] = set()
        self._quarantine = Quarantine()
        if not isinstance(given, str) and not hasattr(given, "scheduler_address") and not hasattr(given, "submit"):
            raise ConfigurationError(
                "DaskExecutor takes the address of a scheduler, as in 'tcp://127.0.0.1:8786', or a dask.distributed "
                f"Client or cluster; got {type(given).__name__}"
            )

    @property
    def address(self) -> str:
        """The scheduler's."""
        if isinstance(self._given, str):
            return self._given
        scheduler = getattr(self._given, "scheduler", None)
        return str(getattr(self._given, "scheduler_address", None) or getattr(scheduler, "address", "?"))

    def close(self) -> None:
        """Close the connection that was made here."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.unsubscribe_topic(self._topic)
            if self._own:
                client.close()

    # ── connecting ────────────────────────────────────────────────────────────────────────────────────────────────
    async def ready(self) -> None:
        """Connect and check, where that was not done. Raises ExecutorError."""
        if self._client is None:
            await in_thread(self._connect, "dspynb-connect")

    def _connect(self) -> None:
        tries = self._tries
        with self._lock:
            if self._client is not None:
                return
            if tries != self._tries and self._failed is not None:  # of who connected while this one waited
                raise self._failed
            try:
                client = self._opened()
                self._checked(client)
                client.subscribe_topic(self._topic, self._asked_by)
            except ExecutorError as error:
                self._failed = error
                raise
            finally:
                self._tries += 1
            self._client, self._failed, self._quarantine = client, None, Quarantine()

    def _opened(self) -> Any:
        from distributed import Client

        if isinstance(self._given, Client):
            if self._given.status not in ("running", "connecting"):
                raise ExecutorError(f"the Dask client is {self._given.status}: give one that is connected")
            return self._given
        self._own = True
        try:
            return Client(self._given, timeout=self._timeout, set_as_default=False)
        except (OSError, ValueError) as error:  # TimeoutError is one; ValueError of an address that is none
            said = error_text(error, 300)
            raise ExecutorError(
                f"no Dask scheduler answers at {self.address} within {self._timeout:g} s ({said}). Start one with "
                "`dask scheduler`, or LocalCluster(), and give its address"
            ) from None

    def _checked(self, client: Any) -> None:
        try:
            _on(client, self._check(client)).result()
        except (OSError, RuntimeError) as error:  # a loop that is closed is a RuntimeError
            raise ExecutorError(
                f"the Dask cluster at {self.address} does not answer: {error_text(error, 300)}"
            ) from None

    def survey(self) -> Survey:
        """Look at the cluster, and leave it. Raises ExecutorError where it does not answer or has no workers."""
        client = self._opened()
        try:
            refused = _on(client, self._differences(client)).result()
            return Survey(tuple(self._workers), tuple(refused), _differing(client.get_versions()))
        except (OSError, RuntimeError) as error:
            raise ExecutorError(
                f"the Dask cluster at {self.address} does not answer: {error_text(error, 300)}"
            ) from None
        finally:
            if self._own:
                client.close()

    async def _check(self, client: Any) -> None:
        """Raise ExecutorError where there are no workers, or some that cannot run what is sent to them."""
        for difference in await self._differences(client):
            raise ExecutorError(difference)

    async def _differences(self, client: Any) -> list[str]:
        """What of the scheduler and the workers cannot run what is sent to them, and why."""
        await self._some_worker(client)
        made: dict[str, Any] = {"__name__": "__main__"}
        exec(_ABOUT, made)  # noqa: S102  # the text above: a function of no module travels by value
        there = {"the scheduler": await client.run_on_scheduler(made["about"])}  # it reads the tasks too
        there |= {f"the worker {address}": about for address, about in (await client.run(made["about"])).items()}
        import dspynb

        python = ".".join(platform.python_version_tuple()[:2])
        differences = []
        for who, about in sorted(there.items()):
            if about["dspynb"] is None:
                differences.append(f"{who} does not have dspynb: pip install dspynb=={dspynb.__version__} there")
                continue
            differences += [
                f"{who} has {name} {about[name]}, and here it is {here}: user code and rows travel between the same "
                "versions only"
                for name, here in (("dspynb", dspynb.__version__), ("python", python))
                if about[name] != here
            ]
        return differences

    async def _some_worker(self, client: Any) -> None:
        """Wait for a worker. A task waits with us, which makes an adaptive cluster start one."""
        until, wish = time.monotonic() + self._timeout, None
        while not await self._look(client):
            wish = wish or client.submit(same, b"", pure=False)
            if time.monotonic() > until:
                raise ExecutorError(
                    f"the Dask cluster at {self.address} has no workers, and none came within {self._timeout:g} s"
                )
            await asyncio.sleep(0.1)

    # ── jobs ──────────────────────────────────────────────────────────────────────────────────────────────────────
    async def run(self, parcel: Parcel) -> Reply:
        """What came of a job.

        Raises WorkerLost where it took several workers down with it, ExecutorError where it could not be run.
        """
        client = self._client
        return await asyncio.wrap_future(_on(client, self._run(client, parcel)))

    async def _run(self, client: Any, parcel: Parcel) -> Reply:
        """On the client's loop. A job that was in several workers when they ended is tried once more alone: another one
        may have ended them."""
        try:
            async with self._quarantine.among_others():
                return await self._sent_and_read(client, parcel)
        except WorkerLost:
            async with self._quarantine.alone():
                return await self._sent_and_read(client, parcel)

    async def _sent_and_read(self, client: Any, parcel: Parcel) -> Reply:
        await self._look(client)
        worker = self._least_loaded()
        future = self._sent(client, parcel, worker)
        self._answers[parcel.job] = parcel.answer
        self._load[worker] += 1
        try:
            reply = await self._awaited(client, future)
        finally:
            self._load[worker] -= 1
            del self._answers[parcel.job]
            future.release()  # a job that is no longer awaited is no longer wanted: its worker cancels it
        if reply.refused is not None:
            raise ExecutorError(f"the worker {reply.worker} cannot run the rollout: {reply.refused}")
        return reply

    def _sent(self, client: Any, parcel: Parcel, worker: str) -> Any:
        """The job as a task of Dask, which runs it again elsewhere where its worker is lost."""
        import dspynb

        held = parcel.held
        for key, data in parcel.shipped.items():
            if key not in held:
                held[key] = client.submit(same, data, key=f"dspynb-once-{key}-{self._topic}")
        key = f"dspynb-rollout-{parcel.job}"
        header = Header(dspynb.__version__, self._topic, key, worker, tuple(parcel.shipped))
        return client.submit(
            run_job,
            header,
            parcel.packed,
            *(held[key] for key in parcel.shipped),
            key=key,
            pure=False,
            workers=[worker] if worker else None,
            allow_other_workers=bool(worker),
        )

    async def _awaited(self, client: Any, future: Any) -> Reply:
        """The result. Raises ExecutorError where the cluster has gone or has no workers left."""
        waiting = asyncio.ensure_future(_result(future))
        try:
            while not (await asyncio.wait([waiting], timeout=_LOOK))[0]:
                await self._still_there(client, waiting)
            return waiting.result()
        finally:
            waiting.cancel()

    async def _still_there(self, client: Any, waiting: asyncio.Future[Any]) -> None:
        """Look whether there are workers, while a job is waited for. Raises ExecutorError."""
        looking: asyncio.Future[Any] = asyncio.ensure_future(self._look(client))
        await asyncio.wait([waiting, looking], return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            looking.cancel()
        elif not looking.result() and time.monotonic() - self._seen > self._timeout:
            raise ExecutorError(
                f"the Dask cluster at {self.address} has had no worker for {self._timeout:g} s. {_KEPT}"
            )

    async def _look(self, client: Any) -> list[str]:
        """The workers there are, as of a second ago."""
        if time.monotonic() - self._looked >= _LOOK:
            self._looked = time.monotonic()
            try:
                told = await client.scheduler.identity()
            except (OSError, AttributeError):
                raise ExecutorError(f"the Dask cluster at {self.address} has gone. {_KEPT}") from None
            self._workers = sorted(told["workers"])
            if self._workers:
                self._seen = time.monotonic()
        return self._workers

    def _least_loaded(self) -> str:
        """Chosen here: Dask would send all jobs to where the program is already."""
        return min(self._workers, key=lambda address: self._load[address], default="")

    # ── questions of jobs ─────────────────────────────────────────────────────────────────────────────────────────
    def _asked_by(self, event: tuple[float, Mapping[str, Any]]) -> None:
        _, message = event
        task = asyncio.get_running_loop().create_task(self._answer(message))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _answer(self, message: Mapping[str, Any]) -> None:
        answer, client = self._answers.get(message["job"]), self._client
        if answer is not None and client is not None:
            asked = message["asked"]
            if "stolen from" in asked:  # by Dask, before it began; else the worker is lost
                reply = asked["stolen from"] in (await client.scheduler.identity())["workers"]
            else:
                reply = answer(asked)
            await client.run(answered, message["question"], reply, workers=[message["worker"]])


def _differing(versions: Mapping[str, Any]) -> dict[str, str]:
    """Of what ``Client.get_versions`` tells: who has other releases of what Dask itself is made of."""
    here = versions["client"]["packages"]
    others = {"the scheduler": versions["scheduler"], **{f"the worker {a}": v for a, v in versions["workers"].items()}}
    found = {}
    for who, told_of in others.items():
        there = told_of["packages"]
        differing = [f"{name} {there.get(name)}" for name in _DASK if there.get(name) != here.get(name)]
        if differing:
            found[who] = ", ".join(differing)
    return found


async def _result(future: Any) -> Reply:
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
        raise ExecutorError(f"the Dask cluster has gone ({shorten(error, 200)}). {_KEPT}") from None
    return reply


def _on(client: Any, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
    """The work on the client's own event loop."""
    return asyncio.run_coroutine_threadsafe(work, client.loop.asyncio_loop)
