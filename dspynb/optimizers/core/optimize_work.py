"""OptimizeWork: an optimizer's search as the work of a run, its budget, and the test rows at its end."""

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
from dspynb.modules.scorer import source_of
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.interventions import ACTIONS, Interventions
from dspynb.optimizers.core.resume_log import Memory
from dspynb.optimizers.core.task import Task
from dspynb.running.control import AcceptedRequests
from dspynb.running.run import Run
from dspynb.scope.budget import Meter
from dspynb.scope.core import Layer, current_scope

if TYPE_CHECKING:
    from dspynb.optimizers.core.optimizer import Optimizer

__all__ = ["OptimizeWork"]


class OptimizeWork:
    """An optimizer's search as the work of a run: when it is halted, the best program so far is its result."""

    def __init__(self, optimizer: Optimizer, program: Module, task: Task) -> None:
        self.optimizer, self.program, self.task, self.memory = optimizer, program, task, Memory()
        self.engine: Engine | None = None
        self._held = _HeldBack(task)
        self._width = pool_width(optimizer.concurrency)
        Candidate().applied(program)  # now: at the end, one that cannot be copied would have cost much
        _check_budget(optimizer, task)

    async def __call__(self) -> Module:
        """The best program."""
        budget, own = self.optimizer.budget, own_run(self)
        funds = None if budget is None else Meter(budget)
        if own is not None and funds is not None:
            own.fund(funds)
        context = current_scope().context.with_interceptor(self.memory)
        self._layer = Layer(None, funds=funds, context=context)
        with self._layer:
            await self._search(Interventions(own, self._refund))
        best = self.partial()
        return self.program if best is None else best

    def accepted_requests(self) -> AcceptedRequests:
        """What a person may ask of the search."""
        return AcceptedRequests(ACTIONS, [path for path, _ in self.program.named_predictors()])

    def partial(self) -> Module | None:
        """The best program so far; None before anything is known."""
        return None if self.engine is None else self.engine.best.applied(self.program)

    async def _search(self, interventions: Interventions) -> None:
        self.engine = engine = Engine(
            self.task,
            seed=self.optimizer.seed,
            width=self._width,
            patience=self.optimizer.patience,
            memory=self.memory,
            interventions=interventions,
            executor=self.optimizer.executor,
        )
        self._held.take()
        spent: BudgetExhausted | None = None
        try:
            await self.optimizer.search(engine)
            await interventions.follow_up(engine)
        except BudgetExhausted as error:
            spent = error
            await engine.settle()
        finally:
            interventions.finish(engine)
            await engine.close()
            self._held.release()
        if self.task.rows["test"]:
            await self._test(engine)
        if spent is not None:
            raise spent

    async def _refund(self, limits: Mapping[str, float]) -> None:
        """Set new limits, where nothing is under way, so that the cut is a logical one. Where there was no budget, one
        is in force from here to the end. Raises BudgetExhausted for limits below what is spent."""
        engine, run = self.engine, current_scope().open_run
        assert engine is not None  # noqa: S101  # it asks
        assert isinstance(run, Run)  # noqa: S101
        await engine.idle()
        self._held.release()
        if run.meter is not None:
            run.meter.limit(limits)
        else:
            meter = run.new_meter(limits)
            engine.charge(meter, run.record)
            self._layer.fund(meter)
        self._held.take()
        current_scope().take()
        engine.renew()

    async def _test(self, engine: Engine) -> None:
        """The start and the winner on the test rows."""
        judge = engine.again(self._width)
        try:
            asked = [judge.evaluate(c, split="test") for c in dict.fromkeys([engine.start, engine.best])]
            for task in asked:
                await task
        finally:
            await judge.close()

    def inputs(self) -> dict[str, Any]:
        """What the run's record says of its inputs."""
        return {name: len(rows) for name, rows in self.task.rows.items()}

    def paths(self) -> dict[str, str]:
        """Predictor uid → path, of the program and of those that write proposals."""
        named = {predict.uid: name for name, predict in self.optimizer.proposers().items()}
        return {**self.optimizer.paths(), **paths_of(self.program), **named}

    def settings(self) -> dict[str, Any]:
        """What must be the same for a run to be gone on with."""
        optimizer = self.optimizer
        (metric,) = self.task.metrics.values()
        return {
            "optimizer": type(optimizer).__name__,
            "metric": metric.name,
            "metric's code": source_of(metric.fn),
            **plain(recorded_settings(optimizer)),
            **{name: fingerprint(rows) if rows else None for name, rows in self.task.rows.items()},
            "program": program_fingerprint(self.program),
            "models": models_of(self.program),
            **plain(optimizer.described()),
        }


class _HeldBack:
    """What the test rows will take, kept from the search."""

    def __init__(self, task: Task) -> None:
        self._task, self._scope = task, current_scope()
        self._calls = self._metric_calls = 0

    def take(self) -> None:
        """Keep it, from the budgets in force. Raises BudgetExhausted."""
        self._scope, costs = current_scope(), _tested(self._task)
        calls = costs["calls"] if math.isfinite(self._scope.available()) else 0
        self._scope.take(calls, costs["metric_calls"])
        self._calls, self._metric_calls = calls, costs["metric_calls"]

    def release(self) -> None:
        """Give it back, to be taken by the test rows."""
        self._scope.give_back(self._calls, self._metric_calls)
        self._calls = self._metric_calls = 0


def _tested(task: Task) -> dict[str, int]:
    """What the test rows take at most: the start and the winner on each."""
    rollouts = 2 * len(task.rows["test"])
    context = current_scope().context
    if not task.retries.get("test", True):
        context = replace(context, retries=False)
    with Layer(None, context=context):
        return {"metric_calls": rollouts, "calls": rollouts * task.program.most_calls()}


def _check_budget(optimizer: Optimizer, task: Task) -> None:
    """Raise ConfigurationError for a budget that is below the first step and the test rows."""
    if optimizer.budget is None:
        return
    first = optimizer.first_step(task)
    for name, tested in _tested(task).items():
        limit = getattr(optimizer.budget, name)
        if limit is not None and limit < first + tested:
            also = f" and {tested} for the test rows" if tested else ""
            raise ConfigurationError(
                f"a budget of {limit} {name.replace('_', ' ')} is too small for {type(optimizer).__name__}: its first "
                f"step takes {first}{also}. Give more, or fewer rows"
            )
