"""OptimizeWork: the search of an optimizer as the work of a run, with its budget and the test rows at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspynb.errors import BudgetExhausted, ConfigurationError
from dspynb.evaluation.data_io.splitting import fingerprint
from dspynb.evaluation.evaluator import models_of, paths_of, program_fingerprint
from dspynb.events import plain
from dspynb.keywords import recorded_settings
from dspynb.modules.batch import own_run
from dspynb.modules.module import Module
from dspynb.modules.ordered_pool import pool_width
from dspynb.modules.price_check import check_prices
from dspynb.modules.scorer import source_of
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.interventions import ACTIONS, Interventions
from dspynb.optimizers.core.problem import Problem
from dspynb.optimizers.core.resume_log import ResumeLog
from dspynb.running.control import AcceptedRequests
from dspynb.running.run import Run
from dspynb.scope.budget import Meter
from dspynb.scope.core import Layer, current_scope

if TYPE_CHECKING:
    from dspynb.optimizers.core.optimizer import Optimizer

__all__ = ["OptimizeWork"]


class OptimizeWork:
    """The search of an optimizer as the work of a run. If the run is halted, its result is the best program so far."""

    def __init__(self, optimizer: Optimizer, program: Module, problem: Problem) -> None:
        self.optimizer = optimizer
        self.program = program
        self.problem = problem
        self.resume_log = ResumeLog()
        self.engine: Engine | None = None
        self.meter: Meter | None = None  # of the optimizer's own budget
        self._test_share = _TestShare(problem)
        self.width = pool_width(optimizer.concurrency)
        Candidate().applied(program)  # raises now for a program that cannot be copied, and not after the search
        _check_budget(optimizer, problem)
        _check_prices(optimizer, problem)

    async def __call__(self) -> Module:
        """Search, and return the best program."""
        budget = self.optimizer.budget
        run = own_run(self)
        if self.meter is None and budget is not None:
            self.meter = Meter(budget)
        funds = self.meter
        if run is not None and funds is not None:
            run.fund(funds)
        context = current_scope().context.with_interceptor(self.resume_log)
        self._layer = Layer(None, funds=funds, context=context)
        with self._layer:
            await self._search(Interventions(run, self._set_limits))
        if run is not None and self.engine is not None:
            run.end_reason = self.engine.end_reason
        best = self.partial()
        if best is None:
            return self.program
        return best

    def accepted_requests(self) -> AcceptedRequests:
        """The requests that a person may make while the search runs."""
        return AcceptedRequests(ACTIONS, [path for path, _ in self.program.named_predictors()])

    def partial(self) -> Module | None:
        """The best program so far; None before the search has begun."""
        return None if self.engine is None else self.engine.best.applied(self.program)

    async def _search(self, interventions: Interventions) -> None:
        engine = self.new_engine(interventions)
        self.engine = engine
        self._test_share.take()
        spent: BudgetExhausted | None = None
        try:
            await self.search(engine)
            await interventions.follow_up(engine)
        except BudgetExhausted as error:
            spent = error
            await engine.settle()
        finally:
            interventions.finish(engine)
            await engine.close()
            self._test_share.release()
        if self.problem.rows["test"]:
            await self._test(engine)
        if spent is not None:
            raise spent

    def new_engine(self, interventions: Interventions) -> Engine:
        """The engine of the search."""
        return Engine(
            self.problem,
            seed=self.optimizer.seed,
            width=self.width,
            patience=self.optimizer.patience,
            resume_log=self.resume_log,
            interventions=interventions,
            executor=self.optimizer.executor,
        )

    async def search(self, engine: Engine) -> None:
        """What is done with the engine: the search of the optimizer."""
        await self.optimizer.search(engine)

    async def _set_limits(self, limits: Mapping[str, float]) -> None:
        """Set new limits of the budget once all submitted work has ended, so that timing has no effect on the cut.

        A run without a budget gets one that is in force from here to the end. Raises BudgetExhausted for limits below
        what is spent.
        """
        engine = self.engine
        run = current_scope().open_run
        assert engine is not None  # noqa: S101  # it is called by the engine's interventions
        assert isinstance(run, Run)  # noqa: S101
        await engine.wait_idle()
        self._test_share.release()
        if run.meter is not None:
            run.meter.limit(limits)
        else:
            meter = run.new_meter(limits)
            engine.charge(meter, run.record)
            self._layer.fund(meter)
        self._test_share.take()
        current_scope().take()
        engine.renew_budget()

    async def _test(self, engine: Engine) -> None:
        """Evaluate the start and the winner on the test rows."""
        test_engine = engine.with_new_dispatcher(self.width)
        try:
            tasks = [test_engine.evaluate(c, split="test") for c in dict.fromkeys([engine.start, engine.best])]
            for task in tasks:
                await task
        finally:
            await test_engine.close()

    def inputs(self) -> dict[str, Any]:
        """The inputs of the run as its record has them: the number of rows of each split."""
        return {name: len(rows) for name, rows in self.problem.rows.items()}

    def paths(self) -> dict[str, str]:
        """Predictor uid → path, of the program's predictors and of those that write proposals."""
        proposers = {predict.uid: name for name, predict in self.optimizer.proposers().items()}
        return {**self.optimizer.paths(), **paths_of(self.program), **proposers}

    def settings(self) -> dict[str, Any]:
        """The settings and data that must be equal for a run to be resumed."""
        optimizer = self.optimizer
        (metric,) = self.problem.metrics.values()
        return {
            "optimizer": type(optimizer).__name__,
            "metric": metric.name,
            "metric's code": source_of(metric.fn),
            **plain(recorded_settings(optimizer)),
            **{name: fingerprint(rows) if rows else None for name, rows in self.problem.rows.items()},
            "program": program_fingerprint(self.program),
            "models": models_of(self.program),
            **plain(optimizer.described()),
        }


