"""A cluster of four worker processes for tests that leave it intact, and small clusters for tests that damage it."""

from __future__ import annotations

import contextlib
import logging

import pytest

import dspynb as dn

distributed = pytest.importorskip("distributed")


@contextlib.contextmanager
def started(workers):
    """A LocalCluster of processes."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # it logs every worker that is lost
    with distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=logging.CRITICAL
    ) as cluster:
        yield cluster


@pytest.fixture(scope="package")  # ended before other tests: some of them fork
def cluster():
    with started(4) as cluster:
        yield cluster


@pytest.fixture
def dask(cluster):
    executor = dn.DaskExecutor(cluster.scheduler_address)
    yield executor
    executor.close()


@pytest.fixture
def fragile():
    """A cluster of two workers and its executor, for tests that kill workers or end the cluster."""
    with started(2) as cluster:
        executor = dn.DaskExecutor(cluster, timeout=20)
        yield cluster, executor
        executor.close()
