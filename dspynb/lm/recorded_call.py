"""One call of a model that runs, traces and the history record: by a predictor, or directly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dspynb.data import Usage
from dspynb.errors import Halted, ModelError
from dspynb.events import PredictorCalled, new_span
from dspynb.lm.finish_reasons import finish_reason
from dspynb.lm.interceptors.budget import BUDGET, is_free_refusal
from dspynb.lm.interceptors.cache import OWN_CACHE, has_own_cache
from dspynb.lm.interceptors.chain import ModelCall, Proceed, chain, links_of
from dspynb.lm.own_price import at_own_price, read_own_price
from dspynb.lm.protocol import LONG_TEXT, SERVER, LMReply, check_reply, is_truncated, without_secrets
from dspynb.lm.settings import recorded_settings
from dspynb.media.describe import without_data
from dspynb.redact import error_text, redact_known, redact_values
from dspynb.running.call_history import remember
from dspynb.running.streamed_calls import StreamedCall
from dspynb.running.user_code import exit_of
from dspynb.scope.gate import GATE
from dspynb.thinking import BLANK, SERVER_TAGS, Tags

__all__ = ["RecordedCall", "as_recorded", "recorded_reply"]


@dataclass(slots=True, kw_only=True)
class RecordedCall(ModelCall):
    """A call of a model, with its reply once it has arrived. ``uid``: of the calling predictor; empty without one.
    ``paused``: the seconds for which it waited while a run around it was paused."""

    uid: str = ""
    reply: LMReply | None = None
    began: float = field(default_factory=time.perf_counter)
    paused: float = 0.0

    def begin_stream(self, tags: Tags = SERVER_TAGS, *, begins_within_thinking: bool = False) -> None:
        """Let the views of the runs around the call show its reply while it arrives. Call ``end_stream`` afterwards."""
        parent = self.scope.open_span
        progress = StreamedCall(
            self.path, parent, self.request.messages, tags, begins_within_thinking=begins_within_thinking
        )
        self.progress = progress
        for run in self.scope.open_runs():
            run.stream_began(progress)

    def end_stream(self) -> None:
        """Let the views show the event of the call instead of its pieces."""
        progress = self.progress
        if progress is not None:
            for calls in progress.runs:
                calls.remove(progress)

    async def ask(self) -> LMReply:
        """Wait while a run around the call is paused; then return the reply, without secrets."""
        if GATE.shut:
            paused_at = time.perf_counter()
            await GATE.passed(self.scope)
            self.paused += time.perf_counter() - paused_at
        reply = await self._chain()(self)
        if self.billed is not None or self.estimated_usage is not None:
            reply = reply.with_usage(self.whole_usage(reply.usage))
        if not self.admitted:  # a cached reply takes no call from the budget, but a stopped run must not continue
            self.scope.admit(0)
            self.admitted = True
        if self.listener is not None:
            self.stream_rest(reply)
            self.listener("")
        if len(reply.text) <= LONG_TEXT:
            self.reply = without_secrets(reply)
        else:
            self.reply = await asyncio.to_thread(without_secrets, reply)
        return self.reply

    def _chain(self) -> Proceed:
        """The interceptors of the blocks around the call and of its model, and the budget between them."""
        around = self.scope.context.interceptors
        of_model = links_of(self.lm)
        if of_model is not None:
            links, send = of_model
            self.may_nest = False
            return chain((*around, BUDGET, *links), send)
        if not around and not has_own_cache(self.lm):
            return _BUDGET_ALONE
        return chain((*around, OWN_CACHE, BUDGET), ask_model)

    def failure(self, error: BaseException) -> BaseException:
        """Record an error of the call, and return the error to raise. If a model or adapter has raised SystemExit or
        the like, an Exception replaces it. A call that was halted or cancelled before it was sent is not recorded."""
        failure = self._as_error(error)
        is_halted = isinstance(failure, Halted | asyncio.CancelledError)
        is_recorded = isinstance(failure, Exception | asyncio.CancelledError)
        if is_recorded and (self.admitted or not is_halted):
            self.report(error=failure)
        return failure

    def _as_error(self, error: BaseException) -> BaseException:
        exit_error = exit_of(error, f"the model {self.model}")
        return error if exit_error is None else ModelError(exit_error)

    def report(self, outputs: Mapping[str, Any] | None = None, error: BaseException | None = None) -> PredictorCalled:
        """Emit an event with the request and the reply or error."""
        return self._emit(outputs, error, self.scope.open_span)

    def _emit(
        self,
        outputs: Mapping[str, Any] | None,
        error: BaseException | None,
        parent: int,
        *,
        hint: str | None = None,
        candidate: str | None = None,
        repair: bool = False,
        native_reasoning: bool | None = None,
    ) -> PredictorCalled:
        reply = self._facts_of_failed_call(error) if self.reply is None else self.reply
        request = self.request
        inputs, messages, hint = redact_values((self.inputs, without_data(request.messages), hint))
        waited = self.paused + reply.waited
        event = PredictorCalled(
            span=new_span(),
            parent=parent,
            predictor=self.path,
            uid=self.uid,
            inputs=inputs,
            messages=messages,
            hint=hint,
            candidate=candidate,
            reply=None if self.reply is None else reply.text,
            tool_calls=reply.tool_calls,
            outputs=outputs,
            error=None if error is None else error_text(error),
            usage=reply.usage,
            cached=reply.cached,
            seconds=max(0.0, time.perf_counter() - self.began - waited),
            rollout=request.rollout,
            model=self.model,
            repair=repair,
            requested=recorded_settings(self.requested()),
            sent=None if reply.sent is None else recorded_settings(reply.sent),
            reasoning=reply.reasoning,
            completions=reply.completions if len(reply.completions) > 1 else (),
            truncated=self.reply is not None and is_truncated(reply),
            finish=finish_reason(reply.finish),
            request_id=reply.request_id,
            response_id=reply.response_id,
            waited=waited,
            first_token=reply.first_token,
            tools=request.tools,
            response_format=request.response_format,
            response_model=reply.response_model,
            server=None if reply.cached else getattr(self.lm, SERVER, None),
            price_source=None if reply.cached else reply.price_source,
            role=self.scope.context.role,
            native_reasoning=native_reasoning,
            estimated=0 if self.estimated_usage is None else self.estimated_usage.tokens or 0,
            completion_reasoning=reply.completion_reasoning if len(reply.completions) > 1 else (),
        )
        self.scope.emit(event)
        remember(event)
        return event

    def _facts_of_failed_call(self, error: BaseException | None) -> LMReply:
        """What is known of a call without a reply, from its error. Its usage is the one that the error reports, else
        one call and its retries; zero if no model replied, or if the request was refused without a bill."""
        reasoning = getattr(error, "reasoning", None) or self._streamed_thinking()
        if isinstance(error, asyncio.CancelledError | Halted):
            sent = None if self.sent == self.requested() else self.sent
            reply = LMReply("") if self.pending is None else self.pending.reply_so_far()
            return replace(reply, usage=self.whole_usage(reply.usage), sent=sent, reasoning=reasoning)
        if not isinstance(error, ModelError):
            return LMReply("", usage=Usage())
        usage = error.usage
        if usage is None:
            usage = Usage(calls=0 if is_free_refusal(error) else 1, retries=error.retries)
        return LMReply(
            "",
            usage=self.whole_usage(usage),
            cached=error.cached,
            finish=error.finish,
            reasoning=reasoning,
            sent=error.sent,
            request_id=error.request_id,
            response_id=error.response_id,
            waited=error.waited,
            first_token=error.first_token,
            response_model=error.response_model,
        )

    def _streamed_thinking(self) -> str | None:
        """The thinking of a reply that did not arrive as a whole, without secrets; None if nothing arrived."""
        if self.progress is None:
            return None
        return redact_known(self.progress.read().thinking.strip(BLANK)) or None


def _has_own_stream(lm: object) -> bool:
    """Whether the ``stream`` of a model belongs to its ``complete``: a subclass may have another ``complete`` only."""
    if "complete" in getattr(lm, "__dict__", ()):
        return False
    for cls in type(lm).__mro__:
        if "stream" in vars(cls):
            return True
        if "complete" in vars(cls):
            return False
    return False


async def ask_model(call: ModelCall) -> LMReply:
    """The end of the chain: call any model, and check its reply."""
    own_price = read_own_price(call.lm, call.model)  # a price that is not valid must not cost a reply
    is_streamed = call.listener is not None or (call.progress is not None and _has_own_stream(call.lm))
    stream = getattr(call.lm, "stream", None) if is_streamed else None
    if stream is None:
        reply = await call.lm.complete(call.request)
    else:
        reply = await stream(call.request, call.pass_on)
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
    reply = at_own_price(reply, own_price)
    accept_truncated = getattr(call.lm, "truncated", "error") == "accept"
    return check_reply(reply, call.requested(), call.model, accept_truncated=accept_truncated)


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
        finish="length" if event.truncated else event.finish,
        reasoning=event.reasoning,
        completions=event.completions,
        sent=event.sent if event.sent is not None else event.requested or None,  # older files have neither
        completion_reasoning=event.completion_reasoning,
    )