class _TestShare:
    """The share of the budget that is kept for the test rows while the search runs."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._scope = current_scope()
        self._calls = 0
        self._metric_calls = 0

    def take(self) -> None:
        """Take the share from the budgets in force. Raises BudgetExhausted."""
        self._scope = current_scope()
        costs = _test_costs(self._problem)
        calls = 0
        if math.isfinite(self._scope.available()):
            calls = costs["calls"]
        self._scope.take(calls, costs["metric_calls"])
        self._calls = calls
        self._metric_calls = costs["metric_calls"]

    def release(self) -> None:
        """Give the share back to the budgets, so that the test rows can take it."""
        self._scope.give_back(self._calls, self._metric_calls)
        self._calls = 0
        self._metric_calls = 0


def _test_costs(problem: Problem) -> dict[str, int]:
    """What running the start and the winner on all test rows takes at most, by the names of a budget's limits."""
    rollouts = 2 * len(problem.rows["test"])
    context = current_scope().context
    if not problem.retries.get("test", True):
        context = replace(context, retries=False)
    with Layer(None, context=context):
        return {"metric_calls": rollouts, "calls": rollouts * problem.program.most_calls()}


def _check_prices(optimizer: Optimizer, problem: Problem) -> None:
    """Raise BudgetExhausted for a budget of USD, if the price of a model is unknown."""
    usd = None if optimizer.budget is None else optimizer.budget.usd
    users = [*problem.metrics.values(), *optimizer.proposers().values(), getattr(optimizer, "teacher", None)]
    check_prices(problem.program, *users, usd=usd, models=[getattr(optimizer, "teacher_lm", None)])


def _check_budget(optimizer: Optimizer, problem: Problem) -> None:
    """Raise ConfigurationError for a budget that is too small for the first step and the test rows."""
    if optimizer.budget is None:
        return
    first_step = optimizer.first_step(problem)
    for name, test_costs in _test_costs(problem).items():
        limit = getattr(optimizer.budget, name)
        if limit is not None and limit < first_step + test_costs:
            test_part = f" and {test_costs} for the test rows" if test_costs else ""
            raise ConfigurationError(
                f"a budget of {limit} {name.replace('_', ' ')} is too small for {type(optimizer).__name__}: its first "
                f"step takes {first_step}{test_part}. Give more, or fewer rows"
            )
