"""Dry runs: the search of an optimizer on made-up results, to count what it would do. No model is called.

A dry run is the optimizer's own search with the engine's budget, concurrency and order. Its rollouts and proposals
wait on a clock that jumps, so that it takes as long as its computing, and its duration is that of the real run.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dspynb.data import Score
from dspynb.errors import BudgetExhausted, DspynbError, OptimizerError
from dspynb.evaluation.rollouts import Rollout
from dspynb.events import ProposalEnded
from dspynb.forecasting.cost_model import prompt_bytes
from dspynb.forecasting.forecast import Totals
from dspynb.forecasting.rates import model_from
from dspynb.forecasting.sources import KnownCosts
from dspynb.modules.module import Module
from dspynb.modules.predict import Predict
from dspynb.modules.scorer import Scorer
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.imagination import Course, Imagination
from dspynb.optimizers.core.interventions import Interventions
from dspynb.optimizers.core.optimize_work import OptimizeWork
from dspynb.optimizers.core.problem import CandidateEvaluation, Problem
from dspynb.optimizers.core.proposal import ProposalInputs
from dspynb.optimizers.core.resume_log import LoggedResult, ResumeLog, RolloutKey
from dspynb.running.aio.virtual_loop import VirtualLoop
from dspynb.scope.allowances import Allowance
from dspynb.scope.budget import Budget
from dspynb.scope.call_context import CallContext, Sampling, Settings
from dspynb.scope.core import Layer, quiet

if TYPE_CHECKING:
    from dspynb.optimizers.core.optimizer import Optimizer

__all__ = ["DryRuns"]

_MOST_ROLLOUTS = 12_000
"""Rollouts of all dry runs, about, which decides how many there are."""
_FEWEST = 8
_MOST = 40
_DRAWS = 25
"""For each dry run, so many draws of how much the true costs differ from the known ones."""


class DryEngine(Engine):
    """An engine that makes up results. ``imagination``: decides them."""

    imagination: Imagination
    last_step = 0
    """The highest step of an evaluation."""

    async def run_rollout(
        self, candidate: Candidate, key: RolloutKey, program: Module, funds: Allowance | None
    ) -> Rollout:
        """A made-up rollout, or one that was run before."""
        known = self.imagination.known.get(key)
        if known is None:
            logged, seconds = self.imagination.rollout(key, self._more_tokens(candidate, program))
        else:
            logged, seconds = known, 0.0
            self.imagination.count_known(known)
        with Layer(None, funds=funds):
            logged.charge()
        await asyncio.sleep(seconds)
        return self._logged_rollout(logged, program)

    async def run_proposal(
        self,
        key: str,
        predict: Predict,
        inputs: ProposalInputs,
        sampling: Sampling,  # noqa: ARG002
        funds: Allowance | None,
    ) -> ProposalEnded:
        """A made-up proposal. Its prompt is written, so that its length is known."""
        values = await inputs() if callable(inputs) else inputs
        lm = model_from(self._lm if predict.lm is None else predict.lm)
        outputs, call, seconds = self.imagination.proposal(key, predict, _prompt_size(predict, values), lm, self.paths)
        with Layer(None, funds=funds):
            LoggedResult(None, (call,)).charge()
        await asyncio.sleep(seconds)
        return ProposalEnded(span=0, key=key, outputs=outputs, seconds=seconds)

    def evaluate(
        self,
        candidate: Candidate,
        rows: Sequence[int] | None = None,
        *,
        split: str = "val",
        step: int = 0,
        repeat: int = 0,
        in_order: bool = True,
    ) -> asyncio.Task[CandidateEvaluation]:
        """Submit an evaluation, and note its step."""
        self.last_step = max(self.last_step, step)
        return super().evaluate(candidate, rows, split=split, step=step, repeat=repeat, in_order=in_order)

    def _more_tokens(self, candidate: Candidate, program: Module) -> Mapping[str, float]:
        """Path → how many more tokens its prompts have under the candidate than under the program as it is."""
        if not candidate.parts:
            return {}
        cached = self.imagination.more_tokens.get(candidate.id)
        if cached is None:
            cached = {}
            for path, predictor in program.named_predictors():
                inputs = self.imagination.inputs_of(path)
                before = _prompt_size(predictor, inputs)
                with Layer(None, candidate=self._parts_by_uid(candidate, program)):
                    after = _prompt_size(predictor, inputs)
                cached[path] = (after - before) * self.imagination.tokens_per_byte
            self.imagination.more_tokens[candidate.id] = cached
        return cached

    def _another(self, width: int) -> Engine:
        engine = DryEngine(
            self.problem,
            seed=self.seed,
            width=width,
            patience=self.patience,
            resume_log=ResumeLog(),
            interventions=self.interventions,
        )
        engine.imagination = self.imagination
        return engine


def _prompt_size(predictor: Predict, inputs: Mapping[str, Any]) -> int:
    """The bytes of a prompt; estimated from the texts where the inputs, which a record only describes, do not fit."""
    try:
        return prompt_bytes(predictor.prompt(inputs))
    except DspynbError:
        return sum(len(str(value)) for value in inputs.values()) + len(predictor.signature.describe()) + 500


class _DryWork(OptimizeWork):
    """The work of a dry run."""

    def __init__(self, optimizer: Optimizer, program: Module, problem: Problem, imagination: Imagination) -> None:
        super().__init__(optimizer, program, problem)
        self._imagination = imagination

    def new_engine(self, interventions: Interventions) -> Engine:
        """An engine that makes up results."""
        engine = DryEngine(
            self.problem,
            seed=self.optimizer.seed,
            width=self.width,
            patience=self.optimizer.patience,
            resume_log=ResumeLog(),
            interventions=interventions,
        )
        engine.imagination = self._imagination
        return engine


@dataclass(frozen=True)
class DryRuns:
    """The dry runs of an optimizer's search.

    ``known``: what rollouts cost. ``done``: rollouts that were run. ``settings``, ``context``: those in force where the
    forecast was asked for.
    """

    optimizer: Optimizer
    program: Module
    problem: Problem
    known: KnownCosts
    done: Mapping[RolloutKey, LoggedResult]
    settings: Settings
    context: CallContext

    def courses(self, budget: Budget | None) -> list[Totals]:
        """Possible courses of the run under a budget. Takes up to some seconds of computing, in any thread.

        Raises ConfigurationError for a budget too small for the first step, OptimizerError where the search fails on
        made-up results.
        """
        context = contextvars.Context()
        return context.run(self._courses, budget)

    def _courses(self, budget: Budget | None) -> list[Totals]:
        quiet.set(True)
        optimizer = copy.copy(self.optimizer)
        optimizer.budget = _without_seconds(budget)
        with Layer(None, settings=self.settings, context=self.context):
            totals: list[Totals] = []
            wanted = _MOST
            number = 0
            while number < wanted:
                course, imagination = self._course(optimizer, number)
                if number == 0:
                    rollouts = course.known.rollouts + course.rollouts.rollouts
                    wanted = max(_FEWEST, min(_MOST, _MOST_ROLLOUTS // max(1, rollouts)))
                totals += self._draws(course, imagination, optimizer.budget)
                number += 1
        if budget is not None and budget.seconds is not None:
            return [total.within(Budget(seconds=budget.seconds)) for total in totals]
        return totals

    def _course(self, optimizer: Optimizer, number: int) -> tuple[Course, Imagination]:
        rng = random.Random(f"dry run {number}")  # noqa: S311  # keeps no secret
        imagination = Imagination(self.known.model, self.done, self.known.replies, rng)
        metric = Scorer(_made_up_score, "metric")
        problem = replace(self.problem, metrics={self.problem.metric.name: metric})
        work = _DryWork(optimizer, self.program, problem, imagination)

        async def search() -> float:
            began = asyncio.get_running_loop().time()
            with contextlib.suppress(BudgetExhausted, OptimizerError):  # the run would end here
                await work()
            return asyncio.get_running_loop().time() - began

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            imagination.course.seconds = runner.run(search(), context=contextvars.copy_context())
        engine = work.engine
        if isinstance(engine, DryEngine):
            imagination.course.count = optimizer.count_units(engine, engine.last_step)
        return imagination.course, imagination

    def _draws(self, course: Course, imagination: Imagination, budget: Budget | None) -> list[Totals]:
        """The costs of a course. Under a budget they are those by which it was cut."""
        drawn = [course.totals(imagination.factors, imagination.reply_factor)]
        if budget is not None and set(budget.limits()) - {"metric_calls"}:
            return drawn * _DRAWS
        further = range(_DRAWS - 1)
        return drawn + [course.totals(imagination.draw_factors(), imagination.draw_reply_factor()) for _ in further]


def _without_seconds(budget: Budget | None) -> Budget | None:
    """The budget without its seconds, which a clock that jumps does not count."""
    limits = {} if budget is None else budget.limits()
    limits.pop("seconds", None)
    return Budget(**limits) if limits else None  # type: ignore[arg-type]


def _made_up_score(row: Any, prediction: Any) -> Score:  # noqa: ARG001
    return Score(0.5, "It could be better.")
