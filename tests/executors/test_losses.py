"""Workers that are killed, rollouts that kill workers, and a cluster that is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

import dspynb as dn
from dspynb.contrib.dask.job import Header
from dspynb.events import RolloutEnded
from tests.executors.conftest import started
from tests.executors.programs import Slow, calls_of, marks, program, right, rows, without_times
from tests.optimizers.worlds import World, events, optimized, outcome

run = asyncio.run


async def asked_for(n, folder):
    """Wait until the models on the workers have received ``n`` requests."""
    while len(marks(folder, "asked")) < n:  # noqa: ASYNC110  # other processes ask
        await asyncio.sleep(0.02)


async def kill_one_that_works(cluster, folder):
    """Kill a worker in the middle of a call to ``Slow``, and return the id of its process."""
    victim = next(iter(cluster.workers.values())).process.process.pid
    (folder / f"hold {victim}").touch()
    while not marks(folder, "held"):  # noqa: ASYNC110  # the other process writes it
        await asyncio.sleep(0.02)
    os.kill(victim, signal.SIGKILL)
    return victim


@pytest.mark.slow
def test_a_worker_killed_during_an_evaluation_loses_no_row_and_counts_none_twice(fragile, tmp_path):
    cluster, executor = fragile
    slow = dn.Predict("question -> answer", lm=Slow(tmp_path, 0.4))

    async def main():
        budget = dn.Budget(metric_calls=24, calls=48)
        handle = dn.Evaluate(right, executor=executor, concurrency=8, budget=budget).start(slow, rows(24))
        await asked_for(8, tmp_path)
        victim = await kill_one_that_works(cluster, tmp_path)
        return await handle, victim

    evaluation, victim = run(main())
    straight = dn.Evaluate(right).run_sync(program(), rows(24))
    assert without_times(evaluation.table).to_dict("records") == without_times(straight.table).to_dict("records")
    assert evaluation.run.status == "finished"
    assert len(events(evaluation.run, RolloutEnded)) == len(evaluation.run.calls) == 24
    asked_marks, answered_marks = (marks(tmp_path, kind) for kind in ("asked", "answered"))
    answered = {mark.removeprefix("answered ") for mark in answered_marks}
    lost = {mark.removeprefix("asked ") for mark in asked_marks} - answered
    assert lost  # it was killed while it worked
    assert all(mark.endswith(f" {victim}") for mark in lost)


@pytest.mark.slow
def test_calls_of_a_lost_worker_count_as_spent_so_that_the_budget_holds(fragile, tmp_path):
    cluster, executor = fragile
    slow = dn.Predict("question -> answer", lm=Slow(tmp_path, 0.4))

    async def main():
        budget = dn.Budget(calls=16)
        handle = dn.Evaluate(right, executor=executor, concurrency=8, budget=budget).start(slow, rows(30))
        await asked_for(4, tmp_path)
        await kill_one_that_works(cluster, tmp_path)
        return await handle

    evaluation = run(main())
    asked_marks, answered_marks = marks(tmp_path, "asked"), marks(tmp_path, "answered")
    assert len(answered_marks) < len(asked_marks) <= 16
    assert evaluation.run.status == "exhausted"
    assert len(evaluation) == len(evaluation.run.calls) == len(answered_marks)


def test_a_job_that_dask_moved_before_it_began_keeps_its_grant(dask, cluster, monkeypatch):
    from dspynb.contrib.dask import cluster as home

    addresses = [nanny.worker_address for nanny in cluster.workers.values()]

    def moved(version, topic, key, worker, once):
        """A header that names another worker than the one that gets the job."""
        return Header(version, topic, key, next(a for a in addresses if a != worker), once)

    monkeypatch.setattr(home, "Header", moved)

    async def main():
        with dn.Budget(calls=12) as meter:
            await dn.evaluate(program(), rows(9), right, executor=dask, concurrency=3)
        return meter.spent["calls"]

    assert run(main()) == 9


class Fatal(World):
    """Kills the first process that a program of it runs in, in the middle of an optimizer's run."""

    def __init__(self, folder):
        super().__init__()
        self._folder, self._home = str(folder), os.getpid()

    def _output(self, request, text):
        dead = os.path.join(self._folder, "dead")  # noqa: PTH118  # travels as text
        if "Answer with" in text and os.getpid() != self._home and not os.path.exists(dead):  # noqa: PTH110
            with open(dead, "w") as file:  # noqa: PTH123
                file.write(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._output(request, text)


@pytest.mark.slow
def test_a_worker_killed_during_gepa_changes_nothing(fragile, tmp_path):
    _, executor = fragile

    async def main():
        return await optimized(dn.GEPA, Fatal(tmp_path), executor=executor, budget=dn.Budget(metric_calls=60))

    remote = run(main())
    local = run(optimized(dn.GEPA, World(), budget=dn.Budget(metric_calls=60)))
    assert (tmp_path / "dead").exists()
    assert outcome(local) == outcome(remote)
    assert calls_of(local) == calls_of(remote)


@pytest.mark.slow
def test_a_rollout_that_ends_every_process_it_runs_in_is_a_row_that_failed(fragile):
    _, executor = fragile

    async def main():
        return await dn.evaluate(program(), rows(8), fatal_for_three, executor=executor, concurrency=8)

    table = run(main()).table
    assert table.error.notna().tolist() == [row == 3 for row in range(8)]  # and not those that shared its processes
    assert "workers ended while they ran this rollout" in table.error.iloc[3]


@pytest.mark.slow
def test_in_a_batch_a_rollout_that_ends_its_processes_is_a_row_that_failed(fragile):
    _, executor = fragile

    async def main():
        return await Fragile().batch(rows(3), concurrency=1, executor=executor)

    first, lost, last = run(main())
    assert (first.answer, last.answer) == ("0", "4")
    assert isinstance(lost, dn.errors.WorkerLost)
    for part in ("workers ended while they ran this rollout", "the last at tcp://127.0.0.1:", "may need more memory"):
        assert part in str(lost)


class Fragile(dn.Module):
    def __init__(self):
        self.ask = program()

    async def forward(self, question):
        if question == "1":
            os._exit(1)
        return await self.ask(question=question)


async def fatal_for_three(row, prediction):
    if row.question == "3":
        os._exit(1)
    await asyncio.sleep(0.5)  # not ended when the process is
    return 1.0


@pytest.mark.slow
def test_a_lost_cluster_ends_the_run_with_a_clear_error_and_the_rows_that_ended(tmp_path):
    async def main():
        with started(2) as cluster:
            executor = dn.DaskExecutor(cluster.scheduler_address)
            plan = dn.Evaluate(right, executor=executor, concurrency=4)
            handle = plan.start(dn.Predict("question -> answer", lm=Slow(tmp_path, 0.3)), rows(40))
            await asked_for(10, tmp_path)
            await asyncio.to_thread(cluster.close)
            began = time.monotonic()
            with pytest.raises(dn.ExecutorError, match="has gone") as caught:
                await handle
            executor.close()
            return handle, str(caught.value), time.monotonic() - began

    handle, message, seconds = run(main())
    assert "Finished rollouts are in the run: see dn.last_run()" in message
    assert seconds < 30
    assert handle.status == "failed"
    assert 0 < len(handle.rollouts) < 40
    plan = dn.Evaluate(right)

    async def resumed():
        return await plan.resume(handle.path, dn.Predict("question -> answer", lm=Slow(tmp_path, 0.0)), rows(40))

    assert len(run(resumed())) == 40


@pytest.mark.slow
def test_a_cluster_that_loses_its_workers_ends_the_run(tmp_path):
    async def main():
        with started(1) as cluster:
            executor = dn.DaskExecutor(cluster, timeout=2)
            plan = dn.Evaluate(right, executor=executor, concurrency=4)
            handle = plan.start(dn.Predict("question -> answer", lm=Slow(tmp_path, 0.3)), rows(40))
            await asked_for(5, tmp_path)
            await asyncio.to_thread(cluster.scale, 0)
            with pytest.raises(dn.ExecutorError, match="has had no worker for 2 s"):
                await handle
            executor.close()
            return handle

    assert len(run(main()).rollouts) > 0


def test_the_error_for_a_missing_scheduler_has_its_address():
    async def main():
        await dn.evaluate(program(), rows(20), right, executor=dn.DaskExecutor("tcp://127.0.0.1:9", timeout=0.5))

    began = time.monotonic()
    with pytest.raises(dn.ExecutorError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9 within 0.5 s"):
        run(main())
    assert time.monotonic() - began < 9  # once, and not for every row


def test_a_cluster_without_workers_is_an_error():
    with started(0) as cluster:
        executor = dn.DaskExecutor(cluster, timeout=0.5)
        with pytest.raises(dn.ExecutorError, match="has no workers, and none came within 0.5 s"):
            dn.Evaluate(right, executor=executor).run_sync(program(), rows(2))
        executor.close()


def test_a_closed_client_is_an_error(cluster):
    from distributed import Client

    client = Client(cluster, set_as_default=False)
    client.close()
    with pytest.raises(dn.ExecutorError, match="the Dask client is closed"):
        dn.Evaluate(right, executor=dn.DaskExecutor(client)).run_sync(program(), rows(2))


@pytest.mark.parametrize("address", ["not an address", "127.0.0.1"])
def test_a_malformed_address_is_an_error(address):
    with pytest.raises(dn.ExecutorError, match="no Dask scheduler answers at"):
        dn.Evaluate(right, executor=dn.DaskExecutor(address, timeout=0.5)).run_sync(program(), rows(2))


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"dspynb": None, "python": "3.11"}, "does not have dspynb: pip install dspynb=="),
        ({"dspynb": "0.0.1", "python": "3.11"}, "has dspynb 0.0.1, and here it is"),
        ({"dspynb": dn.__version__, "python": "3.1"}, "has python 3.1, and here it is"),
    ],
)
def test_workers_with_other_versions_are_refused_before_anything_is_run(about, message, cluster, monkeypatch):
    monkeypatch.setattr("dspynb.contrib.dask.cluster._ABOUT", f"def about():\n    return {about!r}\n")
    executor = dn.DaskExecutor(cluster)
    with pytest.raises(dn.ExecutorError, match=message):
        dn.Evaluate(right, executor=executor).run_sync(program(), rows(2))
    executor.close()


