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
from dspynb.keywords import absent_settings, configurable, recorded_settings
from dspynb.modules.module import Module, checked_program
from dspynb.modules.predict import Predict
from dspynb.modules.scorer import Scorer
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.optimize_work import OptimizeWork
from dspynb.optimizers.core.resume_log import Memory
from dspynb.optimizers.core.settings import (
    Configured,
    MetricOption,
    ModelOption,
    setting,
)
from dspynb.optimizers.core.task import Task
from dspynb.optimizers.names import COMPILE_OF_DSPY
from dspynb.options import NOT_RECORDED, Concurrency, Float, Int, PositiveInt
from dspynb.running.aio.sync import run_sync
from dspynb.running.executor import ExecutorOption
from dspynb.running.run import Run
from dspynb.running.store import run_file
from dspynb.scope.budget import BudgetOption
from dspynb.scope.core import current_scope

M = TypeVar("M", bound=Module)

__all__ = ["Optimizer"]


class Optimizer(Configured, ABC):
    """Makes a better program: ``better = await COPRO(metric).compile(program, train, val=rows)``.

    ``metric(row, prediction) -> float | bool | Score``. ``budget``: of the whole run (see Budget); once it is spent,
    the best so far is the result. ``seed``: the same seed, data and replies give the same result, whatever the timing.
    ``concurrency``: rollouts and proposals at a time (default: the setting, 32). ``failure_score``: what a row counts
    that failed. ``prompt_lm``: the model that writes proposals (default: the program's). ``patience``: proposals that
    may fail in a row before the run ends with an error. ``executor``: where rollouts run, a DaskExecutor; None is this
    process, where proposals are made in any case.

    While it runs, ``opt.start(…)``'s run takes candidates of yours (``run.propose``), drops or pins some, and another
    budget: at its next step, and again at that step when it is resumed (see ``run.steerable``).

    The program itself stays as it is. Raises ConfigurationError for settings out of range, and OptimizerError where
    the program fails on every row, or ``patience`` proposals in a row fail.

    A strategy of your own is a subclass with ``search``. Its annotated attributes are settings too, as the fields of a
    dataclass are: with ``rounds: int = 3`` in the class, ``TryOne(metric, rounds=5)`` sets ``self.rounds``, and a run
    is resumed with the same value only. ``__post_init__`` is called once the settings are there.

    >>> from dspynb.scope import Part
    >>> class TryOne(dn.Optimizer):  # a strategy of your own
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
    metric: MetricOption = setting(kw_only=False)
    budget: BudgetOption | None = None
    seed: Int = 0
    concurrency: Concurrency = None
    failure_score: Float = 0.0
    prompt_lm: ModelOption = None
    patience: Annotated[PositiveInt, NOT_RECORDED] = 5
    executor: ExecutorOption = None

    # ── what a strategy writes ────────────────────────────────────────────────────────────────────────────────────
    @abstractmethod
    async def search(self, engine: Engine) -> None:
        """Propose candidates and have them evaluated; what is the best of them the engine knows."""

    def proposers(self) -> Mapping[str, Predict]:
        """The predictors that write proposals, by the name that tables show."""
        return {}

    def described(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed: the settings that are recorded.

        A strategy with an ``__init__`` of its own adds what that takes.
        """
        return recorded_settings(self)

    def paths(self) -> Mapping[str, str]:
        """Predictor uid → path, of other programs that are run."""
        return {}

    def parted(self, train: Sequence[Example], val: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Example]]:
        """The rows to learn from and those to judge by. Without validation rows, the training rows serve as both."""
        return train, val or train

    def scorer(self, program: Module) -> Scorer:  # noqa: ARG002
        """The metric by which a program is judged."""
        return cast("Scorer", self.metric)

    def retries_on(self, split: str) -> bool:  # noqa: ARG002
        """Whether the program's Refines retry in the rollouts of a split: train, val or test."""
        return True

    def first_step(self, task: Task) -> int:
        """How many metric calls the first step takes, below which nothing can be said."""
        return len(task.rows["val"])

    # ── what users call ───────────────────────────────────────────────────────────────────────────────────────────
    @configurable(renamed=COMPILE_OF_DSPY)
    async def compile(self, program: M, train: Rows, val: Rows | None = None, *, test: Rows | None = None) -> M:
        """A new program, the best that was found; the original wins ties, unless the optimizer says otherwise.

        ``train``, ``val``, ``test``: a DataFrame, or a list of dicts or Examples. Without ``val`` (None or empty),
        the optimizer's own rule holds (see its docstring). On ``test`` the start and the winner are evaluated at the
        end, within the budget. Raises InputError for rows that do not fit the program.

        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> rows, opt = [{"question": "2+2?", "answer": "4"}], dn.BootstrapFewShot(dn.metrics.exact_match())
        >>> dn.run_sync(lambda: opt.compile(program, rows)).demos, program.demos
        ([{'question': '2+2?', 'answer': '4'}], [])
        """
        work = OptimizeWork(self, program, self._task(program, train, val, test))
        inner = current_scope().open_run is not None
        best: Any = await (run_inside(work, self.budget) if inner else self._run(work).watched(work))
        return best  # type: ignore[no-any-return]  # a copy of the program

    @configurable(renamed=COMPILE_OF_DSPY)
    def compile_sync(self, program: M, train: Rows, val: Rows | None = None, *, test: Rows | None = None) -> M:
        """Compile synchronously and return the new program. For scripts; in a notebook, `await` compile instead."""
        return run_sync(lambda: self.compile(program, train, val, test=test))

    @configurable(renamed=COMPILE_OF_DSPY)
    def start(self, program: Module, train: Rows, val: Rows | None = None, *, test: Rows | None = None) -> Run:
        """The same work as a handle: returns at once; display it, stop it, await it, steer it (see ``Run.propose``)."""
        work = OptimizeWork(self, program, self._task(program, train, val, test))
        return self._run(work).start(work)

    @configurable(renamed=COMPILE_OF_DSPY)
    def resume(
        self, run: str | Path, program: Module, train: Rows, val: Rows | None = None, *, test: Rows | None = None
    ) -> Run:
        """Go on with a run that was stopped or lost, by its id or path, to where it would have come.

        No call or rollout that its file holds is made again; the budget counts them, so a larger one goes on further.
        Raises ConfigurationError, naming what differs, when program, rows or settings are not those of the run;
        JournalError when its file cannot be read or is damaged, RunInUse (one of them) while another run, in whatever
        process, writes it.

        >>> dn.configure(runs_dir="runs")
        >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> rows, opt = [{"question": "2+2?", "answer": "4"}], dn.BootstrapFewShot(dn.metrics.exact_match())
        >>> better = opt.compile_sync(program, rows)
        >>> again = dn.run_sync(lambda: opt.resume(dn.last_run().id, program, rows))
        >>> again.demos == better.demos, dn.last_run().usage.calls
        (True, 1)
        """
        task = self._task(program, train, val, test)
        work = OptimizeWork(self, program, task)
        resumed = Run.resumed(run_file(run), self.kind, program._title(), work.inputs(), work.paths())
        with resumed.released_on_error():
            if resumed._settings:
                check_same_settings(resumed._settings, work.settings(), absent_settings(type(self)))
            resumed._settings = work.settings()
            work.memory = Memory.of(resumed.record)
            return resumed.start(work)

    def _run(self, work: OptimizeWork) -> Run:
        return Run(self.kind, work.program._title(), work.inputs(), work.paths(), work.settings())

    def _task(self, program: Module, train: Any, val: Any, test: Any) -> Task:
        checked_program(program)
        if not program.named_predictors():
            raise InputError(f"{program._title()} has no predictors, so there is nothing to optimize")
        given = {
            name: [] if rows is None else rows_of(rows) for name, rows in zip(_SPLITS, (train, val, test), strict=True)
        }
        if not given["train"]:
            raise InputError("there are no training rows")
        _warn_of_overlap(given)
        learned, judged = self.parted(given["train"], given["val"])
        rows = {"train": list(learned), "val": list(judged), "test": given["test"]}
        names = [check_columns(program, Table(listed, None, ""), None) for listed in rows.values() if listed]
        retries = {split: self.retries_on(split) for split in _SPLITS}
        scorer = self.scorer(program)
        return Task(program, rows, names[0], {scorer.name: scorer}, float(self.failure_score), retries)


_SPLITS = ("train", "val", "test")


def _warn_of_overlap(given: Mapping[str, Sequence[Example]]) -> None:
    keys = {name: {_row_key(row) for row in rows} for name, rows in given.items()}
    for judged, learned in (("val", "train"), ("test", "train"), ("test", "val")):
        if common := len(keys[judged] & keys[learned]):
            warnings.warn(
                f"{common} of the {judged} rows are among the {learned} rows: scores on them may be too high; "
                "use others",
                DataOverlapWarning,
                stacklevel=4,
            )


def _row_key(row: Example) -> str:
    return json.dumps(plain(row.to_dict()), sort_keys=True, default=repr)
