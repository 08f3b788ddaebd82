"""One call of a predictor under way: sent, read, reported, and asked again where its reply could not be read."""

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
from dspynb.lm.interceptors.cache import OWN_CACHE
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
"""Told each new piece of a reply, with the adapter that reads it; an empty piece at the end."""


@dataclass(slots=True, kw_only=True)
class Call(ModelCall):
    """What was read from the scope when the call began, and what came of it."""

    read: Callable[[Adapter, LMReply], Mapping[str, Any]]  # the outputs in a reply
    uid: str
    reading: Reading
    adapter: Adapter
    before: tuple[PredictorCalled, ...] = ()  # calls whose reply could not be read
    reported: tuple[PredictorCalled, ...] = ()
    reply: LMReply | None = None
    began: float = field(default_factory=time.perf_counter)

    async def answer(self, listener: Listener | None = None) -> Prediction:
        """The prediction; ``listener`` gets the reply's text as it comes. Raises ParseError with the predictor's path,
        ModelError, Halted."""
        if GATE.shut:
            await GATE.passed(self.scope)
        if listener is not None:
            self.listener = partial(listener, self.adapter)
        try:
            reply = await self._complete()
            self.reply = without_secrets(reply)
            outputs = self.read(self.adapter, self.reply)
        except ParseError as error:
            named = error.by(self.path)
            self._report(error=named)
            raise named from error.__cause__
        except BaseException as error:
            failed = self._as_error(error)
            refused = isinstance(failed, Halted) and not self.admitted  # it never began
            if isinstance(failed, Exception) and not refused:
                self._report(error=failed)
            if failed is error:
                raise
            raise failed from error
        calls = (*self.before, self._report(outputs=outputs))
        prediction = Prediction(outputs)
        prediction.meta.usage = calls[0].usage if len(calls) == 1 else sum((c.usage for c in calls), NO_USAGE)
        prediction.meta.calls = Calls(calls)
        return prediction

    async def _complete(self) -> LMReply:
        """The reply, from the first link of the chain that has one."""
        reply = await self._chain()(self)
        if not self.admitted:  # a cached reply takes no call, but what was stopped goes no further
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
        if not around and not hasattr(self.lm, "kept"):
            return _BUDGET_ALONE
        return chain((*around, OWN_CACHE, BUDGET), ask_model)

    def _as_error(self, error: BaseException) -> BaseException:
        """The error of a call: what a model or adapter raised that is no Exception is made one."""
        if self.reply is not None:
            return as_exception(error, f"the adapter {type(self.adapter).__name__}")
        exited = exit_of(error, f"the model {self.model}")
        return error if exited is None else ModelError(exited)

    def again(self, messages: tuple[Mapping[str, Any], ...]) -> Self:
        """A call of its own with other messages, to repair this one."""
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
            error=None if error is None else error_text(error),
            usage=_spent(error) if reply is None else reply.usage,
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
    """The end of the chain: ask any model, and check its reply."""
    stream = None if call.listener is None else getattr(call.lm, "stream", None)
    if stream is None:
        reply = await call.lm.complete(call.request)
    else:
        reply = await stream(call.request, call.listener)
        call.streamed = True
    if not isinstance(reply, LMReply):
        said = f"complete() returned {type(reply).__name__}; a model returns an LMReply"
        raise ModelError(said, model=call.model)
    if call.listener is not None:
        call.stream_rest(reply)
        call.listener("")
    return check_reply(reply, sent_settings(call.lm, call.request), call.model)


_BUDGET_ALONE = chain((BUDGET,), ask_model)


def as_recorded(messages: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
    """Messages as records keep them: without the data of images and files, and without known secrets."""
    kept: tuple[Mapping[str, Any], ...] = redact_values(without_data(messages))
    return kept


def _spent(error: Exception | None) -> Usage:
    """What is known of the cost of a call without a reply."""
    if not isinstance(error, ModelError):
        return Usage()
    return Usage(calls=1, retries=error.retries) if error.usage is None else error.usage
