"""Evaluate: run a program on rows and score each prediction with metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, Unpack

from dspynb.aliases import Metrics, Rows
from dspynb.errors import BudgetExhausted, ConfigurationError
from dspynb.evaluation.forecast import continued_run, forecast_evaluation, new_run
from dspynb.evaluation.result import Evaluation
from dspynb.evaluation.resuming import check_same_settings
from dspynb.evaluation.rollouts import Rollout
from dspynb.evaluation.settings import RENAMED_ARGUMENTS, RENAMED_SETTINGS, ColumnNames, ErrorLimit, EvaluateSettings
from dspynb.evaluation.work import (
    EvaluateWork,
    Table,
    check_columns,
    models_of,
    paths_of,
    program_fingerprint,
    table_of,
)
from dspynb.forecasting.forecast import Forecast
from dspynb.forecasting.probe import ProbeOption
from dspynb.keywords import absent_settings, configurable, settings_repr
from dspynb.modules.function_program import checked_program
from dspynb.modules.module import Module
from dspynb.modules.scorer import Scorer
from dspynb.options import Concurrency, Float, PositiveInt
from dspynb.running.aio.sync import run_sync
from dspynb.running.executor import ExecutorOption
from dspynb.running.run import Run
from dspynb.running.store import run_file
from dspynb.scope.budget import Budget, BudgetOption, limits_of
from dspynb.scope.core import current_scope

__all__ = [
    "Evaluate",
    "EvaluateWork",
    "Table",
    "check_columns",
    "evaluate",
    "models_of",
    "paths_of",
    "program_fingerprint",
    "run_inside",
    "table_of",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Evaluate:
    """Runs a program on rows and scores each prediction: ``await Evaluate(metric)(program, rows)`` gives an Evaluation.

    ``metric``: a function ``(row, prediction) -> float | bool | Score``, sync or async; the calls of the program are
    passed as ``trace`` if it has that parameter. A dict or list of metrics scores every row with each; the first gives
    the score. ``inputs``: names of the columns to pass to the program; by default those that it takes. All other
    columns are labels. ``concurrency``: rows to run at a time; by default ``dn.configure(concurrency=…)``, which is 32.
    ``repeats``: rollouts of each row, 1 by default. ``failure_score``: the score of a row that failed, in the mean; 0
    by default. ``max_errors``: how many rows may fail; after one more failure no further row starts, and the run ends
    with the status ``max_errors``. None sets no limit. ``budget``: a Budget for this evaluation. ``executor``: a
    DaskExecutor that runs the rollouts; None runs them in this process.

    Raises ConfigurationError for settings out of range, and InputError for rows that do not fit the program.

    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> rows = [{"question": "2+2?", "answer": "4"}, {"question": "2+3?", "answer": "5"}]
    >>> judge = dn.Evaluate({"right": dn.metrics.exact_match(), "brief": dn.metrics.word_count("answer", at_most=3)})
    >>> {name: float(score) for name, score in judge.run_sync(program, rows).scores.items()}
    {'right': 0.5, 'brief': 1.0}
    """

    @configurable(renamed=RENAMED_SETTINGS)
    def __init__(
        self,
        metric: Metrics,
        *,
        inputs: ColumnNames = None,
        concurrency: Concurrency = None,
        repeats: PositiveInt = 1,
        failure_score: Float = 0.0,
        max_errors: ErrorLimit = None,
        budget: BudgetOption | None = None,
        executor: ExecutorOption = None,
    ) -> None:
        self.metrics = _scorers(metric)
        self.inputs = None if inputs is None else tuple(inputs)
        self.concurrency = concurrency
        self.repeats = repeats
        self.failure_score = float(failure_score)
        self.max_errors = max_errors
        self.budget = budget
        self.executor = executor

    def __repr__(self) -> str:
        return settings_repr(self, ", ".join(self.metrics))

    @configurable(renamed=RENAMED_ARGUMENTS)
    async def __call__(self, program: Module, rows: Rows) -> Evaluation:
        """Evaluate the program on the rows and return an Evaluation.

        A notebook shows a live view. Inside another run, the evaluation becomes part of that run.
        """
        work = EvaluateWork(self, program, table_of(rows))
        if current_scope().open_run is not None:
            return await run_inside(work, self.budget)
        return await self._run(work).watched(work)  # type: ignore[no-any-return]

    @configurable(renamed=RENAMED_ARGUMENTS)
    async def forecast(self, program: Module, rows: Rows, *, probe: ProbeOption = None) -> Forecast:
        """Foresee what evaluating the program on the rows will cost, and return a Forecast: rollouts, calls, tokens,
        USD and minutes, each with an 80 % interval, and what a budget buys.

        ``probe``: how many rows to run for it, 5 by default. They are rows of the evaluation itself: this Evaluate has
        their results when it is called with the same program and rows, and its budget counts them. 0 makes no call;
        then the forecast rests on earlier runs of the program in the folder of runs, else on a guess, which it says.
        Raises ConfigurationError for a probe larger than the rows, and the errors of a call.

        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> rows = [{"question": f"{n}+1?", "answer": "4"} for n in range(50)]
        >>> forecast = dn.run_sync(lambda: dn.Evaluate(dn.metrics.exact_match()).forecast(program, rows))
        >>> forecast.rollouts.point, forecast.calls.low <= 50 <= forecast.calls.high
        (50, True)
        """
        return await forecast_evaluation(self, program, table_of(rows), probe)

    @configurable(renamed=RENAMED_ARGUMENTS)
    def start(self, program: Module, rows: Rows) -> Run:
        """Start the evaluation and return its Run at once: display it, stop it, or await it for the Evaluation.

        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> async def main():
        ...     run = dn.Evaluate(dn.metrics.exact_match()).start(program, [{"question": "2+2?", "answer": "4"}])
        ...     return float(await run), run.status
        >>> dn.run_sync(main)
        (1.0, 'finished')
        """
        work = EvaluateWork(self, program, table_of(rows))
        return self._run(work).start(work)

    @configurable(renamed=RENAMED_ARGUMENTS)
    def run_sync(self, program: Module, rows: Rows) -> Evaluation:
        """Run synchronously and return the Evaluation. For scripts; in a notebook, `await` the call instead."""
        return run_sync(lambda: self(program, rows))

    @configurable(renamed=RENAMED_ARGUMENTS)
    def resume(self, run: str | Path, program: Module, rows: Rows, *, retry_failed: bool = False) -> Run:
        """Resume a run that was stopped or lost. Only rows without a result in its file are run.

        ``run``: the id of the run, or the path of its file. ``retry_failed``: also run the rows that failed; False by
        default. ``budget`` and ``max_errors`` count from zero again. Returns the Run, as ``start`` does.

        Raises ConfigurationError if the program, the rows or a setting changed, and names what did; JournalError if the
        run file is damaged or cannot be read; RunInUse, a JournalError, while a run in any process writes the file.

        >>> dn.configure(runs_dir="runs")
        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> rows = [{"question": "2+2?", "answer": "4"}, {"question": "2+3?", "answer": "5"}]
        >>> first = dn.Evaluate(dn.metrics.exact_match(), budget=dn.Budget(metric_calls=1)).run_sync(program, rows)
        >>> whole = dn.run_sync(lambda: dn.Evaluate(dn.metrics.exact_match()).resume(first.run.id, program, rows))
        >>> len(first), len(whole)
        (1, 2)
        """
        program = checked_program(program)
        work = EvaluateWork(self, program, table_of(rows))
        resumed = Run.resumed(run_file(run), "evaluate", program._title(), work.described(), paths_of(program))
        with resumed.released_on_error():
            if resumed._settings:
                check_same_settings(resumed._settings, work.settings(), absent_settings(type(self)))
            resumed.limits = limits_of(self.budget)
            resumed._settings = work.settings()  # a run that was lost at its very beginning recorded none
            for ended in resumed.record.rollouts:
                run_again = retry_failed and ended.error
                if not run_again:
                    work.done[ended.row, ended.repeat] = Rollout(ended)
            return resumed.start(work)

    def _run(self, work: EvaluateWork) -> Run:
        run = continued_run(self, work) or new_run(work)
        run.limits = limits_of(self.budget)
        return run


class _Work(Protocol[T_co]):
    def __call__(self) -> Awaitable[T_co]: ...

    def partial(self) -> T_co | None: ...


async def run_inside(work: _Work[T], budget: Budget | None) -> T:
    """Do the work as part of the open run and return its result.

    ``budget``: the budget of the work itself. When it is spent, the partial result is returned. When a budget of the
    open run is spent, BudgetExhausted is raised.
    """
    try:
        return await work()
    except BudgetExhausted:
        partial = work.partial()
        if budget is None or partial is None:
            raise
        scope = current_scope()
        scope.take(1, metric_calls=1)  # raises BudgetExhausted if a budget of the open run is spent
        scope.give_back(1, metric_calls=1)
        return partial


@configurable(passes_to=Evaluate.__init__, renamed={**RENAMED_SETTINGS, "devset": "rows", "dataset": "rows"})
async def evaluate(program: Module, rows: Rows, metric: Metrics, **settings: Unpack[EvaluateSettings]) -> Evaluation:
    """Evaluate a program on rows: ``await evaluate(program, rows, metric)`` gives an Evaluation.

    For the settings and the errors, see Evaluate.

    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> rows = [{"question": "2+2?", "answer": "4"}, {"question": "2+3?", "answer": "5"}]
    >>> done = dn.run_sync(lambda: dn.evaluate(program, rows, dn.metrics.exact_match()))
    >>> done.table[["question", "expected_answer", "predicted_answer", "score"]]
      question expected_answer predicted_answer  score
    0     2+2?               4                4    1.0
    1     2+3?               5                4    0.0
    """
    return await Evaluate(metric, **settings)(program, rows)


def _scorers(metric: Any) -> dict[str, Scorer]:
    if isinstance(metric, Mapping):
        scorers = {str(name): Scorer(fn, "metric") for name, fn in metric.items()}
    elif isinstance(metric, list | tuple):
        unnamed = [Scorer(fn, "metric") for fn in metric]
        scorers = {scorer.name: scorer for scorer in unnamed}
        if len(scorers) < len(unnamed):
            raise ConfigurationError("two metrics have the same name; give a dict of name to metric")
    else:
        scorer = Scorer(metric, "metric")
        scorers = {scorer.name: scorer}
    if not scorers:
        raise ConfigurationError("give at least one metric: a function of (row, prediction)")
    return scorers
