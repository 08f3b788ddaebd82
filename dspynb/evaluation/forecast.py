"""The forecast of an evaluation: a few of its rows are run, and what the others cost is drawn from their costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspynb.evaluation.work import EvaluateWork, Table, paths_of
from dspynb.forecasting.cost_model import Sample
from dspynb.forecasting.forecast import Forecast
from dspynb.forecasting.independent_rows import courses_of_rows
from dspynb.forecasting.probe import Probed, ProbedRuns, probe_count, spread_rows
from dspynb.forecasting.sources import Sources, known_costs
from dspynb.modules.batch import inputs_of
from dspynb.modules.fingerprint import models_of, program_fingerprint
from dspynb.modules.module import Module
from dspynb.modules.ordered_pool import pool_width
from dspynb.running.run import Run

if TYPE_CHECKING:
    from dspynb.evaluation.evaluator import Evaluate

__all__ = ["continued_run", "forecast_evaluation", "new_run"]

_PROBED = ProbedRuns()


def new_run(work: EvaluateWork) -> Run:
    """The run of an evaluation."""
    program = work.program
    return Run("evaluate", program._title(), work.described(), paths_of(program), work.settings())


def continued_run(plan: Evaluate, work: EvaluateWork) -> Run | None:
    """The run that goes on with the probe rows of the last forecast; None where there was none of this evaluation."""
    taken = _PROBED.take(plan, work.settings())
    if taken is None:
        return None
    probed, run = taken
    work.done = dict(probed.done)
    if plan.budget is not None and probed.meter is not None and probed.meter.budget == plan.budget:
        work.meter = probed.meter
    return run


async def forecast_evaluation(plan: Evaluate, program: Module, table: Table, probe: int | None) -> Forecast:
    """The forecast of an evaluation; see ``Evaluate.forecast``."""
    count = probe_count(probe, len(table.rows))
    run, done = await _run_probe(plan, EvaluateWork(plan, program, table), count)
    samples = []
    if run is not None:
        samples = [Sample(run.record.calls_in(rollout.ended.span), rollout.ended) for rollout in done.values()]
    inputs = [inputs_of(program, row) for row in table.rows[:20]]
    sources = Sources(program, program_fingerprint(program), models_of(program), ", ".join(plan.metrics), inputs)
    known = known_costs(samples, sources, run)
    rollouts = len(table.rows) * plan.repeats
    courses = courses_of_rows(known.model, samples, rollouts, pool_width(plan.concurrency))
    if plan.budget is not None:
        courses = [course.within(plan.budget) for course in courses]
    return Forecast(
        courses,
        name=f"the evaluation of {program._title()}",
        unit="row" if plan.repeats == 1 else "rollout",
        sources=known.sources,
        notes=known.notes,
        run=run,
    )


async def _run_probe(plan: Evaluate, work: EvaluateWork, count: int) -> tuple[Run | None, dict[Any, Any]]:
    """Run the probe rows, those of an earlier forecast included. Returns their run, and the rollouts by row."""
    earlier = _PROBED.find(plan, work.settings())
    missing = count if earlier is None else count - len(earlier.done)
    if missing <= 0:
        return (None, {}) if earlier is None else (earlier.run, earlier.done)
    run = continued_run(plan, work) or new_run(work)
    rows = spread_rows(work.table.rows, count)
    work.probe = rows
    await run.drive(work)
    _PROBED.put(plan, Probed(run, work.settings(), dict(work.done), work.meter))
    return run, work.done
