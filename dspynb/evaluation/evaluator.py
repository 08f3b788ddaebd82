"""Evaluate: run a program on rows and score each prediction with metrics."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, Unpack

from dspynb.aliases import Metrics, Rows
from dspynb.data import Example, rows_of
from dspynb.errors import BudgetExhausted, ConfigurationError, InputError, StateError, nearest
from dspynb.evaluation.data_io.splitting import fingerprint
from dspynb.evaluation.result import Evaluation
from dspynb.evaluation.resuming import check_same_settings
from dspynb.evaluation.rollouts import Rollout, rollouts_on, run_rollout
from dspynb.evaluation.settings import RENAMED_ARGUMENTS, RENAMED_SETTINGS, ColumnNames, ErrorLimit, EvaluateSettings
from dspynb.events import plain
from dspynb.keywords import absent_settings, configurable, recorded_settings, settings_repr
from dspynb.modules.batch import column_of, inputs_of, own_run, takes_of_rows
from dspynb.modules.function_program import checked_program
from dspynb.modules.module import Module
from dspynb.modules.ordered_pool import pool_width, run_pool
from dspynb.modules.price_check import check_prices
from dspynb.modules.scorer import Scorer
from dspynb.options import Concurrency, Float, PositiveInt
from dspynb.running.aio.sync import run_sync
from dspynb.running.control import AcceptedRequests
from dspynb.running.executor import ExecutorOption
from dspynb.running.run import Run
from dspynb.running.store import run_file
from dspynb.scope.allowances import Allowance
from dspynb.scope.budget import Budget, BudgetOption, Meter
from dspynb.scope.core import Layer, current_scope
from dspynb.scope.settings import setting

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


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of an evaluation."""

    rows: Sequence[Example]
    index: Any
    """The index of the DataFrame that held the rows; None if they were in no DataFrame."""
    fingerprint: str
    """See `fingerprint` in data_io/splitting.py."""


def table_of(rows: Rows) -> Table:
    """Read rows from a DataFrame, or from a list of dicts or Examples. Raises InputError if there are none."""
    examples = rows_of(rows)
    if not examples:
        raise InputError("there are no rows to evaluate on")
    is_frame = hasattr(rows, "columns")
    return Table(examples, rows.index if is_frame else None, fingerprint(examples))


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
            resumed._settings = work.settings()  # a run that was lost at its very beginning recorded none
            for ended in resumed.record.rollouts:
                run_again = retry_failed and ended.error
                if not run_again:
                    work.done[ended.row, ended.repeat] = Rollout(ended)
            return resumed.start(work)

    def _run(self, work: EvaluateWork) -> Run:
        program = work.program
        return Run("evaluate", program._title(), work.described(), paths_of(program), work.settings())


