"""A program over rows: bounded concurrency, order kept, every row its result or its error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dspynb.data import Example, Prediction
from dspynb.errors import BudgetExhausted, Halted, RunStopped, WorkerLost
from dspynb.events import SpanEnded, SpanStarted, new_span
from dspynb.modules.discovery import hinted_paths
from dspynb.modules.ordered_pool import caught, pool_width, run_pool
from dspynb.redact import error_text, redact_values
from dspynb.running.control import Takes
from dspynb.running.executor import Executor, elsewhere
from dspynb.running.run import Run
from dspynb.scope.budget import Allowance
from dspynb.scope.core import Layer, current_scope

if TYPE_CHECKING:
    from dspynb.modules.module import Module

__all__ = ["column_of", "inputs_of", "own_run", "run_batch", "takes_of_rows"]

Row = Prediction | Exception


class BatchWork:
    """A batch as the work of a run. When it is halted, rows that had not finished hold the reason."""

    def __init__(self, module: Module, rows: Sequence[Example], width: int, executor: Executor | None = None) -> None:
        self.module, self.rows = module, rows
        self.results: list[Row | None] = [None] * len(rows)
        self._row = rows_on(executor)
        self.pool = run_pool(len(rows), width, module.most_calls(), self._step)

    async def __call__(self) -> list[Row]:
        """All rows' results."""
        self.pool.run = own_run(self)
        await self.pool
        return self.partial()

    def partial(self) -> list[Row]:
        """The results so far; RunStopped or BudgetExhausted where there is none."""
        kind = BudgetExhausted if self.pool.spent else RunStopped
        return [kind("the run ended before this row had a result") if r is None else r for r in self.results]

    def takes(self) -> Takes:
        """A budget, and hints for the Refines in the program."""
        return takes_of_rows(self.module, self._open, here=self._row is run_row)

    def _open(self, row: int) -> bool:
        return 0 <= row < len(self.rows) and self.results[row] is None

    async def _step(self, index: int, funds: Allowance | None) -> None:
        scope, span = current_scope(), new_span()
        inputs = inputs_of(self.module, self.rows[index])
        given, name = redact_values(inputs), f"row {index}"
        scope.emit(SpanStarted(span=span, parent=scope.open_span, kind="row", name=name, inputs=given, row=index))
        self.results[index] = await self._row(self.module, inputs, index, funds, span)


async def run_row(module: Module, inputs: Mapping[str, Any], index: int, funds: Allowance | None, opened: int) -> Row:
    """The result of one row, or its error; Halted and cancellations pass. ``opened``: its span, which has begun."""
    scope = current_scope()
    parent = scope.open_span
    try:
        with Layer(f"row {index}", span=opened, funds=funds, row=(index, 0)):
            result = await caught(module(**inputs))
    except Halted:
        scope.emit(SpanEnded(span=opened, parent=parent, error="halted"))
        raise
    ended = (
        {"error": error_text(result)} if isinstance(result, Exception) else {"outputs": redact_values(result.to_dict())}
    )
    scope.emit(SpanEnded(span=opened, parent=parent, **ended))
    return result


def rows_on(executor: Executor | None) -> Callable[..., Awaitable[Row]]:
    """``run_row`` as the executor runs it, itself for None. One that takes the workers down is a row that failed."""
    run = elsewhere(executor, run_row, once=("module",))
    if run is run_row:
        return run

    async def sent(module: Module, inputs: Mapping[str, Any], index: int, funds: Allowance | None, opened: int) -> Row:
        try:
            return await run(module, inputs, index, funds, opened)
        except WorkerLost as error:
            scope = current_scope()
            scope.emit(SpanEnded(span=opened, parent=scope.open_span, error=error_text(error)))
            return error

    return sent


def own_run(work: Any) -> Run | None:
    """The run that does this work; None where the work is part of another."""
    run = current_scope().open_run
    return run if isinstance(run, Run) and run.work is work else None


def takes_of_rows(module: Module, open_row: Callable[[int], bool], *, here: bool) -> Takes:
    """What a person may ask of a program over rows. ``open_row``: whether a row has not ended. ``here``: whether rows
    run in this process; on a worker no Refine hears of hints."""
    paths = hinted_paths(module) if here else None
    return Takes(frozenset({"budget"} if paths is None else {"budget", "hint"}), paths or (), open_row)


def inputs_of(module: Module, row: Example, names: Sequence[str] | None = None) -> Mapping[str, Any]:
    """The fields of a row that the program takes: ``names``, else those the Example marks as inputs, else those the
    program names, else all."""
    if names is None and row.input_names is not None:
        return row.inputs()
    wanted = module.input_names() if names is None else names
    if wanted is None:
        return row.to_dict()
    return {name: row[key] for name in wanted if (key := column_of(module, name, row)) is not None}


def column_of(module: Module, name: str, columns: Container[str]) -> str | None:
    """Under which name the columns have an input: its own, else its alias; None where they lack it."""
    if name in columns:
        return name
    field = (module._fields("input") or {}).get(name)
    return field.alias if field is not None and field.alias is not None and field.alias in columns else None


async def run_batch(
    module: Module, rows: Sequence[Example], concurrency: int | None, executor: Executor | None = None
) -> list[Row]:
    """See ``Module.batch``."""
    work = BatchWork(module, rows, pool_width(concurrency), executor)
    if current_scope().open_run is not None:
        return await work()
    run = module._new_run({"rows": len(rows)}, kind="batch")
    return await run.watched(work)  # type: ignore[no-any-return]
