"""One request of a model that waits for its limits, is adapted to the model, and is sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dspynb.errors import BadRequestError, ModelError, ModelTimeout, UnsupportedParameter
from dspynb.lm.adaptation import Adaptation
from dspynb.lm.interceptors.budget import settle, settle_unknown
from dspynb.lm.interceptors.chain import ModelCall
from dspynb.lm.limits import Limits
from dspynb.lm.protocol import LMReply, LMRequest
from dspynb.lm.providers.engine import Engine, needs_stream
from dspynb.scope.budget import about_tokens
from dspynb.scope.core import current_scope
from dspynb.scope.gate import GATE

__all__ = ["PendingRequest"]

_USAGE = "stream_options"
"""The field of a request that asks for the usage of a stream."""
Check = Callable[[LMReply, Mapping[str, Any]], LMReply]
"""Returns a reply that is an answer; gets the reply and the settings that were sent. Raises ModelError."""


class PendingRequest:
    """The request of one call with its limits. It is not retried after the first piece of a streamed text.

    ``settings``: those of the request, merged with those of the model. ``streams``: whether the reply is streamed.
    ``first_token``: the seconds from sending to the first piece of a streamed reply, which may be reasoning; None
    without one. ``request_id``: the provider's id of the last request; None if it has not arrived, or the provider
    sends none.
    """

    __slots__ = (
        "_has_streamed",
        "_sent_at",
        "_started",
        "_worked",
        "adaptation",
        "call",
        "check",
        "engine",
        "first_token",
        "limits",
        "request",
        "request_id",
        "settings",
        "streams",
    )

    def __init__(
        self,
        call: ModelCall,
        settings: Mapping[str, Any],
        *,
        limits: Limits,
        engine: Engine,
        adaptation: Adaptation,
        check: Check,
        streams: bool,
    ) -> None:
        self.limits = limits
        self.engine = engine
        self.adaptation = adaptation
        self.check = check
        self.call = call
        self.request = call.request
        self.settings = settings
        self.streams = streams
        self.first_token: float | None = None
        self.request_id: str | None = None
        self._started = time.perf_counter()
        self._worked = 0.0
        self._sent_at: float | None = None  # None while the request is not sent
        self._has_streamed = False
        call.pending = self
        call.is_sent = False

    def times(self) -> tuple[float, float]:
        """The seconds in which the provider worked on the request, in all tries so far, and those in which the request
        waited for its limits or a retry."""
        now = time.perf_counter()
        worked = self._worked
        if self._sent_at is not None:
            worked += now - self._sent_at
        return worked, now - self._started - worked

    def reply_so_far(self) -> LMReply:
        return LMReply("", waited=self.times()[1], first_token=self.first_token, request_id=self.request_id)

    def note_facts(self, error: ModelError) -> None:
        """Set on the error of the call its times, and the id of its request."""
        worked, error.waited = self.times()
        error.first_token = self.first_token
        error.request_id = error.request_id or self.request_id
        if error.usage is not None:
            error.usage = error.usage.timed(worked, error.retries)

    async def attempt(self) -> LMReply:
        """Send the request once, within the limits. A paused run holds no slot."""
        if self.limits.paced:
            await self.limits.pace(_estimated_tokens(self.request, self.settings))
        while True:
            if GATE.shut:
                await GATE.passed(current_scope())
            async with self.limits.slots:
                if not (GATE.shut and GATE.holding(current_scope())):
                    reply = await self.adaptation.send(self.request, self.settings, self._send)
                    try:
                        return self.check(reply, self.settings if reply.sent is None else reply.sent)
                    except ModelError as error:
                        error.sent = reply.sent
                        raise

    async def _send(self, request: LMRequest, settings: Mapping[str, Any]) -> LMReply:
        self.call.sent = None if settings is self.settings else settings
        self.request_id = None
        if self.engine.profile is not self.adaptation.profile:
            self.engine.fit(self.adaptation.profile)
        self._sent_at = sent_at = time.perf_counter()
        self.call.is_sent = True
        try:
            if self.streams or self.adaptation.needs_stream:
                return await self._stream(request, settings)
            return await self._complete(request, settings)
        finally:
            self._worked += time.perf_counter() - sent_at
            self._sent_at = None

    async def _complete(self, request: LMRequest, settings: Mapping[str, Any]) -> LMReply:
        """Send the request; once more as a stream if the server takes nothing else."""
        try:
            return await self.engine.complete(request, settings, on_response=self._note_response)
        except BadRequestError as error:
            if not needs_stream(error):
                raise
        self.adaptation.needs_stream = True
        return await self._stream(request, settings)

    async def _stream(self, request: LMRequest, settings: Mapping[str, Any]) -> LMReply:
        self.engine.asks_for_usage = _USAGE not in self.adaptation.profile.refused
        progress = self.call.progress
        on_thinking = None
        if progress is not None:
            progress.restart()
            on_thinking = progress.add_thinking
        try:
            return await self.engine.complete(request, settings, self._pass_on, on_thinking, self._note_response)
        except UnsupportedParameter as error:
            if self._has_streamed:  # the listener has a part of the reply, which cannot be taken back
                raise BadRequestError(error.problem, model=error.model, status=error.status) from error
            if error.parameter != _USAGE or not self.engine.asks_for_usage:
                raise
        self.adaptation.refuse(_USAGE)
        self.engine.asks_for_usage = False
        return await self.engine.complete(request, settings, self._pass_on, on_thinking, self._note_response)

    async def before_retry(self, error: ModelError) -> None:
        """Raise ``error`` if a piece of the text has arrived, or Halted if the run or a budget allows no retry."""
        if self._has_streamed:
            raise error
        scope = self.call.scope
        scope.admit()
        try:
            await self._settle_try(error)
        except BaseException:
            scope.give_back(1)
            raise
        self.first_token = None

    async def _settle_try(self, error: ModelError) -> None:
        """Count what the try cost that has failed with this error, and reserve the next one."""
        call = self.call
        if error.usage is not None:
            usage = replace(error.usage, calls=0, retries=0)  # the call and its retries are counted in another place
            call.billed = usage if call.billed is None else call.billed + usage
            settle(call, usage, error)
        elif isinstance(error, ModelTimeout):
            settle_unknown(call)
        elif call.reservation is not None:
            call.reservation.cancel()
        call.is_sent = False
        if call.reservation is not None:
            await call.scope.reserve(call.reservation)

    def _note_response(self, request_id: str | None) -> None:
        self.request_id = request_id

    def _pass_on(self, text: str) -> None:
        if self.first_token is None and self._sent_at is not None:
            self.first_token = time.perf_counter() - self._sent_at
        if text:
            self._has_streamed = self.call.listener is not None
            self.call.pass_on(text)


def _estimated_tokens(request: LMRequest, settings: Mapping[str, Any]) -> float:
    """An estimate of the tokens of a request and its reply: four characters per token, plus ``max_tokens``.

    An image or file counts by its short description, since its size in bytes says little about its tokens.
    """
    return about_tokens(request.messages) + float(settings.get("max_tokens") or 0)
