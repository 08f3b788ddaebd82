"""Streaming a prediction: the text of each output field while the model writes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspynb.data import Prediction
from dspynb.errors import RunInterrupted
from dspynb.lm.protocol import LONG_TEXT
from dspynb.modules.module import ModuleWork
from dspynb.modules.unopened_thinking import begins_within_thinking
from dspynb.redact import redact_growing, redact_known
from dspynb.running.aio.signals import foreground
from dspynb.running.aio.tasks import end_tasks
from dspynb.running.run import Run
from dspynb.running.user_code import as_exception, guarded
from dspynb.scope.core import current_scope
from dspynb.thinking import closing_tags, may_have_tags, tags_beside, visible_text

if TYPE_CHECKING:
    from dspynb.adapters.base import Adapter
    from dspynb.lm.protocol import LMProtocol
    from dspynb.modules.predict import Predict

__all__ = ["FieldText", "stream"]

_MOST_TAGS = 8
"""The number of closing tags, from the end of a growing reply, that may end its thinking."""


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

    def __call__(self, adapter: Adapter, lm: LMProtocol, piece: str) -> None:
        self._pieces.append(piece)
        self._length += len(piece)
        # Parsed again after growth by 2 %, since parsing a long reply after every piece would be slow.
        if not piece:
            self._join_pieces()
            self._queue_growth(adapter, self._whole_answer(adapter), redact_known)
        elif self._length >= self._parsed_length * 1.02:
            self._join_pieces()
            self._queue_growth(adapter, self._visible_answer(adapter, lm), redact_growing)

    def _join_pieces(self) -> None:
        self._parsed_length = self._length
        self._pieces = ["".join(self._pieces)]

    def _whole_answer(self, adapter: Adapter) -> str:
        """The text of the whole reply without its thinking."""
        text = self._pieces[0]
        split_thinking = getattr(adapter, "split_thinking", None)
        if split_thinking is None or not may_have_tags(text) or len(text) > LONG_TEXT:
            return visible_text(text, self._thinking_tags)
        return str(split_thinking(self._predictor.signature, text).text)

    def _visible_answer(self, adapter: Adapter, lm: LMProtocol) -> str:
        """The part of the growing text that is certainly no thinking, as far as the model is known.

        A text that does not begin as a reply may be thinking whose opening tag is in the prompt. It is held back until
        a closing tag after which a reply begins, or until the end.
        """
        text = visible_text(self._pieces[0], self._thinking_tags)
        begins_reply = getattr(adapter, "begins_reply", None)
        if begins_reply is None or not text:
            return text
        signature = self._predictor.signature
        for tag in reversed(closing_tags(text, _MOST_TAGS, self._thinking_tags)):
            if adapter.names_outputs(signature) and begins_reply(signature, text[tag.end() :]):
                return text[tag.end() :]
        if text != self._pieces[0]:  # after an opening tag
            return text
        if begins_within_thinking(lm) or not begins_reply(signature, text):
            return ""
        return text

    def _queue_growth(self, adapter: Adapter, visible: str, clean: Callable[[str], str]) -> None:
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
