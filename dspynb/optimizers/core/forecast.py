"""The forecast of an optimizer's run: a few validation rows are run, and the search is tried on made-up results."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dspynb.errors import RunStopped
from dspynb.evaluation.work import models_of, program_fingerprint
from dspynb.forecasting.cost_model import Sample
from dspynb.forecasting.forecast import Forecast
from dspynb.forecasting.probe import Probed, ProbedRuns, probe_count, spread_rows
from dspynb.forecasting.sources import Sources, known_costs
from dspynb.modules.batch import inputs_of
from dspynb.optimizers.core.dry_run import DryRuns
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.optimize_work import OptimizeWork
from dspynb.optimizers.core.resume_log import ResumeLog
from dspynb.running.run import Run
from dspynb.scope.core import current_scope

if TYPE_CHECKING:
    pass

__all__ = ["continued_run", "forecast_search", "new_run"]

_PROBED = ProbedRuns()


def new_run(work: OptimizeWork) -> Run:
    """The run of a search."""
    return Run(work.optimizer.kind, work.program._title(), work.inputs(), work.paths(), work.settings())


def continued_run(work: OptimizeWork) -> Run | None:
    """The run that goes on with the probe rows of the last forecast; None where there was none of this search."""
    optimizer = work.optimizer
    taken = _PROBED.take(optimizer, work.settings())
    if taken is None:
        return None
    probed, run = taken
    work.resume_log = ResumeLog.from_record(run.record)
    if optimizer.budget is None:
        work.resume_log.mark_paid()
    elif probed.meter is not None and probed.meter.budget == optimizer.budget:
        work.meter = probed.meter
        work.resume_log.mark_paid()
    return run


async def forecast_search(work: OptimizeWork, probe: int | None) -> Forecast:
    """The forecast of a search; see ``Optimizer.forecast``."""
    optimizer = work.optimizer
    problem = work.problem
    split = optimizer.probed_split(problem)
    count = probe_count(probe, len(problem.rows[split]))
    run = await _run_probe(work, split, count)
    done = {} if run is None else ResumeLog.from_record(run.record).rollouts
    samples = [Sample(run.record.calls_in(logged.event.span), logged.event) for logged in done.values()] if run else []
    inputs = [inputs_of(problem.program, row, problem.names) for row in problem.rows[split][:20]]
    sources = Sources(
        problem.program,
        program_fingerprint(problem.program),
        models_of(problem.program),
        problem.metric.name,
        inputs,
        list(optimizer.proposers().values()),
        start=Engine.START.id,
    )
    known = known_costs(samples, sources, run)
    scope = current_scope()
    dry_runs = DryRuns(optimizer, problem.program, problem, known, done, scope.settings, scope.context)
    courses = await asyncio.to_thread(dry_runs.courses, optimizer.budget)
    return Forecast(
        courses,
        name=f"{type(optimizer).__name__} on {problem.program._title()}",
        unit=optimizer.unit,
        sources=known.sources,
        notes=known.notes,
        run=run,
        under=dry_runs.courses,
    )


async def _run_probe(work: OptimizeWork, split: str, count: int) -> Run | None:
    """Run the probe rows, those of an earlier forecast included, and return their run."""
    optimizer = work.optimizer
    earlier = _PROBED.find(optimizer, work.settings())
    missing = count if earlier is None else count - len(earlier.run.record.rollouts)
    if missing <= 0:
        return None if earlier is None else earlier.run
    run = continued_run(work) or new_run(work)
    probe_work = _ProbeWork(work, split, count)
    await run.drive(probe_work)
    _PROBED.put(optimizer, Probed(run, work.settings(), None, probe_work.meter))
    return run


class _ProbeWork(OptimizeWork):
    """A search that only runs the program as it is on some rows."""

    def __init__(self, work: OptimizeWork, split: str, count: int) -> None:
        super().__init__(work.optimizer, work.program, work.problem)
        self.resume_log = work.resume_log
        self.meter = work.meter
        self._split = split
        self._rows = spread_rows(work.problem.rows[split], count)

    async def search(self, engine: Engine) -> None:
        """Run the rows. Raises RunStopped, since the search itself begins later."""
        futures = [engine.rollout(engine.start, row, split=self._split) for row in self._rows]
        for future in futures:
            await future
        raise RunStopped("the probe rows of a forecast have ended")
