"""One call of a predictor: the request is sent, the reply is parsed, and the call is recorded as an event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

from dspynb.adapters.base import Adapter
from dspynb.adapters.native_reasoning import NativeReasoning
from dspynb.data import NO_USAGE, Prediction
from dspynb.errors import ParseError, ReplyTruncated
from dspynb.events import PredictorCalled
from dspynb.lm.protocol import LONG_TEXT, LMProtocol, LMReply, reasoning_of, with_thinking
from dspynb.lm.recorded_call import RecordedCall
from dspynb.modules.grammar_advice import parse_advice, truncation_advice, warn_of_cut_outputs
from dspynb.modules.missing_reasoning import warn_of_missing_reasoning
from dspynb.modules.unopened_thinking import begins_within_thinking, note_unopened_thinking
from dspynb.running.call_history import Calls
from dspynb.running.user_code import as_exception
from dspynb.scope.core import Reading
from dspynb.signatures.augment import reasoning_output
from dspynb.signatures.signature import Signature
from dspynb.thinking import may_have_tags, split_opened, tags_beside

__all__ = ["Call", "Listener", "refuse_truncated"]

Listener = Callable[[Adapter, LMProtocol, str], None]
"""Receives each new piece of a reply, with the adapter that parses it, and an empty piece at the end."""


@dataclass(slots=True, kw_only=True)
class Call(RecordedCall):
    """A predictor's call: what was read from the scope when it began, and its reply."""

    signature: type[Signature]
    read: Callable[[Adapter, LMReply], Mapping[str, Any]]  # parses the outputs of a reply
    reading: Reading
    adapter: Adapter
    before: tuple[PredictorCalled, ...] = ()  # the events of the calls that this one repairs
    reported: tuple[PredictorCalled, ...] = ()  # the events of ``before`` and of this call

    async def answer(self, listener: Listener | None = None) -> Prediction:
        """Make the call and return its prediction. ``listener`` receives the text of the reply while it arrives. Raises
        ParseError with the predictor's path, ModelError or Halted."""
        self._listen(listener)
        try:
            reply = await self.ask()
            if len(reply.text) <= LONG_TEXT:
                outputs = self._read_completions(reply)
            else:
                outputs = await asyncio.to_thread(self._read_completions, reply)
        except BaseException as error:
            failure = self._failure(error)
            if failure is error:
                raise
            raise failure from (error.__cause__ if isinstance(error, ParseError) else error)
        else:
            return self._prediction(reply, outputs)
        finally:
            self.end_stream()

    def _listen(self, listener: Listener | None) -> None:
        if listener is not None:
            self.listener = partial(listener, self.adapter, self.lm)
        if listener is not None or getattr(self.lm, "streaming", False):
            tags = tags_beside(self.signature.output_fields)
            self.begin_stream(tags, begins_within_thinking=begins_within_thinking(self.lm))

    def _failure(self, error: BaseException) -> BaseException:
        """Record a call that failed, and return the error to raise."""
        if isinstance(error, ParseError):
            error_with_path = error.by(self.path, parse_advice(self.lm, self.adapter, self.signature, error.field))
            self.report(error=error_with_path)
            return error_with_path
        if isinstance(error, ReplyTruncated) and not error.advice:
            error.advise(truncation_advice(self.lm, self.adapter, self.signature))
        return self.failure(error)

    def _prediction(self, reply: LMReply, completions: list[Mapping[str, Any]]) -> Prediction:
        outputs, *further_outputs = completions
        event = self.report(outputs=outputs)
        if self.request.grammar is not None:
            warn_of_cut_outputs(self.signature, outputs)
        if event.native_reasoning and not (reply.reasoning or event.reasoning):
            self._warn_of_missing_reasoning(event)
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
        if len(reply.completions) < 2 or reply.tool_calls:
            self.reply = self._without_thinking(reply)
            return [self._read_text(self.reply)]
        outputs: list[Mapping[str, Any]] = []
        first_error: ParseError | None = None
        for one in _completions(reply):
            completion = self._without_thinking(one)
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
        if split.text == reply.text:
            return reply
        if split.text != split_opened(reply.text).text:
            note_unopened_thinking(self.lm)
        return with_thinking(reply, split.thinking, split.text)

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
            progress=None,
            admitted=False,
            streamed=False,
            before=self.reported,
            reply=None,
            began=time.perf_counter(),
            paused=0.0,
        )

    def report(self, outputs: Mapping[str, Any] | None = None, error: BaseException | None = None) -> PredictorCalled:
        """Emit an event with the request, the reply or error, and what was read from the scope."""
        parent = self.before[0].span if self.before else self.scope.open_span
        candidate = self.reading.candidate and self.reading.candidate.id
        hint = self.reading.hint()
        event = self._emit(
            outputs,
            error,
            parent,
            hint=hint,
            candidate=candidate,
            repair=bool(self.before),
            native_reasoning=self._has_native_reasoning(),
        )
        self.reported = (*self.before, event)
        return event

    def _warn_of_missing_reasoning(self, event: PredictorCalled) -> None:
        """Warn once of a model that does not reason, or whose server drops the reasoning. One whose provider hides the
        reasoning reports its tokens."""
        if not event.cached and not event.usage.reasoning_tokens:
            warn_of_missing_reasoning(self.lm, self.model)

    def _has_native_reasoning(self) -> bool | None:
        """Whether the model's own reasoning is an output; None if the signature has no output for reasoning."""
        if type(self.adapter) is NativeReasoning:
            return True
        return None if reasoning_output(self.signature) is None else False


def _completions(reply: LMReply) -> list[LMReply]:
    """Each completion of a reply as a reply. The finish reason is that of the reply's own text. The reasoning is that
    of the completion, or None if the reply does not have it."""
    completions = [] if reply.text in reply.completions else [reply]
    for number, text in enumerate(reply.completions):
        reasoning = reasoning_of(reply, number)
        if text != reply.text:
            completions.append(replace(reply, text=text, reasoning=reasoning, finish=None))
        else:
            completions.append(reply if reasoning is None else replace(reply, reasoning=reasoning))
    return completions


def refuse_truncated(prediction: Prediction) -> None:
    """Raise ReplyTruncated for a prediction from a truncated reply, where a part would be worse than nothing."""
    if prediction.meta.truncated:
        raise ReplyTruncated("the reply was cut at the limit of tokens, and a part of it cannot be used here")