class EvaluateWork:
    """The work of a run that evaluates one program. If the run is halted, the rows that have ended are its result."""

    def __init__(self, plan: Evaluate, program: Module, table: Table) -> None:
        program = checked_program(program)
        self.plan = plan
        self.program = program
        self.table = table
        self.input_names = check_columns(program, table, plan.inputs)
        self.done: dict[tuple[int, int], Rollout] = {}
        self.run: Any = None
        self._errors = 0
        self.final_status = "finished"
        self._rollout = rollouts_on(plan.executor)
        width = pool_width(plan.concurrency)
        self.pool = run_pool(len(table.rows) * plan.repeats, width, program.most_calls(), self._step)

    async def __call__(self) -> Evaluation:
        """Run the rollouts and return the Evaluation, without rows that ``max_errors`` stopped from starting."""
        self.run = current_scope().open_run
        own = own_run(self)
        self.pool.run = own
        funds = None if self.plan.budget is None else Meter(self.plan.budget)
        if own is not None and funds is not None:
            own.fund(funds)
        with contextlib.nullcontext() if funds is None else Layer(None, funds=funds):
            check_prices(self.program, *self.plan.metrics.values())
            await self.pool
        return self._evaluation()

    def accepted_requests(self) -> AcceptedRequests:
        """What can be requested while the run is under way: a budget, and hints for each Refine in the program."""
        return takes_of_rows(self.program, self._is_unfinished, here=self._rollout is run_rollout)

    def _is_unfinished(self, row: int) -> bool:
        if not 0 <= row < len(self.table.rows):
            return False
        return any((row, repeat) not in self.done for repeat in range(self.plan.repeats))

    def partial(self) -> Evaluation | None:
        """The Evaluation of the rows that have ended; None if there is no such row."""
        return self._evaluation() if self.done else None

    def _evaluation(self) -> Evaluation:
        return Evaluation(self.table, self.done, self.plan, run=self.run)

    async def _step(self, number: int, funds: Allowance | None) -> None:
        repeat, row = divmod(number, len(self.table.rows))
        if (row, repeat) in self.done:
            return
        example = self.table.rows[row]
        inputs = inputs_of(self.program, example, self.input_names)
        current_scope().take(metric_calls=1)
        rollout = await self._rollout(
            self.program, example, inputs, self.plan.metrics, number=row, repeat=repeat, funds=funds
        )
        self.done[row, repeat] = rollout
        self._errors += rollout.ended.error is not None
        if self.plan.max_errors is not None and self._errors > self.plan.max_errors:
            self.final_status = "max_errors"
            self.pool.stop()

    def described(self) -> dict[str, Any]:
        """What the run records as its inputs: the number of rollouts."""
        return {"rows": len(self.table.rows) * self.plan.repeats}

    def settings(self) -> dict[str, Any]:
        """The settings that the run records. They must be the same when the run is resumed."""
        plan = self.plan
        return {
            "metric": ", ".join(plan.metrics),
            **recorded_settings(plan),
            "inputs": None if self.input_names is None else list(self.input_names),
            "data": self.table.fingerprint,
            "program": program_fingerprint(self.program),
            "models": models_of(self.program),
        }


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


def program_fingerprint(program: Module) -> str:
    """A hash, as 16 hex digits, of the program's settings, predictor paths, signatures, instructions and demos."""
    try:
        predictors: Any = program.dump_state()["predictors"]
    except StateError:  # demos that cannot be saved
        predictors = {path: [repr(p), p.instruction, plain(p.demos)] for path, p in program.named_predictors()}
    state = [program._title(), plain(program._run_settings()), predictors]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def models_of(program: Module) -> list[str]:
    """The names of the models that the program's predictors use, sorted and without duplicates."""
    names = set()
    for _, predictor in program.named_predictors():
        lm = getattr(predictor, "lm", None) or setting("lm")
        if lm:
            names.add(lm if isinstance(lm, str) else getattr(lm, "name", type(lm).__name__))
    return sorted(names)


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


def check_columns(program: Module, table: Table, names: Sequence[str] | None) -> Sequence[str] | None:
    """The names of the inputs that the rows have.

    ``names``: the inputs that the user named; None takes those that the rows mark, or else all that the program takes.
    Returns None if the rows mark their inputs, or if the program does not declare its inputs. Raises InputError if the
    program does not take a chosen input, or if the rows lack a required one.
    """
    accepted = program.input_names()
    marked = table.rows[0].input_names
    chosen = marked if names is None else names
    if chosen is not None and accepted is not None:
        _check_chosen(program, chosen, accepted)
    required_by_name = accepted if chosen is None else dict.fromkeys(chosen, True)
    if required_by_name is None:
        return None
    columns: set[str] = set()
    for row in table.rows:
        columns.update(row)
    for name, required in required_by_name.items():
        if required and column_of(program, name, columns) is None:
            raise InputError(
                f"the rows have no {name!r}, which {program._title()} takes.{nearest(name, columns)} "
                f"They have: {', '.join(sorted(columns))}"
            )
    if names is None and marked is not None:
        return None
    return [name for name in required_by_name if column_of(program, name, columns) is not None]


def _check_chosen(program: Module, chosen: Collection[str], accepted: Mapping[str, bool]) -> None:
    """Raise InputError if the program does not take a chosen input, or requires one that is not chosen."""
    for name in chosen:
        if name not in accepted:
            raise InputError(f"{program._title()} takes no input {name!r}.{nearest(name, accepted)}")
    for name, required in accepted.items():
        if required and name not in chosen:
            raise InputError(f"{program._title()} takes {name!r}, which is not among the inputs: {', '.join(chosen)}")


def paths_of(program: Module) -> dict[str, str]:
    """The path of each predictor by its uid."""
    return {predictor.uid: path for path, predictor in program.named_predictors()}
