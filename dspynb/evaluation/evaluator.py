"""Evaluate: a program over rows, scored by a metric."""

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
from dspynb.evaluation.resuming import check_same
from dspynb.evaluation.rollouts import Rollout, rollouts_on, run_rollout
from dspynb.evaluation.settings import OF_THE_CALL, SETTINGS_OF_EVALUATE, ColumnNames, ErrorLimit, EvaluateSettings
from dspynb.events import plain
from dspynb.keywords import absent_settings, configurable, recorded_settings, settings_repr
from dspynb.modules.batch import column_of, inputs_of, own_run, takes_of_rows
from dspynb.modules.module import Module, checked_program
from dspynb.modules.ordered_pool import pool_width, run_pool
from dspynb.modules.scorer import Scorer
from dspynb.options import Concurrency, Float, PositiveInt
from dspynb.running.aio.sync import run_sync
from dspynb.running.control import AcceptedRequests
from dspynb.running.executor import ExecutorOption
from dspynb.running.run import Run
from dspynb.running.store import run_file
from dspynb.scope.budget import Allowance, Budget, BudgetOption, Meter
from dspynb.scope.core import Layer, current_scope
from dspynb.scope.settings import setting

__all__ = [
    "Evaluate",
    "EvaluateWork",
    "Table",
    "check_columns",
    "evaluate",
    "inside",
    "models_of",
    "paths_of",
    "program_fingerprint",
    "table_of",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows to evaluate on, and the index that their frame had (None where they were in no frame)."""

    rows: Sequence[Example]
    index: Any
    fingerprint: str


def table_of(rows: Rows) -> Table:
    """Rows from a DataFrame, or a list of dicts or Examples. Raises InputError."""
    listed = rows_of(rows)
    if not listed:
        raise InputError("there are no rows to evaluate on")
    return Table(listed, rows.index if hasattr(rows, "columns") else None, fingerprint(listed))


class Evaluate:
    """Runs a program on rows and scores each: ``await Evaluate(metric)(program, rows)`` gives an Evaluation.

    ``metric(row, prediction) -> float | bool | Score``, sync or async; it gets ``trace=`` if it has that parameter. A
    dict or list of metrics is scored together; the first is the score. ``inputs``: names of the columns that the
    program gets (default: those it takes; the others are labels). ``concurrency``: rows at a time (default: the
    setting, 32). ``repeats``: rollouts of every row. ``failure_score``: what a row counts that failed, in the mean.
    ``max_errors``: rows that may fail before no further row starts. ``budget``: of this evaluation. ``executor``: where
    rollouts run, a DaskExecutor; None is this process.

    Raises ConfigurationError for settings out of range, InputError for rows that do not fit the program.

    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> rows = [{"question": "2+2?", "answer": "4"}, {"question": "2+3?", "answer": "5"}]
    >>> judge = dn.Evaluate({"right": dn.metrics.exact_match(), "brief": dn.metrics.word_count("answer", at_most=3)})
    >>> {name: float(score) for name, score in judge.run_sync(program, rows).scores.items()}
    {'right': 0.5, 'brief': 1.0}
    """

    @configurable(renamed=SETTINGS_OF_EVALUATE)
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
        self.concurrency, self.repeats, self.failure_score = concurrency, repeats, float(failure_score)
        self.max_errors, self.budget, self.executor = max_errors, budget, executor

    def __repr__(self) -> str:
        return settings_repr(self, ", ".join(self.metrics))

    @configurable(renamed=OF_THE_CALL)
    async def __call__(self, program: Module, rows: Rows) -> Evaluation:
        """Evaluate, with a live view in a notebook; inside another run, as part of it."""
        work = EvaluateWork(self, program, table_of(rows))
        if current_scope().open_run is not None:
            return await inside(work, self.budget)
        return await self._run(work).watched(work)  # type: ignore[no-any-return]

    @configurable(renamed=OF_THE_CALL)
    def start(self, program: Module, rows: Rows) -> Run:
        """The same work as a handle: returns at once; display it, stop it, await it.

        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> async def main():
        ...     run = dn.Evaluate(dn.metrics.exact_match()).start(program, [{"question": "2+2?", "answer": "4"}])
        ...     return float(await run), run.status
        >>> dn.run_sync(main)
        (1.0, 'finished')
        """
        work = EvaluateWork(self, program, table_of(rows))
        return self._run(work).start(work)

    @configurable(renamed=OF_THE_CALL)
    def run_sync(self, program: Module, rows: Rows) -> Evaluation:
        """The same, waited for: for scripts."""
        return run_sync(lambda: self(program, rows))

    @configurable(renamed=OF_THE_CALL)
    def resume(self, run: str | Path, program: Module, rows: Rows, *, retry_failed: bool = False) -> Run:
        """Go on with a run that was stopped or lost, by its id or path: only rows that its file lacks are run.

        ``retry_failed``: also those that failed. ``budget`` and ``max_errors`` count anew. Raises ConfigurationError,
        naming what differs, when program, rows or settings are not those of the run; JournalError when its file cannot
        be read or is damaged, RunInUse (one of them) while another run, in whatever process, writes it.

        >>> dn.configure(runs_dir="runs")
        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> rows = [{"question": "2+2?", "answer": "4"}, {"question": "2+3?", "answer": "5"}]
        >>> first = dn.Evaluate(dn.metrics.exact_match(), budget=dn.Budget(metric_calls=1)).run_sync(program, rows)
        >>> whole = dn.run_sync(lambda: dn.Evaluate(dn.metrics.exact_match()).resume(first.run.id, program, rows))
        >>> len(first), len(whole)
        (1, 2)
        """
        work = EvaluateWork(self, program, table_of(rows))
        resumed = Run.resumed(run_file(run), "evaluate", program._title(), work.described(), paths_of(program))
        with resumed.released_on_error():
            if resumed._settings:
                check_same(resumed._settings, work.settings(), absent_settings(type(self)))
            resumed._settings = work.settings()  # of one that was lost before it had told anything
            for ended in resumed.record.rollouts:
                if not (retry_failed and ended.error):
                    work.done[ended.row, ended.repeat] = Rollout(ended)
            return resumed.start(work)

    def _run(self, work: EvaluateWork) -> Run:
        program = work.program
        return Run("evaluate", program._title(), work.described(), paths_of(program), work.settings())


class EvaluateWork:
    """An evaluation as the work of a run. When it is halted, the rows so far are its result."""

    def __init__(self, plan: Evaluate, program: Module, table: Table) -> None:
        checked_program(program)
        self.plan, self.program, self.table = plan, program, table
        self.names = check_columns(program, table, plan.inputs)
        self.done: dict[tuple[int, int], Rollout] = {}
        self.run: Any = None
        self._errors = 0
        self._rollout = rollouts_on(plan.executor)
        width = pool_width(plan.concurrency)
        self.pool = run_pool(len(table.rows) * plan.repeats, width, program.most_calls(), self._step)

    async def __call__(self) -> Evaluation:
        """The evaluation of all rows, or of those before ``max_errors``."""
        self.run, own = current_scope().open_run, own_run(self)
        self.pool.run = own
        funds = None if self.plan.budget is None else Meter(self.plan.budget)
        if own is not None and funds is not None:
            own.fund(funds)
        with contextlib.nullcontext() if funds is None else Layer(None, funds=funds):
            await self.pool
        return self._evaluation()

    def accepted_requests(self) -> AcceptedRequests:
        """A budget, and hints for the Refines in the program."""
        return takes_of_rows(self.program, self._open, here=self._rollout is run_rollout)

    def _open(self, row: int) -> bool:
        repeats = range(self.plan.repeats)
        return 0 <= row < len(self.table.rows) and any((row, repeat) not in self.done for repeat in repeats)

    def partial(self) -> Evaluation | None:
        """The rows so far; None where there is none."""
        return self._evaluation() if self.done else None

    def _evaluation(self) -> Evaluation:
        return Evaluation(self.table, self.done, self.plan, run=self.run)

    async def _step(self, number: int, funds: Allowance | None) -> None:
        repeat, row = divmod(number, len(self.table.rows))
        if (row, repeat) in self.done:
            return
        example = self.table.rows[row]
        inputs = inputs_of(self.program, example, self.names)
        current_scope().take(metric_calls=1)
        rollout = await self._rollout(
            self.program, example, inputs, self.plan.metrics, number=row, repeat=repeat, funds=funds
        )
        self.done[row, repeat] = rollout
        self._errors += rollout.ended.error is not None
        if self.plan.max_errors is not None and self._errors > self.plan.max_errors:
            self.pool.stop()

    def described(self) -> dict[str, Any]:
        """What the run's record says of its inputs."""
        return {"rows": len(self.table.rows) * self.plan.repeats}

    def settings(self) -> dict[str, Any]:
        """What must be the same for a run to be gone on with."""
        plan = self.plan
        return {
            "metric": ", ".join(plan.metrics),
            **recorded_settings(plan),
            "inputs": list(self.names) if self.names is not None else None,
            "data": self.table.fingerprint,
            "program": program_fingerprint(self.program),
            "models": models_of(self.program),
        }


class _Work(Protocol[T_co]):
    def __call__(self) -> Awaitable[T_co]: ...

    def partial(self) -> T_co | None: ...


async def inside(work: _Work[T], budget: Budget | None) -> T:
    """The work as part of the run that is open. Where its own budget is spent it comes to what there is; where the one
    around it is, the run ends."""
    try:
        return await work()
    except BudgetExhausted:
        so_far = work.partial()
        if budget is None or so_far is None:
            raise
        scope = current_scope()
        scope.take(1, metric_calls=1)  # raises where nothing is left around it
        scope.give_back(1, metric_calls=1)
        return so_far


@configurable(passes_to=Evaluate.__init__, renamed={**SETTINGS_OF_EVALUATE, "devset": "rows", "dataset": "rows"})
async def evaluate(program: Module, rows: Rows, metric: Metrics, **settings: Unpack[EvaluateSettings]) -> Evaluation:
    """``await evaluate(program, rows, metric)``: see Evaluate for the settings and the errors.

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
    """16 hex digits of the program's settings and predictors: paths, signatures, instructions and demos."""
    try:
        predictors: Any = program.dump_state()["predictors"]
    except StateError:  # demos that cannot be saved
        predictors = {path: [repr(p), p.instruction, plain(p.demos)] for path, p in program.named_predictors()}
    state = [program._title(), plain(program._run_settings()), predictors]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def models_of(program: Module) -> list[str]:
    """The names of the models that the program's predictors ask."""
    models = [getattr(predictor, "lm", None) or setting("lm") for _, predictor in program.named_predictors()]
    return sorted({lm if isinstance(lm, str) else getattr(lm, "name", type(lm).__name__) for lm in models if lm})


def _scorers(metric: Any) -> dict[str, Scorer]:
    if isinstance(metric, Mapping):
        found = {str(name): Scorer(fn, "metric") for name, fn in metric.items()}
    elif isinstance(metric, list | tuple):
        listed = [Scorer(fn, "metric") for fn in metric]
        found = {scorer.name: scorer for scorer in listed}
        if len(found) < len(listed):
            raise ConfigurationError("two metrics have the same name; give a dict of name to metric")
    else:
        scorer = Scorer(metric, "metric")
        found = {scorer.name: scorer}
    if not found:
        raise ConfigurationError("give at least one metric: a function of (row, prediction)")
    return found


def check_columns(program: Module, table: Table, names: Sequence[str] | None) -> Sequence[str] | None:
    """The names of the inputs, where they are known. Raises InputError for one that no row has."""
    takes, marked = program.input_names(), table.rows[0].input_names
    chosen = names if names is not None else marked
    if chosen is not None and takes is not None:
        _check_chosen(program, chosen, takes)
    wanted = takes if chosen is None else dict.fromkeys(chosen, True)
    if wanted is None:
        return None
    there = {name for row in table.rows for name in row}
    for name, required in wanted.items():
        if required and column_of(program, name, there) is None:
            raise InputError(
                f"the rows have no {name!r}, which {program._title()} takes.{nearest(name, there)} "
                f"They have: {', '.join(sorted(there))}"
            )
    known = [name for name in wanted if column_of(program, name, there) is not None]
    return None if names is None and marked is not None else known


def _check_chosen(program: Module, chosen: Collection[str], takes: Mapping[str, bool]) -> None:
    """Raise InputError where the inputs that were named are not those that the program takes."""
    for name in chosen:
        if name not in takes:
            raise InputError(f"{program._title()} takes no input {name!r}.{nearest(name, takes)}")
    for name, required in takes.items():
        if required and name not in chosen:
            raise InputError(f"{program._title()} takes {name!r}, which is not among the inputs: {', '.join(chosen)}")


def paths_of(program: Module) -> dict[str, str]:
    """Predictor uid → path."""
    return {predictor.uid: path for path, predictor in program.named_predictors()}
