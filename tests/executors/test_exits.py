"""User code that exits on a worker costs its row, not the worker."""

from __future__ import annotations

import asyncio
import sys

import pytest

import dspynb as dn
from tests.executors.programs import program, rows


@pytest.mark.parametrize("kind", ["exit", "press", "own", "cancelled"])
def test_a_metric_that_exits_on_a_worker_costs_that_row_only(dask, kind):
    def metric(row, prediction):
        if row.question == "2":
            if kind == "exit":
                sys.exit(3)
            raise {
                "press": KeyboardInterrupt,
                "own": type("Own", (BaseException,), {}),
                "cancelled": asyncio.CancelledError,
            }[kind]
        return 1.0

    done = dn.Evaluate(metric, executor=dask).run_sync(program(), rows(6))
    assert [isinstance(error, str) for error in done.table.error] == [i == 2 for i in range(6)]
    assert "the metric metric" in done.table.error[2]


def test_a_program_that_exits_on_a_worker_costs_that_row_only(dask):
    class Leaves(dn.Module):
        async def forward(self, question):
            if question == "2":
                sys.exit("no licence")
            return {"answer": question}

    done = asyncio.run(Leaves().batch([{"question": str(i)} for i in range(4)], executor=dask))
    assert [str(result) for result in done if isinstance(result, Exception)] == [
        "Leaves.forward called sys.exit('no licence'); raise an Exception in its place"
    ]
    assert len(done) == 4
