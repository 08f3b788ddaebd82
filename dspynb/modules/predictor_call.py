"""One call of a predictor: the request is sent, the reply is parsed, and the call is recorded as an event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

from dspynb.adapters.base import Adapter
from dspynb.data import NO_USAGE, Prediction, Usage
from dspynb.errors import Halted, ModelError, ParseError, ReplyTruncated
from dspynb.events import PredictorCalled, new_span
from dspynb.lm.client import links_of
from dspynb.lm.interceptors.budget import BUDGET
from dspynb.lm.interceptors.cache import OWN_CACHE, has_own_cache
from dspynb.lm.interceptors.chain import ModelCall, Proceed, chain
from dspynb.lm.protocol import (
    LONG_TEXT,
    LMReply,
    check_reply,
    is_truncated,
    sent_settings,
    with_thinking,
    without_secrets,
)
from dspynb.media.describe import without_data
from dspynb.redact import error_text, redact_values
from dspynb.running.call_history import Calls, remember
from dspynb.running.user_code import as_exception, exit_of
from dspynb.scope.core import Reading
from dspynb.scope.gate import GATE
from dspynb.signatures.signature import Signature
from dspynb.thinking import may_have_tags

__all__ = ["Call", "Listener", "as_recorded", "recorded_reply", "refuse_truncated"]

Listener = Callable[[Adapter, str], None]
"""Receives each new piece of a reply, with the adapter that parses it, and an empty piece at the end."""


@dataclass(slots=True, kw_only=True)
class Call(ModelCall):
    """A predictor's call: what was read from the scope when it began, and its reply."""

    signature: type[Signature]
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
            if len(reply.text) <= LONG_TEXT:
                outputs, *further_outputs = self._read_completions(reply)
            else:
                outputs, *further_outputs = await asyncio.to_thread(self._read_completions, reply)
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
        event = self._report(outputs=outputs)
        prediction = Prediction(outputs)
        meta = prediction.meta
        meta.usage = event.usage
        meta.calls = Calls((*self.before, event))
        meta.logprobs = reply.logprobs
        meta.truncated = event.truncated
        if self.before:
            meta.usage = sum((call.usage for call in meta.calls), NO_USAGE)
        if further_outputs:
            meta.further_completions = tuple(map(Prediction, further_outputs))
        return prediction

    def _read_completions(self, reply: LMReply) -> list[Mapping[str, Any]]:
        """The outputs of each completion that can be read, nearly always one. The first of these completions becomes
        the reply of this call. Raises ParseError if no completion can be read."""
        reply = without_secrets(reply)
        self.reply = reply
        if len(reply.completions) < 2 or reply.tool_calls:
            self.reply = self._without_thinking(reply)
            return [self._read_text(self.reply)]
        outputs: list[Mapping[str, Any]] = []
        first_error: ParseError | None = None
        for text in _completion_texts(reply):
            completion = self._without_thinking(_completion(reply, text))
            try:
                values = self._read_text(completion)
            except ParseError as error:
                first_error = first_error or error
                continue
            if not outputs:
                self.reply = completion
            outputs.append(values)
        if not outputs and first_error is not None:
            self.reply = self._without_thinking(reply)
            raise first_error
        return outputs

    def _read_text(self, reply: LMReply) -> Mapping[str, Any]:
        if reply.reasoning is not None and not reply.tool_calls and not reply.text.strip():
            raise ParseError("the reply ends within its thinking", raw="", stage="locate")
        return self.read(self.adapter, reply)

    def _without_thinking(self, reply: LMReply) -> LMReply:
        """The reply without thinking in its text, which becomes its reasoning."""
        if not may_have_tags(reply.text):
            return reply
        split_thinking = getattr(self.adapter, "split_thinking", None)
        if split_thinking is None:  # a user's adapter that is no subclass
            return reply
        split = split_thinking(self.signature, reply.text)
        return with_thinking(reply, split.thinking, split.text) if split.text != reply.text else reply

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
            reasoning=getattr(error, "reasoning", None) if reply is None else reply.reasoning,
            completions=() if reply is None or len(reply.completions) < 2 else reply.completions,
            truncated=reply is not None and is_truncated(reply),
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
    if not isinstance(reply.text, str):
        message = f"the text of the LMReply is {type(reply.text).__name__}; give a text, which may be empty"
        raise ModelError(message, model=call.model)
    if call.listener is not None:
        call.stream_rest(reply)
        call.listener("")
    accept_truncated = getattr(call.lm, "truncated", "error") == "accept"
    settings = sent_settings(call.lm, call.request)
    return check_reply(reply, settings, call.model, accept_truncated=accept_truncated)


def _completion_texts(reply: LMReply) -> tuple[str, ...]:
    """The texts of all completions of a reply."""
    if reply.text in reply.completions:
        return reply.completions
    return (reply.text, *reply.completions)


def _completion(reply: LMReply, text: str) -> LMReply:
    """One completion as a reply. The reasoning and the finish reason are those of the reply's own text."""
    if text == reply.text:
        return reply
    return replace(reply, text=text, reasoning=None, finish=None)


_BUDGET_ALONE = chain((BUDGET,), ask_model)


def as_recorded(messages: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
    """Messages as events have them: without the data of images and files, and without known secrets."""
    recorded: tuple[Mapping[str, Any], ...] = redact_values(without_data(messages))
    return recorded


def recorded_reply(event: PredictorCalled) -> LMReply:
    """The reply in the event of a call, marked as cached, so that it costs nothing."""
    return LMReply(
        event.reply or "",
        event.tool_calls,
        event.usage.as_cached(),
        cached=True,
        finish="length" if event.truncated else None,
        reasoning=event.reasoning,
        completions=event.completions,
    )


def refuse_truncated(prediction: Prediction) -> None:
    """Raise ReplyTruncated for a prediction from a truncated reply, where a part would be worse than nothing."""
    if prediction.meta.truncated:
        raise ReplyTruncated("the reply was cut at the limit of tokens, and a part of it cannot be used here")


def _usage_of_failed_call(error: Exception | None) -> Usage:
    """The usage of a failed call: as its error reports it, else one call and its retries. Zero if no model replied."""
    if not isinstance(error, ModelError):
        return Usage()
    if error.usage is not None:
        usage: Usage = error.usage
        return usage
    return Usage(calls=1, retries=error.retries)
