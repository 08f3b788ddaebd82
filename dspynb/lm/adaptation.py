"""The profile of one ``LM``, which changes where the server refuses a setting; then the request is adapted again."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

from dspynb.errors import (
    BadRequestError,
    ModelAdaptedWarning,
    ModelError,
    ModelNotFound,
    UnsupportedParameter,
)
from dspynb.events import ProfileChanged, new_span
from dspynb.lm.adapted_request import AdaptedRequest, Change, adapt, format_kind
from dspynb.lm.learned_profile import learned_changes, with_changes
from dspynb.lm.profiles import ModelProfile, in_responses_format
from dspynb.lm.protocol import LMReply, LMRequest
from dspynb.lm.providers.direct_formats import is_without_path, needs_responses
from dspynb.lm.providers.responses_request import OWN_FIELDS
from dspynb.lm.providers.wire_formats import OPENAI_CHAT, OPENAI_RESPONSES
from dspynb.lm.refused_settings import TOOL_SETTINGS, narrower_range, refused_setting, room_for_reply
from dspynb.lm.settings import recorded_settings
from dspynb.scope.core import RunPort, current_scope, warn_user

__all__ = ["Adaptation"]

_FIRST_CALL_SECONDS = 1.0
"""A refusal comes within one round trip. A first call that takes longer than this was probably not refused, so the
calls that wait for it go on."""


_STRICT_ADVICE = "leave it out, use a value that the model takes, or use dn.LM(…) without strict=True"
_SEE = "run.calls has the settings as requested and as sent; dn.LM(…, strict=True) raises instead"
Outline = tuple[Mapping[str, Any], bool, bool]
"""Settings of a request, and whether it has no response format and no tools."""
_EMPTY_OUTLINE: Outline = ({}, True, True)
_SAMPLED = frozenset({"temperature", "top_p", "n"})
"""Settings of which a server takes some values only. Of others it takes each value or none."""
_MOST_ACCEPTED = 4
"""Requests that the server takes as they are, of which a model remembers so many outlines."""
Send = Callable[[LMRequest, Mapping[str, Any]], Awaitable[LMReply]]
"""Sends a request with its settings."""


@dataclass(slots=True)
class _Sending:
    """A request that a server has refused at least once.

    ``profile_before``: the profile before the first refusal. ``refused``: the adapted requests that were refused.
    ``room``: limits that hold for this prompt only. ``in_chat``: the refusal of the chat format and the request in it,
    after which the request was sent in the Responses format.
    """

    request: LMRequest
    settings: Mapping[str, Any]
    profile_before: ModelProfile
    refused: list[AdaptedRequest] = field(default_factory=list)
    room: dict[str, tuple[float, float]] = field(default_factory=dict)
    in_chat: tuple[BadRequestError, AdaptedRequest] | None = None


class Adaptation:
    """The profile of one ``LM``, which changes where the server refuses a setting.

    Several calls, threads and event loops may share it: a profile is replaced as a whole.
    """

    def __init__(self, model: str, profile: ModelProfile, *, strict: bool = False, key: str = "") -> None:
        """``key``: identifies the model in run files."""
        self.model = model
        self.key = key
        self.profile = profile
        self.strict = strict
        self._known_profile = profile
        self.refuses_tools = False
        """Whether the server has refused the descriptions of tools."""
        self.needs_stream = False
        """Whether the server has refused a request because it was not streamed."""
        self.has_learned = False
        """Whether a refusal has changed the profile."""
        self._takes_chat_only = False  # whether the server has said that it has no Responses API for this model
        self._warned: frozenset[str] = frozenset()  # settings that a warning has named
        self._forget_requests()

    def _forget_requests(self) -> None:
        """Forget which requests the server has taken, and which runs have recorded what refusals have taught."""
        self._recorded_profiles: WeakKeyDictionary[RunPort, ModelProfile] = WeakKeyDictionary()
        self._applied_changes: object = None
        self._accepted: tuple[Outline, ...] = (_EMPTY_OUTLINE,)
        self._taken: frozenset[str] = frozenset()  # names of settings that the server has taken
        self._taken_ranges: dict[str, tuple[float, float]] = {}  # the smallest and largest value that it has taken
        self._first_calls: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[None]] = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        # Without settings of requests, which may hold secrets.
        public = ("model", "key", "profile", "strict", "refuses_tools", "needs_stream", "has_learned")
        names = (*public, "_known_profile", "_warned", "_takes_chat_only")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget_requests()

    def adapt(self, request: LMRequest, settings: Mapping[str, Any]) -> AdaptedRequest:
        """Adapt a request. Warns once of each setting that is changed. Raises UnsupportedParameter in strict mode if a
        setting would be changed, and for tools that the server has refused before."""
        return self._adapt(self.profile, request, settings)

    def _adapt(self, profile: ModelProfile, request: LMRequest, settings: Mapping[str, Any]) -> AdaptedRequest:
        if request.tools and self.refuses_tools:
            problem = "the server takes no descriptions of tools, as it has said before"
            raise UnsupportedParameter(problem, model=self.model, parameter="tools", advice=UnsupportedParameter.remedy)
        adapted = adapt(profile, request, settings)
        if adapted.changes:
            self._check_changes(adapted.changes)
        return adapted

    def _check_changes(self, changes: tuple[Change, ...]) -> None:
        if self.strict:
            change = changes[0]
            problem = (
                f"the model does not take the setting {change.name} as requested (without strict=True: {change.text})"
            )
            raise UnsupportedParameter(problem, model=self.model, parameter=change.name, advice=_STRICT_ADVICE)
        self._warn(changes)

    def _warn(self, changes: tuple[Change, ...]) -> None:
        """Warn of the changes to settings that no warning has named yet."""
        new_changes = [change for change in changes if change.name not in self._warned]
        if new_changes:
            self._warned |= {change.name for change in new_changes}
            texts = "; ".join(change.text for change in new_changes)
            message = f"{self.model} does not take these settings as requested: {texts} ({_SEE})"
            warn_user(message, ModelAdaptedWarning)

    def warn_of_text_tools(self) -> None:
        """Warn once that an agent describes its tools in the prompt, if the server has refused them."""
        if self.refuses_tools:
            self._warn((Change("tools", "tools were refused, and are described in the prompt"),))

    async def send(self, request: LMRequest, settings: Mapping[str, Any], send: Send) -> LMReply:
        """Adapt a request and send it. Where the server refuses a setting, adapt the request again and repeat it.

        While the first call with some settings is under way, other calls with new settings wait for it, for one second
        at most. So a server refuses a setting once, and not for each of them.
        """
        if (settings, request.response_format is None, not request.tools) in self._accepted:
            return await self._send(AdaptedRequest(request, settings), request, settings, send)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _FIRST_CALL_SECONDS
        while True:
            adapted = self.adapt(request, settings)
            first_call = self._first_calls.get(loop)
            if self._has_taken(adapted) or loop.time() >= deadline:
                return await self._send(adapted, request, settings, send)
            if first_call is None:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await asyncio.shield(first_call)
        self._first_calls[loop] = ended = loop.create_future()
        try:
            return await self._send(adapted, request, settings, send)
        finally:
            self._first_calls.pop(loop, None)
            if not loop.is_closed():
                ended.set_result(None)

    async def _send(
        self, adapted: AdaptedRequest, request: LMRequest, settings: Mapping[str, Any], send: Send
    ) -> LMReply:
        if self.has_learned:
            self._record_changes()
        profile_before = self.profile
        sending: _Sending | None = None
        while True:
            sent_profile = self.profile
            try:
                reply = await send(adapted.request, adapted.settings)
            except BadRequestError as error:
                sending = sending or _Sending(request, settings, profile_before)
                adapted = self._adapt_again(error, adapted, sent_profile, sending)
                continue
            except ModelError as error:
                error.sent = _as_sent(adapted, settings)
                raise
            sent = _as_sent(adapted, settings)
            if sent is not None:
                self._note_taken(adapted)
                return replace(reply, sent=sent)
            self._accept(adapted)
            return reply

    def _adapt_again(
        self, error: BadRequestError, adapted: AdaptedRequest, sent_profile: ModelProfile, sending: _Sending
    ) -> AdaptedRequest:
        """Adapt a request after it was refused. Raises ``error`` if nothing is left to adapt. ``sent_profile``: the
        profile with which it was sent."""
        if sending.in_chat is not None and _has_no_responses(error):
            error, adapted = sending.in_chat
            sending.in_chat = None
            self._takes_chat_only = True
            self._restore(sending.profile_before)
        elif self._learn_format(error, sent_profile):
            if sent_profile.wire_format == OPENAI_CHAT:
                sending.in_chat = (error, adapted)
            return self._adapt(self.profile, sending.request, sending.settings)
        if self.strict or not isinstance(error, UnsupportedParameter):
            error.sent = _as_sent(adapted, sending.settings)
            raise error
        self._accepted = (_EMPTY_OUTLINE,)
        sending.refused.append(adapted)
        learned_profile = self._profile_after(error, adapted, sending.room)
        profile = replace(learned_profile, ranges={**learned_profile.ranges, **sending.room})
        adapted = self._adapt(profile, sending.request, sending.settings)
        if adapted in sending.refused:  # nothing is left to adapt
            if self.profile is learned_profile:
                self._restore(sending.profile_before)
            error.sent = _as_sent(sending.refused[-1], sending.settings)
            raise error
        return adapted

    def _restore(self, profile: ModelProfile) -> None:
        self.profile = profile
        self._record_changes()

    def _profile_after(
        self, refusal: UnsupportedParameter, adapted: AdaptedRequest, room: dict[str, tuple[float, float]]
    ) -> ModelProfile:
        """Learn from the refusal of a setting, and return the profile. A limit that holds for this prompt only is added
        to ``room`` instead."""
        room_now = room_for_reply(refusal, adapted)
        if room_now is None:
            self.learn(refusal, adapted)
            self._record_changes()
        room |= room_now or {}
        return self.profile

    def _learn_format(self, refusal: BadRequestError, sent_profile: ModelProfile) -> bool:
        """Change the profile after a refusal of the format, or of a field that each request in this format has. Returns
        whether the request is to be sent again. ``sent_profile``: the profile with which it was sent."""
        if refusal.status is None or refusal.status < 400:
            return False
        if sent_profile.wire_format == OPENAI_RESPONSES:
            name = refusal.parameter if isinstance(refusal, UnsupportedParameter) else ""
            if name not in OWN_FIELDS - sent_profile.refused:
                return False
            if name not in self.profile.refused:
                self.refuse(name)
            return True
        if self.strict or self._takes_chat_only or sent_profile.wire_format != OPENAI_CHAT:
            return False
        if not needs_responses(refusal):
            return False
        if self.profile.wire_format == OPENAI_CHAT:  # else another call has learned it meanwhile
            self._accepted = (_EMPTY_OUTLINE,)
            self.profile = in_responses_format(self.profile)
            self.has_learned = True
            self._record_changes()
        return True

    def _accept(self, adapted: AdaptedRequest) -> None:
        """Remember that the server takes requests with these settings as they are, so that they need no further
        checks."""
        outline = (adapted.settings, adapted.request.response_format is None, not adapted.request.tools)
        if outline not in self._accepted:
            self._note_taken(adapted)
            self._accepted = (outline, *self._accepted[: _MOST_ACCEPTED - 1])

    def _note_taken(self, adapted: AdaptedRequest) -> None:
        names = _names(adapted)
        if not names <= self._taken:
            self._taken |= names
        for name in _SAMPLED & names:
            value = adapted.settings[name]
            if isinstance(value, int | float):
                low, high = self._taken_ranges.get(name, (value, value))
                self._taken_ranges[name] = (min(low, value), max(high, value))

    def _has_taken(self, adapted: AdaptedRequest) -> bool:
        """Whether the server has taken requests with these settings before, and sampling settings of such values."""
        names = _names(adapted)
        if not names <= self._taken:
            return False
        for name in _SAMPLED & names:
            value = adapted.settings[name]
            low, high = self._taken_ranges.get(name, (math.inf, -math.inf))
            if isinstance(value, int | float) and not low <= value <= high:
                return False
        return True

    def refuse(self, name: str) -> None:
        """Note that the server refuses a field which is no setting of the request."""
        self.profile = replace(self.profile, refused=self.profile.refused | {name})
        self.has_learned = True
        self._record_changes()

    def apply_recorded(self, changes: Mapping[str, Any]) -> None:
        """Apply the changes that the file of a resumed run has for this model, once."""
        if changes is self._applied_changes:
            return
        self._applied_changes = changes
        profile = with_changes(self.profile, changes)
        if profile == self.profile:
            return
        if profile.native_tools is False and self.profile.native_tools is not False:
            self.refuses_tools = True
        self.profile = profile
        self.has_learned = True
        self._accepted = (_EMPTY_OUTLINE,)

    def _record_changes(self) -> None:
        """Record what refusals have changed in the runs around the call that have not recorded it yet."""
        scope = current_scope()
        runs = scope.open_runs()
        profile = self.profile
        if all(self._recorded_profiles.get(run) is profile for run in runs):
            return
        for run in runs:
            self._recorded_profiles[run] = profile
        changes = learned_changes(self._known_profile, profile)
        scope.emit(ProfileChanged(span=scope.open_span or new_span(), model=self.model, key=self.key, changes=changes))

    def learn(self, refusal: UnsupportedParameter, adapted: AdaptedRequest) -> None:
        """Change the profile after a refusal, if the refused parameter is a setting of the request."""
        name = refused_setting(refusal, adapted.settings)
        changed: dict[str, Any] = {}
        if name == "response_format":
            formats = self.profile.response_formats
            kind = format_kind(adapted)
            if kind in formats:
                changed["response_formats"] = formats[formats.index(kind) + 1 :]
        elif name in adapted.settings:
            bounds = narrower_range(refusal.allowed, self.profile.ranges.get(name), adapted.settings[name])
            if bounds is None:
                changed["refused"] = self.profile.refused | {name}
            else:
                changed["ranges"] = {**self.profile.ranges, name: bounds}
        elif name in TOOL_SETTINGS and adapted.request.tools:
            self.refuses_tools = True  # only the module can do without tools
            changed["native_tools"] = False
        if changed:
            self.profile = replace(self.profile, **changed)
            self.has_learned = True


def _has_no_responses(error: BadRequestError) -> bool:
    """Whether a server does not have the Responses API, or not for this model."""
    return isinstance(error, ModelNotFound) or is_without_path(error)


def _as_sent(adapted: AdaptedRequest, requested: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The settings as they were sent, without secrets; None if they were sent as requested."""
    if adapted.changes or adapted.settings != requested:  # effort gets the name of the server without a change
        return recorded_settings(adapted.settings)
    return None


def _names(adapted: AdaptedRequest) -> frozenset[str]:
    """The names of what a server could refuse in a request."""
    names = set(adapted.settings)
    if adapted.request.response_format is not None:
        names.add("response_format")
    if adapted.request.tools:
        names.add("tools")
    return frozenset(names)
