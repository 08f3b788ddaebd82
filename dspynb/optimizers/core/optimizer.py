"""Optimizer: what all optimizers share. A strategy is a subclass with ``async def search(engine)``."""

from __future__ import annotations

import json
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypedDict, TypeVar, Unpack

from dspynb.aliases import Rows
from dspynb.data import Example, rows_of
from dspynb.errors import BudgetExhausted, ConfigurationError, DataOverlapWarning, InputError
from dspynb.evaluation.data_io.splitting import fingerprint
from dspynb.evaluation.evaluator import (
    Table,
    check_columns,
    inside,
    models_of,
    paths_of,
    program_fingerprint,
)
from dspynb.evaluation.resuming import check_same, defaults_of
from dspynb.events import plain
from dspynb.keywords import parameters_of, refuse_unknown, with_known_keywords
from dspynb.lm.resolve import check_lm
from dspynb.modules.batch import own_run
from dspynb.modules.metric_call import Scorer, source_of
from dspynb.modules.module import Module, checked_program
from dspynb.modules.ordered_pool import checked_width
from dspynb.modules.predict import Predict
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine
from dspynb.optimizers.core.interventions import ACTIONS, Guide
from dspynb.optimizers.core.resume_log import Memory
from dspynb.optimizers.core.task import Task
from dspynb.optimizers.names import COMPILE_OF_DSPY, OPTIMIZER_OF_DSPY
from dspynb.running.aio.sync import run_sync
from dspynb.running.control import Takes
from dspynb.running.executor import Executor, elsewhere
from dspynb.running.run import Run
from dspynb.running.store import run_file
from dspynb.scope.budget import Budget, Meter
from dspynb.scope.core import Layer, current_scope
from dspynb.score import as_float

M = TypeVar("M", bound=Module)

__all__ = ["Common", "Optimizer", "checked_bool", "checked_number", "checked_whole", "name_of"]


class Common(TypedDict, total=False):
    """The settings that every optimizer takes; see Optimizer."""

    budget: Budget | None
    seed: int
    concurrency: int | None
    failure_score: float
    prompt_lm: Any
    patience: int
    executor: Executor | None


class Optimizer(ABC):
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
    absent: ClassVar[Mapping[str, Any]] = {}
    """What a setting counts as in a run file that was written before there was such a setting, by the name in the file;
    its default where it is not named here."""

    def __init__(self, metric: Any, **common: Unpack[Common]) -> None:
        unknown = set(common).difference(Common.__annotations__)
        if unknown:
            known = parameters_of(type(self).__init__).union(Common.__annotations__) - unknown
            refuse_unknown(type(self).__name__, unknown, known, OPTIMIZER_OF_DSPY)
        self.metric = Scorer(metric, "metric")
        self.budget, self.seed = common.get("budget"), common.get("seed", 0)
        self.concurrency, self.prompt_lm = common.get("concurrency"), common.get("prompt_lm")
        self.failure_score, self.patience = as_float(common.get("failure_score", 0.0)), common.get("patience", 5)
        self.executor = common.get("executor")
        elsewhere(self.executor, self.compile)  # raises for what is no executor
        if self.budget is not None and not isinstance(self.budget, Budget):
            raise ConfigurationError(f"budget must be a dn.Budget, got {type(self.budget).__name__}")
        check_lm(self.prompt_lm)
        if self.concurrency is not None:
            checked_width(self.concurrency)
        checked_whole("seed", self.seed, least=None)
        checked_whole("patience", self.patience)
        checked_number("failure_score", self.failure_score)

    # ── what a strategy writes ────────────────────────────────────────────────────────────────────────────────────
    @abstractmethod
    async def search(self, engine: Engine) -> None:
        """Propose candidates and have them evaluated; what is the best of them the engine knows."""

    def proposers(self) -> Mapping[str, Predict]:
        """The predictors that write proposals, by the name that tables show."""
        return {}

    def _absent(self) -> dict[str, Any]:
        return {"seed": 0, "failure_score": 0.0, **defaults_of(type(self)), **self.absent}

    def described(self) -> dict[str, Any]:
        """The strategy's own settings: a run can be gone on with only if they are the same."""
        return {}

    def paths(self) -> Mapping[str, str]:
        """Predictor uid → path, of other programs that are run."""
        return {}

    def parted(self, train: Sequence[Example], val: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Example]]:
        """The rows to learn from and those to judge by. Without validation rows, the training rows serve as both."""
        return train, val or train

    def scorer(self, program: Module) -> Scorer:  # noqa: ARG002
        """The metric by which a program is judged."""
        return self.metric

    def settings_of(self, split: str) -> Mapping[str, Any]:  # noqa: ARG002
        """Settings in force for the rollouts of a split: train, val or test."""
        return {}

    def first_step(self, task: Task) -> int:
        """How many metric calls the first step takes, below which nothing can be said."""
        return len(task.rows["val"])

    # ── what users call ───────────────────────────────────────────────────────────────────────────────────────────
    @with_known_keywords(renamed=COMPILE_OF_DSPY)
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
        best: Any = await (inside(work, self.budget) if inner else self._run(work).watched(work))
        return best  # type: ignore[no-any-return]  # a copy of the program

    @with_known_keywords(renamed=COMPILE_OF_DSPY)
    def compile_sync(self, program: M, train: Rows, val: Rows | None = None, *, test: Rows | None = None) -> M:
        """Compile synchronously and return the new program. For scripts; in a notebook, `await` compile instead."""
        return run_sync(lambda: self.compile(program, train, val, test=test))

    @with_known_keywords(renamed=COMPILE_OF_DSPY)
    def start(self, program: Module, train: Rows, val: Rows | None = None, *, test: Rows | None = None) -> Run:
        """The same work as a handle: returns at once; display it, stop it, await it, steer it (see ``Run.propose``)."""
        work = OptimizeWork(self, program, self._task(program, train, val, test))
        return self._run(work).start(work)

    @with_known_keywords(renamed=COMPILE_OF_DSPY)
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
                check_same(resumed._settings, work.settings(), self._absent())
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
        settings, scorer = {split: self.settings_of(split) for split in _SPLITS}, self.scorer(program)
        return Task(program, rows, names[0], {scorer.name: scorer}, float(self.failure_score), settings)


