"""A program over rows: bounded concurrency, order kept, every row its result or its error."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dspynb.data import Example, Prediction
from dspynb.errors import BudgetExhausted, ConfigurationError, DspynbError, Halted, RunStopped
from dspynb.events import SpanEnded, SpanStarted, new_span
from dspynb.redact import told
from dspynb.running import end_tasks
from dspynb.scope import Allowance, Layer, Reserve, current_scope, setting

if TYPE_CHECKING:
    from dspynb.modules.module import Module

__all__ = ["run_batch"]

Row = Prediction | Exception


class BatchWork:
    """A batch as the work of a run. When it is halted, rows that had not finished hold the reason."""

    def __init__(self, module: Module, rows: Sequence[Example], concurrency: int) -> None:
        self.module, self.rows, self.concurrency = module, rows, concurrency
        self.results: list[Row | None] = [None] * len(rows)
        self.spent: BudgetExhausted | None = None

    async def __call__(self) -> list[Row]:
        """All rows' results."""
        todo, reserve = iter(range(len(self.rows))), Reserve(self.module.most_calls())
        workers = [
            asyncio.create_task(self._worker(todo, reserve)) for _ in range(min(self.concurrency, len(self.rows)))
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            await end_tasks(workers)
        if self.spent is not None:
            raise self.spent
        return self.partial()

    def partial(self) -> list[Row]:
        """The results so far; RunStopped or BudgetExhausted where there is none."""
        kind = BudgetExhausted if self.spent else RunStopped
        return [kind("the run ended before this row had a result") if r is None else r for r in self.results]

    async def _worker(self, todo: Iterator[int], reserve: Reserve) -> None:
        """Do rows until there are none, or the budget is spent; then rows under way elsewhere are still finished."""
        try:
            for index in todo:
                async with reserve.step() as funds:
                    self.results[index] = await self._row(index, self.rows[index], funds)
                if self.spent is not None:
                    return
        except BudgetExhausted as error:
            self.spent = self.spent or error

    async def _row(self, index: int, row: Example, funds: Allowance | None) -> Row:
        scope, span = current_scope(), new_span()
        parent, inputs = scope.open_span, row.inputs()
        scope.emit(SpanStarted(span=span, parent=parent, kind="row", name=f"row {index}", inputs=inputs, row=index))
        try:
            with Layer(f"row {index}", span=span, funds=funds):
                prediction = await self.module(**inputs)
        except Halted:
            scope.emit(SpanEnded(span=span, parent=parent, error="halted"))
            raise
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            scope.emit(SpanEnded(span=span, parent=parent, error="cancelled inside the program"))
            return _inner_cancellation(error)
        except Exception as error:
            scope.emit(SpanEnded(span=span, parent=parent, error=told(error)))
            return error
        scope.emit(SpanEnded(span=span, parent=parent, outputs=prediction.to_dict()))
        return prediction


def _inner_cancellation(error: asyncio.CancelledError) -> DspynbError:
    """What a row holds whose program awaited something that had been cancelled: the other rows are not concerned."""
    told = DspynbError("the program was cancelled from inside: it awaited a task that had been cancelled")
    told.__cause__ = error
    return told


async def run_batch(module: Module, rows: Sequence[Example], concurrency: int | None) -> list[Row]:
    """See ``Module.batch``."""
    limit = setting("concurrency") if concurrency is None else concurrency
    if not isinstance(limit, int) or limit < 1:
        raise ConfigurationError(f"concurrency must be a whole number of at least 1, got {limit!r}")
    work = BatchWork(module, rows, limit)
    if current_scope().open_run is not None:
        return await work()
    run = module._new_run({"rows": len(rows)}, kind="batch")
    return await run.watched(work)  # type: ignore[no-any-return]