BARE = """
import asyncio, sys
sys.modules["dspynb"] = None  # as if it were not installed
from distributed import Scheduler, Worker
async def main(kind, address):
    at = {"host": "127.0.0.1", "dashboard_address": ":0"}
    made = Scheduler(port=0, **at) if kind == "scheduler" else Worker(address, nthreads=1, **at)
    async with made as server:
        print(server.address, flush=True)
        await server.finished()
asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.contextmanager
def bare(kind, address=""):
    """A scheduler or worker in a process that cannot import dspynb; gives its address."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", BARE, kind, address], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_worker_without_the_package_is_an_error():
    with started(1) as cluster, bare("worker", cluster.scheduler_address) as address:
        executor = dn.DaskExecutor(cluster)
        with pytest.raises(dn.ExecutorError, match=f"the worker {address} does not have dspynb: pip install dspynb=="):
            dn.Evaluate(right, executor=executor).run_sync(program(), rows(2))
        executor.close()


@pytest.mark.slow
def test_a_worker_without_the_package_that_joins_later_costs_no_row(fragile):
    cluster, executor = fragile

    async def main():
        await dn.evaluate(program(), rows(2), right, executor=executor)
        with bare("worker", cluster.scheduler_address):
            await asyncio.sleep(1.2)  # until it is known that it is there
            return await dn.evaluate(program(), rows(20), right, executor=executor)

    evaluation = run(main())  # Dask gives what was sent there to the others
    assert len(evaluation) == len(evaluation.run.calls) == 20
    assert evaluation.table.error.isna().all()


@pytest.mark.slow
def test_a_scheduler_without_the_package_is_an_error():
    with bare("scheduler") as address, bare("worker", address):
        executor = dn.DaskExecutor(address)
        with pytest.raises(dn.ExecutorError, match="the scheduler does not have dspynb"):
            dn.Evaluate(right, executor=executor).run_sync(program(), rows(2))


def test_a_worker_with_another_version_that_joins_later_refuses_jobs(dask, monkeypatch):
    dn.Evaluate(right, executor=dask).run_sync(program(), rows(2))
    monkeypatch.setattr(dn, "__version__", "9.9.9")
    with pytest.raises(dn.ExecutorError, match=r"it has dspynb .* and the coordinator 9.9.9"):
        dn.Evaluate(right, executor=dask).run_sync(program(), rows(2))


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(dn.errors.ConfigurationError, match=r'pip install "dspynb\[scale\]"'):
        dn.DaskExecutor("tcp://127.0.0.1:9")