class OptimizeWork:
    """An optimizer's search as the work of a run: when it is halted, the best program so far is its result."""

    def __init__(self, optimizer: Optimizer, program: Module, task: Task) -> None:
        self.optimizer, self.program, self.task, self.memory = optimizer, program, task, Memory()
        self.engine: Engine | None = None
        self._held = _HeldBack(task)
        self._width = checked_width(optimizer.concurrency)
        Candidate().applied(program)  # now: at the end, one that cannot be copied would have cost much
        _check_budget(optimizer, task)

    async def __call__(self) -> Module:
        """The best program."""
        budget, own = self.optimizer.budget, own_run(self)
        funds = None if budget is None else Meter(budget)
        if own is not None and funds is not None:
            own.fund(funds)
        self._layer = Layer(None, funds=funds, settings={"resuming": self.memory})
        with self._layer:
            await self._search(Guide(own, self._refund))
        best = self.partial()
        return self.program if best is None else best

    def takes(self) -> Takes:
        """What a person may ask of the search."""
        return Takes(ACTIONS, [path for path, _ in self.program.named_predictors()])

    def partial(self) -> Module | None:
        """The best program so far; None before anything is known."""
        return None if self.engine is None else self.engine.best.applied(self.program)

    async def _search(self, guide: Guide) -> None:
        self.engine = engine = Engine(
            self.task,
            seed=self.optimizer.seed,
            width=self._width,
            patience=self.optimizer.patience,
            memory=self.memory,
            guide=guide,
            executor=self.optimizer.executor,
        )
        self._held.take()
        spent: BudgetExhausted | None = None
        try:
            await self.optimizer.search(engine)
            await guide.follow_up(engine)
        except BudgetExhausted as error:
            spent = error
            await engine.settle()
        finally:
            guide.finish(engine)
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
            "seed": optimizer.seed,
            "failure_score": self.task.failure_score,
            "prompt_lm": name_of(optimizer.prompt_lm),
            **{name: fingerprint(rows) if rows else None for name, rows in self.task.rows.items()},
            "program": program_fingerprint(self.program),
            "models": models_of(self.program),
            **plain(optimizer.described()),
        }


_SPLITS = ("train", "val", "test")


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
    with Layer(None, settings=task.settings.get("test")):
        return {"metric_calls": rollouts, "calls": rollouts * task.program.most_calls()}


def name_of(lm: Any) -> str | None:
    """A model's name, as settings hold it."""
    return lm if lm is None or isinstance(lm, str) else str(getattr(lm, "name", type(lm).__name__))


def checked_whole(name: str, value: Any, least: int | None = 1) -> None:
    """Raise ConfigurationError for what is no whole number, or below ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        at = "" if least is None else f" of at least {least}"
        raise ConfigurationError(f"{name} must be a whole number{at}, got {value!r}")


def checked_bool(name: str, value: Any) -> None:
    """Raise ConfigurationError for what is neither True nor False."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, got {value!r}")


def checked_number(name: str, value: Any, least: float = -math.inf) -> None:
    """Raise ConfigurationError for what is no finite number, or below ``least``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < least:
        at = "" if least == -math.inf else f" of at least {least:g}"
        raise ConfigurationError(f"{name} must be a finite number{at}, got {value!r}")


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


def _warn_of_overlap(given: Mapping[str, Sequence[Example]]) -> None:
    keys = {name: {_row_key(row) for row in rows} for name, rows in given.items()}
    for judged, learned in (("val", "train"), ("test", "train"), ("test", "val")):
        if common := len(keys[judged] & keys[learned]):
            warnings.warn(
                f"{common} of the {judged} rows are among the {learned} rows: scores on them may be too high",
                DataOverlapWarning,
                stacklevel=4,
            )


def _row_key(row: Example) -> str:
    return json.dumps(plain(row.to_dict()), sort_keys=True, default=repr)
