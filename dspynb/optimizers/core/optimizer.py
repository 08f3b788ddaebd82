"""Optimizer: what all optimizers share. A strategy is a subclass with ``async def search(engine)``."""

from __future__ import annotations

import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast

from dspynb.aliases import Rows
from dspynb.data import Example, rows_of
from dspynb.errors import DataOverlapWarning, InputError
from dspynb.evaluation.evaluator import Table, check_columns, run_inside
from dspynb.evaluation.resuming import check_same_settings
from dspynb.events import plain
from dspynb.forecasting.forecast import Forecast
from dspynb.forecasting.probe import ProbeOption
from dspynb.keywords import absent_settings, configurable, recorded_settings
from dspynb.media.values import Medium
from dspynb.modules.function_program import checked_program
from dspynb.modules.module import Module
from dspynb.modules.predict import Predict
from dspynb.modules.scorer import Scorer
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.forecast import continued_run, forecast_search, new_run
from dspynb.optimizers.core.optimize_work import OptimizeWork
from dspynb.optimizers.core.problem import Problem
from dspynb.optimizers.core.resume_log import ResumeLog
from dspynb.optimizers.core.settings import (
    Configured,
    MetricOption,
    ModelOption,
    setting,
)
from dspynb.optimizers.names import COMPILE_OF_DSPY
from dspynb.options import NOT_RECORDED, Concurrency, Float, Int, PositiveInt
from dspynb.running.aio.sync import run_sync
from dspynb.running.executor import ExecutorOption
from dspynb.running.run import Run
from dspynb.running.store import run_file
from dspynb.scope.budget import BudgetOption, limits_of
from dspynb.scope.core import current_scope

M = TypeVar("M", bound=Module)

__all__ = ["Optimizer"]


