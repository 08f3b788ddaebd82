"""Running a batch, and its forecast: a few rows are run, and what the others cost is drawn from their costs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dspynb.data import Example
from dspynb.errors import InputError
from dspynb.events import plain
from dspynb.forecasting.cost_model import Sample
from dspynb.forecasting.forecast import Forecast
from dspynb.forecasting.independent_rows import courses_of_rows
from dspynb.forecasting.probe import Probed, ProbedRuns, probe_count, spread_rows
from dspynb.forecasting.sources import Sources, known_costs
from dspynb.modules.batch import UNFINISHED, BatchWork, Row, inputs_of
from dspynb.modules.fingerprint import models_of, program_fingerprint
from dspynb.modules.ordered_pool import pool_width
from dspynb.running.executor import Executor
from dspynb.running.run import Run
from dspynb.scope.core import current_scope

if TYPE_CHECKING:
    from dspynb.modules.module import Module

__all__ = ["forecast_batch", "run_batch"]

_PROBED = ProbedRuns()


async def run_batch(
    module: Module, rows: Sequence[Example], concurrency: int | None, executor: Executor | None = None
) -> list[Row]:
    """Run a program on every row; see ``Module.batch``."""
    work = BatchWork(module, rows, pool_width(concurrency), executor)
    if current_scope().open_run is not None:
        return await work()
    run = _continued_run(work) or _new_run(work)
    return await run.watched(work)  # type: ignore[no-any-return]


async def forecast_batch(
    module: Module, rows: Sequence[Example], probe: int | None, concurrency: int | None, executor: Executor | None
) -> Forecast:
    """The forecast of a batch; see ``Module.forecast``."""
    if not rows:
        raise InputError("there are no rows to forecast a batch of")
    count = probe_count(probe, len(rows))
    width = pool_width(concurrency)
    run = await _run_probe(BatchWork(module, rows, width, executor), count)
    samples = [] if run is None else _samples(run)
    inputs = [inputs_of(module, row) for row in rows[:20]]
    known = known_costs(samples, Sources(module, program_fingerprint(module), models_of(module), None, inputs), run)
    return Forecast(
        courses_of_rows(known.model, samples, len(rows), width),
        name=f"a batch of {module._title()}",
        unit="row",
        sources=known.sources,
        notes=known.notes,
        run=run,
    )


def _samples(run: Run) -> list[Sample]:
    record = run.record
    spans = [row.span for row in record.spans.values() if row.kind == "row" and row.done]
    return [Sample(record.calls_in(span)) for span in spans if record.parent_of(span) == run.span]


async def _run_probe(work: BatchWork, count: int) -> Run | None:
    """Run the probe rows, those of an earlier forecast included, and return their run."""
    module = work.module
    earlier = _PROBED.find(module, _settings(work))
    missing = count if earlier is None else count - sum(result is not UNFINISHED for result in earlier.done)
    if missing <= 0:
        return None if earlier is None else earlier.run
    run = _continued_run(work) or _new_run(work)
    work.probe = spread_rows(work.rows, count)
    await run.drive(work)
    _PROBED.put(module, Probed(run, _settings(work), list(work.results)))
    return run


def _continued_run(work: BatchWork) -> Run | None:
    """The run that goes on with the probe rows of the last forecast; None where there was none of this batch."""
    if not _PROBED:
        return None
    taken = _PROBED.take(work.module, _settings(work))
    if taken is None:
        return None
    probed, run = taken
    work.results = list(probed.done)
    return run


def _new_run(work: BatchWork) -> Run:
    return work.module._new_run({"rows": len(work.rows)}, kind="batch")


def _settings(work: BatchWork) -> Mapping[str, Any]:
    """What must be the same for a batch to go on with probe rows: the program, its models and the rows."""
    texts = json.dumps([plain(row.to_dict()) for row in work.rows], sort_keys=True, default=repr)
    return {
        "program": program_fingerprint(work.module),
        "models": models_of(work.module),
        "rows": hashlib.sha256(texts.encode("utf-8", "surrogatepass")).hexdigest(),
    }
