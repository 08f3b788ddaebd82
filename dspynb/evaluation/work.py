"""The work of an evaluation: its rows, and the rollouts that have ended."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspynb.aliases import Rows
from dspynb.data import Example, rows_of
from dspynb.errors import InputError, RunStopped, nearest
from dspynb.evaluation.data_io.splitting import fingerprint
from dspynb.evaluation.result import Evaluation
from dspynb.evaluation.rollouts import Rollout, rollouts_on, run_rollout
from dspynb.keywords import recorded_settings
from dspynb.modules.batch import column_of, inputs_of, own_run, takes_of_rows
from dspynb.modules.fingerprint import models_of, program_fingerprint
from dspynb.modules.function_program import checked_program
from dspynb.modules.module import Module
from dspynb.modules.ordered_pool import pool_width, run_pool
from dspynb.modules.price_check import check_prices
from dspynb.running.control import AcceptedRequests
from dspynb.scope.allowances import Allowance
from dspynb.scope.budget import Meter
from dspynb.scope.core import Layer, current_scope

if TYPE_CHECKING:
    from dspynb.evaluation.evaluator import Evaluate

__all__ = ["EvaluateWork", "Table", "check_columns", "models_of", "paths_of", "program_fingerprint", "table_of"]


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


class EvaluateWork:
    """The work of a run that evaluates one program. If the run is halted, the rows that have ended are its result."""

    def __init__(self, plan: Evaluate, program: Module, table: Table) -> None:
        program = checked_program(program)
        self.plan = plan
        self.program = program
        self.table = table
        self.input_names = check_columns(program, table, plan.inputs)
        self.done: dict[tuple[int, int], Rollout] = {}
        self.probe: Collection[int] | None = None  # the only rows to run: those of a forecast
        self.meter: Meter | None = None  # of the evaluation's own budget
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
        if self.meter is None and self.plan.budget is not None:
            self.meter = Meter(self.plan.budget)
        funds = self.meter
        if own is not None and funds is not None:
            own.fund(funds)
        with contextlib.nullcontext() if funds is None else Layer(None, funds=funds):
            check_prices(self.program, *self.plan.metrics.values())
            await self.pool
        if self.probe is not None:
            raise RunStopped("the probe rows of a forecast have ended", self.run)
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
        is_left_out = self.probe is not None and (repeat or row not in self.probe)
        if is_left_out or (row, repeat) in self.done:
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
