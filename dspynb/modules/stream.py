"""A prediction as it is written: the text of each output field while it grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspynb.data import Prediction
from dspynb.errors import RunInterrupted
from dspynb.modules.module import ModuleWork
from dspynb.redact import redact_growing, redact_known
from dspynb.running.aio.signals import foreground
from dspynb.running.aio.tasks import end_tasks
from dspynb.running.run import Run
from dspynb.running.user_code import as_exception, guarded
from dspynb.scope.core import current_scope

if TYPE_CHECKING:
    from dspynb.modules.predict import Predict

__all__ = ["FieldText", "stream"]


@dataclass(frozen=True, slots=True)
class FieldText:
    """Output field ``field`` has grown by ``delta``; ``text`` is all of it so far, as the model writes it."""

    field: str
    text: str
    delta: str


class _Growing:
    """Tells a queue which fields have grown, from the text of the whole reply; an empty piece is its end."""

    def __init__(self, predictor: Predict, queue: asyncio.Queue[FieldText | None]) -> None:
        self._predictor, self._queue = predictor, queue
        self._reply, self._read = "", 0
        self._fields: dict[str, str] = {}

    def __call__(self, adapter: Any, piece: str) -> None:
        self._reply += piece
        # Read again once it has grown by a fiftieth: to read a long reply after every piece would take long itself.
        if not piece or len(self._reply) >= self._read * 1.02:
            self._tell(adapter, redact_growing if piece else redact_known)

    def _tell(self, adapter: Any, clean: Callable[[str], str]) -> None:
        self._read = len(self._reply)
        for name, said in self._partial(adapter).items():
            text = clean(said)
            before = self._fields.get(name, "")
            if text != before and text.startswith(before):
                self._fields[name] = text
                self._queue.put_nowait(FieldText(name, text, text[len(before) :]))

    def _partial(self, adapter: Any) -> Mapping[str, str]:
        """The fields in the reply so far. Called by the model, which must not be blamed for the adapter."""
        try:
            return adapter.partial(self._predictor.signature, self._reply)  # type: ignore[no-any-return]
        except BaseException as error:
            exited = as_exception(error, f"the adapter {type(adapter).__name__}")
            if exited is error:
                raise
            raise exited from error


class _StreamWork(ModuleWork):
    """A streamed call as the work of a run."""

    def __init__(self, predictor: Predict, inputs: Mapping[str, Any], growing: _Growing) -> None:
        super().__init__(predictor, inputs)
        self.predictor, self.growing = predictor, growing

    async def _call(self) -> Prediction:
        return await self.predictor._answer(self.inputs, self.growing)


async def stream(predictor: Predict, inputs: Mapping[str, Any]) -> AsyncIterator[FieldText | Prediction]:
    """See ``Predict.stream``. The call runs in a task of its own: a generator must not hold a scope across a yield."""
    queue: asyncio.Queue[FieldText | None] = asyncio.Queue()
    growing = _Growing(predictor, queue)
    run = None
    if current_scope().open_run is None:
        run = predictor._new_run(inputs).start(_StreamWork(predictor, inputs, growing))
    task = asyncio.create_task(guarded("the call", predictor._answer, inputs, growing)) if run is None else run.task
    task.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (part := await _next(queue, run)) is not None:
            yield part
        yield await (run or task)
    finally:
        await end_tasks([task])


async def _next(queue: asyncio.Queue[FieldText | None], run: Run | None) -> FieldText | None:
    """The next part. Raises RunInterrupted when the kernel's stop button or Ctrl-C ends the waiting."""
    if run is None:
        return await queue.get()
    with foreground(run):
        try:
            return await queue.get()
        except asyncio.CancelledError:
            if run.interrupted:
                raise RunInterrupted(run) from None
            raise
