"""One call of a predictor: the request is sent, the reply is parsed, and the call is recorded as an event."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

from dspynb.adapters.base import Adapter
from dspynb.data import NO_USAGE, Prediction, Usage
from dspynb.errors import Halted, ModelError, ParseError
from dspynb.events import PredictorCalled, new_span
from dspynb.lm.client import links_of
from dspynb.lm.interceptors.budget import BUDGET
from dspynb.lm.interceptors.cache import OWN_CACHE, has_own_cache
from dspynb.lm.interceptors.chain import ModelCall, Proceed, chain
from dspynb.lm.protocol import LMReply, check_reply, sent_settings, without_secrets
from dspynb.media.describe import without_data
from dspynb.redact import error_text, redact_values
from dspynb.running.call_history import Calls, remember
from dspynb.running.user_code import as_exception, exit_of
from dspynb.scope.core import Reading
from dspynb.scope.gate import GATE

__all__ = ["Call", "Listener", "as_recorded"]

Listener = Callable[[Adapter, str], None]
"""Receives each new piece of a reply, with the adapter that parses it, and an empty piece at the end."""


@dataclass(slots=True, kw_only=True)
class Call(ModelCall):
    """A predictor's call: what was read from the scope when it began, and its reply."""

    read: Callable[[Adapter, LMReply], Mapping[str, Any]]  # parses the outputs of a reply
    uid: str
    reading: Reading
    adapter: Adapter
    before: tuple[PredictorCalled, ...] = ()  # the events of the calls that this one repairs
    reported: tuple[PredictorCalled, ...] = ()  # the events of ``before`` and of this call
    reply: LMReply | None = None
    began: float = field(default_factory=time.perf_counter)

    async def answer(self, listener: Listener | None = None) -> Prediction:
        """Make the call and return its prediction. ``listener`` receives the text of the reply while it arrives. Raises
        ParseError with the predictor's path, ModelError or Halted."""
        if GATE.shut:
            await GATE.passed(self.scope)
        if listener is not None:
            self.listener = partial(listener, self.adapter)
        try:
            reply = await self._complete()
            self.reply = without_secrets(reply)
            outputs = self.read(self.adapter, self.reply)
        except ParseError as error:
            error_with_path = error.by(self.path)
            self._report(error=error_with_path)
            raise error_with_path from error.__cause__
        except BaseException as error:
            failure = self._as_error(error)
            never_began = isinstance(failure, Halted) and not self.admitted
            if isinstance(failure, Exception) and not never_began:
                self._report(error=failure)
            if failure is error:
                raise
            raise failure from error
        calls = (*self.before, self._report(outputs=outputs))
        prediction = Prediction(outputs)
        if len(calls) == 1:
            prediction.meta.usage = calls[0].usage
        else:
            prediction.meta.usage = sum((call.usage for call in calls), NO_USAGE)
        prediction.meta.calls = Calls(calls)
        return prediction

    async def _complete(self) -> LMReply:
        """The reply, from the first link of the chain that has one."""
        reply = await self._chain()(self)
        if not self.admitted:  # a cached reply takes no call from the budget, but a stopped run must not continue
            self.scope.admit(0)
            self.admitted = True
        if self.listener is not None:
            self.stream_rest(reply)
            self.listener("")
        return reply

    def _chain(self) -> Proceed:
        """The interceptors of the blocks around the call and of its model, and the budget between them."""
        around = self.scope.context.interceptors
        of_model = links_of(self.lm)
        if of_model is not None:
            links, send = of_model
            return chain((*around, BUDGET, *links), send)
        if not around and not has_own_cache(self.lm):
            return _BUDGET_ALONE
        return chain((*around, OWN_CACHE, BUDGET), ask_model)

    def _as_error(self, error: BaseException) -> BaseException:
        """The error of a call. If a model or adapter has raised SystemExit or the like, an Exception replaces it."""
        if self.reply is not None:
            return as_exception(error, f"the adapter {type(self.adapter).__name__}")
        exit_error = exit_of(error, f"the model {self.model}")
        return error if exit_error is None else ModelError(exit_error)

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

    def _report(self, outputs: Mapping[str, Any] | None = None, error: Exception | None = None) -> PredictorCalled:
        """Emit an event with the request and the reply or error."""
        reply = self.reply
        inputs, messages, hint = redact_values((self.inputs, without_data(self.request.messages), self.reading.hint()))
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
            error=None if error is None else error_text(error),
            usage=_usage_of_failed_call(error) if reply is None else reply.usage,
            cached=getattr(error, "cached", False) if reply is None else reply.cached,
            seconds=time.perf_counter() - self.began,
            rollout=self.request.rollout,
            model=self.model,
            repair=bool(self.before),
        )
        self.reported = (*self.before, event)
        self.scope.emit(event)
        remember(event)
        return event


async def ask_model(call: ModelCall) -> LMReply:
    """The end of the chain: call any model, and check its reply."""
    stream = None if call.listener is None else getattr(call.lm, "stream", None)
    if stream is None:
        reply = await call.lm.complete(call.request)
    else:
        reply = await stream(call.request, call.listener)
        call.streamed = True
    if not isinstance(reply, LMReply):
        message = f"complete() returned {type(reply).__name__}; a model returns an LMReply"
        raise ModelError(message, model=call.model)
    if call.listener is not None:
        call.stream_rest(reply)
        call.listener("")
    return check_reply(reply, sent_settings(call.lm, call.request), call.model)


_BUDGET_ALONE = chain((BUDGET,), ask_model)


def as_recorded(messages: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
    """Messages as events have them: without the data of images and files, and without known secrets."""
    recorded: tuple[Mapping[str, Any], ...] = redact_values(without_data(messages))
    return recorded


def _usage_of_failed_call(error: Exception | None) -> Usage:
    """The usage of a failed call: as its error reports it, else one call and its retries. Zero if no model replied."""
    if not isinstance(error, ModelError):
        return Usage()
    if error.usage is not None:
        usage: Usage = error.usage
        return usage
    return Usage(calls=1, retries=error.retries)
