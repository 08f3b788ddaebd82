"""Running a program over rows, with bounded concurrency. Each row has a result or an error, in the order of rows."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dspynb.data import Example, Prediction
from dspynb.errors import BudgetExhausted, Halted, RunStopped, WorkerLost
from dspynb.events import SpanEnded, SpanStarted, new_span
from dspynb.modules.discovery import hinted_paths
from dspynb.modules.forward import recorded_outputs
from dspynb.modules.ordered_pool import result_or_error, run_pool
from dspynb.modules.price_check import check_prices
from dspynb.redact import error_text, redact_values
from dspynb.running.control import AcceptedRequests
from dspynb.running.executor import Executor, elsewhere
from dspynb.running.run import Run
from dspynb.scope.allowances import Allowance
from dspynb.scope.core import Layer, current_scope

if TYPE_CHECKING:
    from dspynb.modules.module import Module

__all__ = ["UNFINISHED", "BatchWork", "column_of", "inputs_of", "own_run", "takes_of_rows"]

Row = Prediction | Exception
UNFINISHED: Any = object()
"""The result of a row that has not ended."""


class BatchWork:
    """A batch as the work of a run. If the run is halted, the results of unfinished rows are exceptions."""

    def __init__(self, module: Module, rows: Sequence[Example], width: int, executor: Executor | None = None) -> None:
        self.module = module
        self.rows = rows
        self.results: list[Any] = [UNFINISHED] * len(rows)
        self.probe: Container[int] | None = None  # the only rows to run: those of a forecast
        self._run_row = row_runner(executor)
        self.pool = run_pool(len(rows), width, module.most_calls(), self._step)

    async def __call__(self) -> list[Row]:
        """The results of all rows."""
        self.pool.run = own_run(self)
        try:
            check_prices(self.module)
        except BudgetExhausted as error:
            self.pool.budget_error = error
            raise
        await self.pool
        if self.probe is not None:
            raise RunStopped("the probe rows of a forecast have ended")
        return self.partial()

    def partial(self) -> list[Row]:
        """The results so far, with a RunStopped or BudgetExhausted for each unfinished row."""
        error: BudgetExhausted | RunStopped = RunStopped("the run ended before this row had a result")
        budget_error = self.pool.budget_error
        if budget_error is not None:
            error = BudgetExhausted(f"the run ended before this row had a result: {budget_error}")
        results: list[Row] = []
        for result in self.results:
            if result is UNFINISHED:
                results.append(copy.copy(error))
            else:
                results.append(result)
        return results

    def accepted_requests(self) -> AcceptedRequests:
        """The requests that the batch accepts: a budget, and hints for the Refines in the program."""
        return takes_of_rows(self.module, self._is_open, here=self._run_row is run_row)

    def _is_open(self, row: int) -> bool:
        return 0 <= row < len(self.rows) and self.results[row] is UNFINISHED

    async def _step(self, index: int, funds: Allowance | None) -> None:
        if self.results[index] is not UNFINISHED or (self.probe is not None and index not in self.probe):
            return
        scope = current_scope()
        span = new_span()
        inputs = inputs_of(self.module, self.rows[index])
        started = SpanStarted(
            span=span,
            parent=scope.open_span,
            kind="row",
            name=f"row {index}",
            inputs=redact_values(inputs),
            row=index,
        )
        scope.emit(started)
        self.results[index] = await self._run_row(self.module, inputs, index, funds, span)


async def run_row(module: Module, inputs: Mapping[str, Any], index: int, funds: Allowance | None, span: int) -> Row:
    """Run the program on one row and return its prediction or its error. ``span``: the row's span, which has begun.
    Raises Halted and cancellations."""
    scope = current_scope()
    parent = scope.open_span
    try:
        with Layer(f"row {index}", span=span, funds=funds, row=(index, 0)):
            result = await result_or_error(module(**inputs))
    except Halted:
        scope.emit(SpanEnded(span=span, parent=parent, error="halted"))
        raise
    if isinstance(result, Exception):
        scope.emit(SpanEnded(span=span, parent=parent, error=error_text(result)))
    else:
        scope.emit(SpanEnded(span=span, parent=parent, outputs=redact_values(recorded_outputs(result))))
    return result


def row_runner(executor: Executor | None) -> Callable[..., Awaitable[Row]]:
    """``run_row`` as the executor runs it; ``run_row`` itself for None. If a row crashes its workers, the row fails."""
    run = elsewhere(executor, run_row, once=("module",))
    if run is run_row:
        return run

    async def run_remotely(
        module: Module, inputs: Mapping[str, Any], index: int, funds: Allowance | None, span: int
    ) -> Row:
        try:
            return await run(module, inputs, index, funds, span)
        except WorkerLost as error:
            scope = current_scope()
            scope.emit(SpanEnded(span=span, parent=scope.open_span, error=error_text(error)))
            return error

    return run_remotely


def own_run(work: object) -> Run | None:
    """The run whose work this is; None if the work is a part of another run's."""
    run = current_scope().open_run
    return run if isinstance(run, Run) and run.work is work else None


def takes_of_rows(module: Module, open_row: Callable[[int], bool], *, here: bool) -> AcceptedRequests:
    """The requests that a program over rows accepts from a person.

    ``open_row``: whether the row of a number is unfinished. ``here``: whether rows run in this process; hints do not
    reach other processes.
    """
    paths = hinted_paths(module) if here else None
    if paths is None:
        return AcceptedRequests(frozenset({"budget"}), (), open_row)
    return AcceptedRequests(frozenset({"budget", "hint"}), paths, open_row)


def inputs_of(module: Module, row: Example, names: Sequence[str] | None = None) -> Mapping[str, Any]:
    """The values of a row that the program takes as inputs: those of ``names``, else of the fields that the Example
    marks as inputs, else of the program's input names, else all."""
    if names is None and row.input_names is not None:
        return row.inputs()
    input_names = module.input_names() if names is None else names
    if input_names is None:
        return row.to_dict()
    inputs: dict[str, Any] = {}
    for name in input_names:
        column = column_of(module, name, row)
        if column is not None:
            inputs[name] = row[column]
    return inputs


def column_of(module: Module, name: str, columns: Container[str]) -> str | None:
    """The column of an input: the input's name, else its alias; None if there is no such column."""
    if name in columns:
        return name
    field = (module._fields("input") or {}).get(name)
    if field is None or field.alias is None or field.alias not in columns:
        return None
    return field.alias
