"""One call of a predictor under way: sent, read, reported, and asked again where its reply could not be read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from dspynb.adapters.base import Adapter
from dspynb.data import NO_USAGE, Prediction, Usage
from dspynb.errors import ModelError, ParseError
from dspynb.events import PredictorCalled, new_span
from dspynb.lm.protocol import LMProtocol, LMReply, LMRequest, check_reply, sent_settings, without_secrets
from dspynb.media.describe import without_data
from dspynb.redact import redact_values, told
from dspynb.running.call_history import Calls, remember
from dspynb.running.user_code import as_exception, exit_of
from dspynb.scope.budget import missing_tokens
from dspynb.scope.core import Reading, Scope
from dspynb.scope.gate import GATE

__all__ = ["Call", "Listener", "as_recorded"]

Listener = Callable[[Adapter, str], None]
"""Told each new piece of a reply, with the adapter that reads it; an empty piece at the end."""


@dataclass(slots=True)
class Call:
    """What was read from the scope when the call began, and what came of it."""

    scope: Scope
    read: Callable[[Adapter, LMReply], Mapping[str, Any]]  # the outputs in a reply
    uid: str
    path: str
    inputs: Mapping[str, Any]
    reading: Reading
    lm: LMProtocol
    adapter: Adapter
    request: LMRequest
    before: tuple[PredictorCalled, ...] = ()  # calls whose reply could not be read
    reported: tuple[PredictorCalled, ...] = ()
    reply: LMReply | None = None
    began: float = field(default_factory=time.perf_counter)

    async def answer(self, heard: Listener | None = None) -> Prediction:
        """The prediction; ``heard`` is told the reply's text as it comes. Raises ParseError with the predictor's path,
        ModelError, Halted."""
        if GATE.shut:
            await GATE.passed(self.scope)
        kept = await self._kept() if heard is None and self.scope.funded else None
        self.scope.admit(0 if kept else 1)
        try:
            if kept is not None:
                reply = check_reply(kept, self.request.settings, self._model)
            else:
                reply = await self._complete(heard)
            self.reply = without_secrets(reply)
            outputs = self.read(self.adapter, self.reply)
        except ParseError as error:
            named = error.by(self.path)
            self._report(error=named)
            raise named from error.__cause__
        except BaseException as error:
            failed = self._as_error(error)
            if isinstance(failed, Exception):
                self._report(error=failed)
            if failed is error:
                raise
            raise failed from error
        calls = (*self.before, self._report(outputs=outputs))
        prediction = Prediction(outputs)
        prediction.meta.usage = calls[0].usage if len(calls) == 1 else sum((c.usage for c in calls), NO_USAGE)
        prediction.meta.calls = Calls(calls)
        return prediction

    def _as_error(self, error: BaseException) -> BaseException:
        """The error of a call: what a model or adapter raised that is no Exception is made one."""
        if self.reply is not None:
            return as_exception(error, f"the adapter {type(self.adapter).__name__}")
        exited = exit_of(error, f"the model {self._model}")
        return error if exited is None else ModelError(exited)

    def again(self, messages: tuple[Mapping[str, Any], ...]) -> Self:
        """A call of its own with other messages, to repair this one."""
        request = replace(self.request, messages=messages)
        return replace(self, request=request, before=self.reported, reply=None, began=time.perf_counter())

    async def _kept(self) -> LMReply | None:
        """Under a budget, the reply that the model has kept from before: it costs nothing, so it takes no call."""
        look_up = getattr(self.lm, "kept", None)
        return None if look_up is None else await self.scope.in_flight(look_up(self.request))

    async def _complete(self, heard: Listener | None) -> LMReply:
        """The model's reply. What it cost is counted here, also where the reply turns out to be no answer."""
        try:
            reply = await self._replied(heard)
        except ModelError as error:
            if error.usage is not None:
                written = str(getattr(error, "text", ""))
                self._settle(error.usage, written, cached=error.cached)
            raise
        self._settle(reply.usage, f"{reply.text}{reply.reasoning or ''}", cached=reply.cached)
        return reply

    def _settle(self, usage: Usage, written: str, *, cached: bool) -> None:
        if self.scope.funded:
            estimate = 0 if cached else missing_tokens(usage, self.request.messages, written)
            self.scope.settle(usage, cached=cached, estimate=estimate)

    async def _replied(self, heard: Listener | None) -> LMReply:
        """The model's reply, checked. While it is awaited, every run it belongs to can cancel it."""
        streaming = getattr(self.lm, "stream", None) if heard is not None else None
        if heard is None or streaming is None:
            reply = await self.scope.in_flight(self.lm.complete(self.request))
        else:
            reply = await self.scope.in_flight(streaming(self.request, lambda text: heard(self.adapter, text)))
        if not isinstance(reply, LMReply):
            said = f"complete() returned {type(reply).__name__}; a model returns an LMReply"
            raise ModelError(said, model=self._model)
        if heard is not None:
            if streaming is None:
                heard(self.adapter, reply.text)  # all at once
            heard(self.adapter, "")
        return check_reply(reply, sent_settings(self.lm, self.request), self._model)

    @property
    def _model(self) -> str:
        return str(getattr(self.lm, "name", type(self.lm).__name__))

    def _report(self, outputs: Mapping[str, Any] | None = None, error: Exception | None = None) -> PredictorCalled:
        """Emit what was sent and what came back."""
        reply, sent = self.reply, (self.inputs, without_data(self.request.messages), self.reading.hint())
        inputs, messages, hint = redact_values(sent)
        event = PredictorCalled(
            span=new_span(),
            parent=self.before[0].span if self.before else self.scope.open_span,
            predictor=self.path,
            uid=self.uid,
            inputs=inputs,
            messages=messages,
            hint=hint,
            candidate=self.reading.candidate and self.reading.candidate.id,
            reply=None if reply is None else reply.text,
            tool_calls=() if reply is None else reply.tool_calls,
            outputs=outputs,
            error=None if error is None else told(error),
            usage=_spent(error) if reply is None else reply.usage,
            cached=getattr(error, "cached", False) if reply is None else reply.cached,
            seconds=time.perf_counter() - self.began,
            rollout=self.request.rollout,
            model=self._model,
            repair=bool(self.before),
        )
        self.reported = (*self.before, event)
        self.scope.emit(event)
        remember(event)
        return event


def as_recorded(messages: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
    """Messages as records keep them: without the data of images and files, and without known secrets."""
    kept: tuple[Mapping[str, Any], ...] = redact_values(without_data(messages))
    return kept


def _spent(error: Exception | None) -> Usage:
    """What is known of the cost of a call without a reply."""
    if not isinstance(error, ModelError):
        return Usage()
    return Usage(calls=1, retries=error.retries) if error.usage is None else error.usage
