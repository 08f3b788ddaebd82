"""Streaming a prediction: the text of each output field while the model writes it."""

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
from dspynb.thinking import tags_beside, visible_text

if TYPE_CHECKING:
    from dspynb.adapters.base import Adapter
    from dspynb.modules.predict import Predict

__all__ = ["FieldText", "stream"]


@dataclass(frozen=True, slots=True)
class FieldText:
    """Output field ``field`` has grown by ``delta``; ``text`` is all of it so far, as the model writes it."""

    field: str
    text: str
    delta: str


class _FieldStreamer:
    """Listens to the pieces of a reply and puts the growth of each field into a queue. An empty piece is the end."""

    def __init__(self, predictor: Predict, queue: asyncio.Queue[FieldText | None]) -> None:
        self._predictor = predictor
        self._thinking_tags = tags_beside(predictor.signature.output_fields)
        self._queue = queue
        self._pieces: list[str] = []
        self._length = 0
        self._parsed_length = 0
        self._fields: dict[str, str] = {}

    def __call__(self, adapter: Adapter, piece: str) -> None:
        self._pieces.append(piece)
        self._length += len(piece)
        # Parsed again after growth by 2 %, since parsing a long reply after every piece would be slow.
        if not piece:
            self._queue_growth(adapter, redact_known)
        elif self._length >= self._parsed_length * 1.02:
            self._queue_growth(adapter, redact_growing)

    def _queue_growth(self, adapter: Adapter, clean: Callable[[str], str]) -> None:
        self._parsed_length = self._length
        self._pieces = ["".join(self._pieces)]
        visible = visible_text(self._pieces[0], self._thinking_tags)
        for name, field_text in self._partial(adapter, visible).items():
            text = clean(field_text)
            before = self._fields.get(name, "")
            if text != before and text.startswith(before):
                self._fields[name] = text
                self._queue.put_nowait(FieldText(name, text, text[len(before) :]))

    def _partial(self, adapter: Any, text: str) -> Mapping[str, str]:
        """The fields in the text of the reply so far, which excludes the thinking at its beginning. An error names the
        adapter here, since the model calls this method and would seem to have raised it."""
        try:
            return adapter.partial(self._predictor.signature, text)  # type: ignore[no-any-return]
        except BaseException as error:
            failure = as_exception(error, f"the adapter {type(adapter).__name__}")
            if failure is error:
                raise
            raise failure from error


class _StreamWork(ModuleWork):
    """A streamed call as the work of a run."""

    def __init__(self, predictor: Predict, inputs: Mapping[str, Any], streamer: _FieldStreamer) -> None:
        super().__init__(predictor, inputs)
        self.predictor = predictor
        self.streamer = streamer

    async def _call(self) -> Prediction:
        return await self.predictor._answer(self.inputs, self.streamer)


async def stream(predictor: Predict, inputs: Mapping[str, Any]) -> AsyncIterator[FieldText | Prediction]:
    """See ``Predict.stream``. The call runs in its own task, since a generator must not keep a scope across a yield."""
    queue: asyncio.Queue[FieldText | None] = asyncio.Queue()
    streamer = _FieldStreamer(predictor, queue)
    run: Run | None = None
    if current_scope().open_run is None:
        run = predictor._new_run(inputs).start(_StreamWork(predictor, inputs, streamer))
        task = run.task
    else:
        task = asyncio.create_task(guarded("the call", predictor._answer, inputs, streamer))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (part := await _next(queue, run)) is not None:
            yield part
        yield await (run or task)
    finally:
        await end_tasks([task])


async def _next(queue: asyncio.Queue[FieldText | None], run: Run | None) -> FieldText | None:
    """The next part of a stream. Raises RunInterrupted if the kernel's stop button or Ctrl-C interrupts the waiting."""
    if run is None:
        return await queue.get()
    with foreground(run):
        try:
            return await queue.get()
        except asyncio.CancelledError:
            if run.interrupted:
                raise RunInterrupted(run) from None
            raise