class Optimizer(Configured, ABC):
    """Makes a better program: ``better = await COPRO(metric).compile(program, train, val=rows)``.

    ``metric(row, prediction) -> float | bool | Score``. ``budget``: of the whole run (see Budget); once it is spent,
    the best program so far is the result. ``seed``: the same seed, data and replies give the same result, whatever the
    timing. ``concurrency``: how many rollouts and proposals run at a time (default: the setting, 32).
    ``failure_score``: the score of a row that failed. ``prompt_lm``: the model that writes proposals (default: the
    program's). ``patience``: how many proposals may fail in a row before the run ends with an error. ``executor``:
    where rollouts run, such as a DaskExecutor; None is this process. Proposals are always made in this process.

    While the run of ``opt.start(…)`` is running, you can propose candidates (``run.propose``), drop or pin some, and
    change the budget. Requests take effect at its next step, and again at that step when the run is resumed (see
    ``run.steerable``).

    The program itself is not changed. Raises ConfigurationError for settings out of range, and OptimizerError where
    the program fails on every row, or ``patience`` proposals in a row fail.

    To write a strategy, make a subclass with ``search``. Its annotated attributes are settings too, as the fields of a
    dataclass are: with ``rounds: int = 3`` in the class, ``TryOne(metric, rounds=5)`` sets ``self.rounds``, and a run
    can only be resumed with the same value. ``__post_init__`` is called once the settings are set.

    >>> from dspynb.scope import Part
    >>> class TryOne(dn.Optimizer):  # a strategy
    ...     async def search(self, engine):
    ...         await engine.evaluate(engine.start)
    ...         await engine.evaluate(engine.candidate({"self": Part("Be brief.")}, origin="mine"))
    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> better = TryOne(dn.metrics.exact_match()).compile_sync(program, [{"question": "2+2?", "answer": "4"}])
    >>> dn.last_run().candidates[["origin", "score"]]
      origin  score
    0  start    1.0
    1   mine    1.0
    """

    kind: ClassVar[str] = "optimizer"
    shows_rows: ClassVar[bool] = False
    """Whether prompts for proposals show the values of rows."""
    metric: MetricOption = setting(kw_only=False)
    budget: BudgetOption | None = None
    seed: Int = 0
    concurrency: Concurrency = None
    failure_score: Float = 0.0
    prompt_lm: ModelOption = None
    patience: Annotated[PositiveInt, NOT_RECORDED] = 5
    executor: ExecutorOption = None

    # ── what a strategy writes ────────────────────────────────────────────────────────────────────────────────────────
    @abstractmethod
    async def search(self, engine: Engine) -> None:
        """Propose candidates and evaluate them with the engine. The best candidate of its leaderboard is the result."""

    def proposers(self) -> Mapping[str, Predict]:
        """The predictors that write proposals, by the name that tables show for them."""
        return {}

    def described(self) -> dict[str, Any]:
        """The settings that must be equal for a run to be resumed: those that are recorded.

        A strategy with an ``__init__`` adds the arguments of that.
        """
        return recorded_settings(self)

    def paths(self) -> Mapping[str, str]:
        """Predictor uid → path, of programs other than the one that is optimized."""
        return {}

    def parted(self, train: Sequence[Example], val: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Example]]:
        """Split rows into training and validation rows. Without validation rows, the training rows serve as both."""
        return train, val or train

    def scorer(self, program: Module) -> Scorer:  # noqa: ARG002
        """The metric that scores the program."""
        return cast("Scorer", self.metric)

    def retries_on(self, split: str) -> bool:  # noqa: ARG002
        """Whether Refines of the program retry in the rollouts of a split: train, val or test."""
        return True

    def first_step(self, task: Problem) -> int:
        """The metric calls of the first step: a smaller budget is refused."""
        return len(task.rows["val"])

    unit: ClassVar[str] = "candidate"
    """What a forecast counts: what a larger budget buys more of."""

    def count_units(self, engine: Engine, last_step: int) -> float:  # noqa: ARG002
        """How many of ``unit`` a search has made. ``last_step``: the highest step of its evaluations."""
        return len(engine.candidates) - 1

    def probed_split(self, problem: Problem) -> str:
        """The split of which a forecast runs a few rows with the program as it is, as the search does too."""
        return "val" if problem.rows["val"] else "train"

    # ── what users call ───────────────────────────────────────────────────────────────────────────────────────────────
    @configurable(renamed=COMPILE_OF_DSPY)
    async def compile(self, program: M, train: Rows, val: Rows | None = None, *, test: Rows | None = None) -> M:
        """Search for a better program, and return the best one as a new program. The original wins ties, unless the
        optimizer says otherwise.

        ``train``, ``val``, ``test``: a DataFrame, or a list of dicts or Examples. Without ``val`` (None or empty), the
        optimizer chooses the validation rows (see its docstring). The original and the best program are evaluated on
        ``test`` at the end, within the budget. Raises InputError for rows that do not fit the program.

        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> rows, opt = [{"question": "2+2?", "answer": "4"}], dn.BootstrapFewShot(dn.metrics.exact_match())
        >>> dn.run_sync(lambda: opt.compile(program, rows)).demos, program.demos
        ([{'question': '2+2?', 'answer': '4'}], [])
        """
        work = self._work(program, train, val, test)
        best: Any
        if current_scope().open_run is None:
            best = await self._run(work).watched(work)
        else:
            best = await run_inside(work, self.budget)
        return best  # type: ignore[no-any-return]  # a copy of the program

    @configurable(renamed=COMPILE_OF_DSPY)
    def compile_sync(self, program: M, train: Rows, val: Rows | None = None, *, test: Rows | None = None) -> M:
        """Compile synchronously and return the new program. For scripts; in a notebook, `await` compile instead."""
        return run_sync(lambda: self.compile(program, train, val, test=test))

    @configurable(renamed=COMPILE_OF_DSPY)
    def start(self, program: Module, train: Rows, val: Rows | None = None, *, test: Rows | None = None) -> Run:
        """Start the search; return its run at once. Display it, stop it, await it, steer it (see ``Run.propose``)."""
        work = self._work(program, train, val, test)
        return self._run(work).start(work)

    @configurable(renamed=COMPILE_OF_DSPY)
    def resume(
        self, run: str | Path, program: Module, train: Rows, val: Rows | None = None, *, test: Rows | None = None
    ) -> Run:
        """Resume a run that was stopped or lost, by its id or path. It ends as the uninterrupted run would have ended.

        No call or rollout in its file is made again. The budget counts them, so a larger budget searches further.
        Raises ConfigurationError, which names the differences, when program, rows or settings are not those of the run;
        JournalError when its file cannot be read or is damaged; RunInUse (a JournalError) while another run writes the
        file, in this process or in another.

        >>> dn.configure(runs_dir="runs")
        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> rows, opt = [{"question": "2+2?", "answer": "4"}], dn.BootstrapFewShot(dn.metrics.exact_match())
        >>> better = opt.compile_sync(program, rows)
        >>> resumed = dn.run_sync(lambda: opt.resume(dn.last_run().id, program, rows))
        >>> resumed.demos == better.demos, dn.last_run().usage.calls
        (True, 1)
        """
        work = self._work(program, train, val, test)
        resumed = Run.resumed(run_file(run), self.kind, work.program._title(), work.inputs(), work.paths())
        with resumed.released_on_error():
            if resumed._settings:
                check_same_settings(resumed._settings, work.settings(), absent_settings(type(self)))
            resumed._settings = work.settings()
            resumed.limits = limits_of(self.budget)
            work.resume_log = ResumeLog.from_record(resumed.record)
            return resumed.start(work)

    @configurable(renamed=COMPILE_OF_DSPY)
    async def forecast(
        self,
        program: Module,
        train: Rows,
        val: Rows | None = None,
        *,
        test: Rows | None = None,
        probe: ProbeOption = None,
    ) -> Forecast:
        """Foresee what ``compile`` with the same arguments will cost, and return a Forecast: rollouts, calls, tokens,
        USD and minutes, each with an 80 % interval, and what a budget buys.

        The search itself is tried a number of times on made-up results, without a call of a model, with the budget and
        the settings of this optimizer. ``probe``: on how many validation rows the program is run to see what a rollout
        costs, 5 by default. They are rollouts of the search itself: this optimizer has their results when it compiles
        the same program on the same rows, and its budget counts them. 0 makes no call; then the forecast rests on
        earlier runs of the program in the folder of runs, else on a guess, which it says. Raises ConfigurationError for
        a probe larger than the rows or a budget that is too small, and the errors of a call.

        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> rows = [{"question": f"{n}+{9 - n}?", "answer": str(n % 3)} for n in range(9)]
        >>> opt = dn.GEPA(dn.metrics.exact_match(), budget=dn.Budget(metric_calls=60))
        >>> forecast = dn.run_sync(lambda: opt.forecast(program, rows, probe=3))
        >>> forecast.unit, forecast.run.usage.calls, forecast.rollouts.point <= 60
        ('mutation', 3, True)
        """
        work = OptimizeWork(self, program, self._problem(program, train, val, test))
        return await forecast_search(work, probe)

    def _run(self, work: OptimizeWork) -> Run:
        run = continued_run(work) or new_run(work)
        run.limits = limits_of(self.budget)
        return run

    def _work(self, program: object, train: Rows, val: Rows | None, test: Rows | None) -> OptimizeWork:
        module = checked_program(program)
        return OptimizeWork(self, module, self._problem(module, train, val, test))

    def _problem(self, program: Module, train: Rows, val: Rows | None, test: Rows | None) -> Problem:
        if not program.named_predictors():
            raise InputError(
                f"{program._title()} has no predictors, so there is nothing to optimize; those that it creates while "
                "it runs cannot be found"
            )
        rows: dict[str, Sequence[Example]] = {}
        for split, table in (("train", train), ("val", val), ("test", test)):
            rows[split] = [] if table is None else rows_of(table)
        if not rows["train"]:
            raise InputError("there are no training rows")
        _warn_of_overlap(rows)
        if self.shows_rows:
            _warn_of_media(program, rows["train"])
        train_rows, val_rows = self.parted(rows["train"], rows["val"])
        rows["train"] = list(train_rows)
        rows["val"] = list(val_rows)
        names = [check_columns(program, Table(table, None, ""), None) for table in rows.values() if table]
        retries = {split: self.retries_on(split) for split in rows}
        scorer = self.scorer(program)
        return Problem(program, rows, names[0], {scorer.name: scorer}, float(self.failure_score), retries)


def _warn_of_overlap(rows: Mapping[str, Sequence[Example]]) -> None:
    """Warn where validation or test rows are among the rows of another split."""
    keys = {split: set(map(_row_key, split_rows)) for split, split_rows in rows.items()}
    for split, other in (("val", "train"), ("test", "train"), ("test", "val")):
        common = len(keys[split] & keys[other])
        if common:
            warnings.warn(
                f"{common} of the {split} rows are among the {other} rows: scores on them may be too high; use others",
                DataOverlapWarning,
                stacklevel=4,
            )


def _warn_of_media(program: Module, rows: Sequence[Example]) -> None:
    """Warn where rows have images or files: prompts for proposals are text."""
    fields = {name for _, predictor in program.named_predictors() for name in predictor.signature.input_fields}
    with_media = sorted({name for row in rows for name, value in row.items() if isinstance(value, Medium)} & fields)
    if with_media:
        warnings.warn(
            f"the rows have images or files ({', '.join(with_media)}): the model that proposes instructions sees their "
            "descriptions only",
            stacklevel=4,
        )


def _row_key(row: Example) -> str:
    return json.dumps(plain(row.to_dict()), sort_keys=True, default=repr)
