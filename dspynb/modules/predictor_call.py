"""One call of a predictor: the request is sent, the reply is parsed, and the call is recorded as an event."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

from dspynb.adapters.base import Adapter
from dspynb.data import NO_USAGE, Prediction
from dspynb.errors import ParseError
from dspynb.events import PredictorCalled
from dspynb.lm.protocol import LMReply
from dspynb.lm.recorded_call import RecordedCall
from dspynb.running.call_history import Calls
from dspynb.running.user_code import as_exception
from dspynb.scope.core import Reading

__all__ = ["Call", "Listener"]

Listener = Callable[[Adapter, str], None]
"""Receives each new piece of a reply, with the adapter that parses it, and an empty piece at the end."""


@dataclass(slots=True, kw_only=True)
class Call(RecordedCall):
    """A predictor's call: what was read from the scope when it began, and its reply."""

    read: Callable[[Adapter, LMReply], Mapping[str, Any]]  # parses the outputs of a reply
    reading: Reading
    adapter: Adapter
    before: tuple[PredictorCalled, ...] = ()  # the events of the calls that this one repairs
    reported: tuple[PredictorCalled, ...] = ()  # the events of ``before`` and of this call

    async def answer(self, listener: Listener | None = None) -> Prediction:
        """Make the call and return its prediction. ``listener`` receives the text of the reply while it arrives. Raises
        ParseError with the predictor's path, ModelError or Halted."""
        if listener is not None:
            self.listener = partial(listener, self.adapter)
        try:
            outputs = self.read(self.adapter, await self.ask())
        except ParseError as error:
            error_with_path = error.by(self.path)
            self.report(error=error_with_path)
            raise error_with_path from error.__cause__
        except BaseException as error:
            failure = self.failure(error)
            if failure is error:
                raise
            raise failure from error
        calls = (*self.before, self.report(outputs=outputs))
        prediction = Prediction(outputs)
        if len(calls) == 1:
            prediction.meta.usage = calls[0].usage
        else:
            prediction.meta.usage = sum((call.usage for call in calls), NO_USAGE)
        prediction.meta.calls = Calls(calls)
        return prediction

    def _as_error(self, error: BaseException) -> BaseException:
        if self.reply is not None:
            return as_exception(error, f"the adapter {type(self.adapter).__name__}")
        return RecordedCall._as_error(self, error)  # ``super()`` does not work in a dataclass with slots

    def repair(self, messages: tuple[Mapping[str, Any], ...]) -> Self:
        """A new call that repairs the reply of this one, with other messages."""
        request = replace(self.request, messages=messages)
        return replace(
            self,
            request=request,
            listener=None,
            key=None,
            admitted=False,
            streamed=False,
            before=self.reported,
            reply=None,
            began=time.perf_counter(),
        )

    def report(self, outputs: Mapping[str, Any] | None = None, error: Exception | None = None) -> PredictorCalled:
        """Emit an event with the request, the reply or error, and what was read from the scope."""
        parent = self.before[0].span if self.before else self.scope.open_span
        candidate = self.reading.candidate and self.reading.candidate.id
        hint = self.reading.hint()
        event = self._emit(outputs, error, parent, hint=hint, candidate=candidate, repair=bool(self.before))
        self.reported = (*self.before, event)
        return event
