"""Adapting requests to a model: settings that it does not take are renamed, moved into its range, or left out.

``adapt`` applies the model's profile before a request is sent. ``Adaptation`` holds the profile of one ``LM`` and
changes it where the server refuses a setting.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import warnings
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from dspynb.errors import ModelAdaptedWarning, UnsupportedParameter
from dspynb.lm.profiles import LIMIT_NAMES, ModelProfile
from dspynb.lm.protocol import LMReply, LMRequest

__all__ = ["TOOL_SETTINGS", "Adaptation", "AdaptedRequest", "Change", "adapt"]

TOOL_SETTINGS = frozenset({"tools", "tool_choice", "functions", "function_call", "parallel_tool_calls"})
"""Settings that only a model with native tools takes."""
_EFFORT = "reasoning_effort"
"""The name under which servers take ``effort``."""
_FIRST_CALL_SECONDS = 1.0
"""A refusal comes within one round trip. A first call that takes longer than this was probably not refused, so the
calls that wait for it go on."""


_STRICT_ADVICE = "leave it out, use a value that the model takes, or use dn.LM(…) without strict=True"
_SEE = "run.calls has the settings as requested and as sent; dn.LM(…, strict=True) raises instead"
Outline = tuple[Mapping[str, Any], bool, bool]
"""Settings of a request, and whether it has no response format and no tools."""
_EMPTY_OUTLINE: Outline = ({}, True, True)
_MOST_ACCEPTED = 4
"""Requests that the server takes as they are, of which a model remembers so many outlines."""
Send = Callable[[LMRequest, Mapping[str, Any]], Awaitable[LMReply]]
"""Sends a request with its settings."""


class Change(NamedTuple):
    """A change to a setting: its name, and what was done to it, for people."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class AdaptedRequest:
    """A request as it is sent. ``settings``: with the names and values that the model takes. ``changes``: what differs
    from the requested settings."""

    request: LMRequest
    settings: Mapping[str, Any]
    changes: tuple[Change, ...] = ()


def adapt(profile: ModelProfile, request: LMRequest, settings: Mapping[str, Any]) -> AdaptedRequest:
    """Adapt a request and its merged settings to a model."""
    if not settings and request.response_format is None:
        return AdaptedRequest(request, settings)
    sent: dict[str, Any] = {}
    changes: list[Change] = []
    for name, value in settings.items():
        if value is None or name in ("extra_body", "extra_headers"):
            sent[name] = value
        elif name in LIMIT_NAMES:
            _rename_limit(profile, name, value, sent, changes)
        elif profile.refuses(name, value, settings):
            changes.append(Change(name, f"{name}={_short(value)} was left out"))
        elif name in profile.ranges:
            _fit_into_range(profile.ranges[name], name, value, sent, changes)
        elif name in ("effort", _EFFORT):
            _choose_effort(profile, name, value, sent, changes)
        else:
            sent[name] = value
    return _with_format(profile, AdaptedRequest(request, sent, tuple(changes)))


def _fit_into_range(
    bounds: tuple[float, float], name: str, value: Any, sent: dict[str, Any], changes: list[Change]
) -> None:
    low, high = bounds
    if not isinstance(value, int | float) or low <= value <= high:
        sent[name] = value
    elif low == high:
        changes.append(Change(name, f"{name}={value:g} was left out: only {low:g} is allowed"))
    else:
        nearest = min(max(value, low), high)
        sent[name] = int(nearest) if isinstance(value, int) else nearest
        changes.append(Change(name, f"{name}={value:g} became {nearest:g}: allowed are {low:g} to {high:g}"))


def _rename_limit(profile: ModelProfile, name: str, value: Any, sent: dict[str, Any], changes: list[Change]) -> None:
    names = [profile.limit_name or name, *LIMIT_NAMES]
    new_name = next((known_name for known_name in names if known_name not in profile.refused), None)
    if new_name is None:
        changes.append(Change(name, f"{name}={value} was left out"))
    elif new_name in profile.ranges:
        _fit_into_range(profile.ranges[new_name], new_name, value, sent, changes)
    else:
        sent[new_name] = value
        if new_name != name:
            changes.append(Change(name, f"{name}={value} was sent as {new_name}"))


def _choose_effort(profile: ModelProfile, name: str, value: Any, sent: dict[str, Any], changes: list[Change]) -> None:
    level = profile.nearest_effort(value) if isinstance(value, str) else value
    if level is None:
        changes.append(Change(name, f"{name}={_short(value)} was left out"))
        return
    sent[_EFFORT] = level
    if level != value:
        levels = ", ".join(profile.efforts or ())
        changes.append(Change(name, f"{name}={_short(value)} became {level!r}: allowed are {levels}"))


def _with_format(profile: ModelProfile, adapted: AdaptedRequest) -> AdaptedRequest:
    """Replace a kind of structured output that the model does not take by the strictest one that it takes, or by none:
    the prompt describes the format as well."""
    kind = _format_kind(adapted)
    if kind is None or kind in profile.response_formats:
        return adapted
    settings = {name: value for name, value in adapted.settings.items() if name != "response_format"}
    text = "response_format was left out"
    if kind == "json_schema" and "json_object" in profile.response_formats:
        settings["response_format"] = {"type": "json_object"}
        text = "response_format became {'type': 'json_object'}"
    changes = (*adapted.changes, Change("response_format", text))
    return AdaptedRequest(replace(adapted.request, response_format=None), settings, changes)


def _format_kind(adapted: AdaptedRequest) -> str | None:
    """The kind of structured output of a request; None if it has none, or a kind that only its server knows."""
    setting = adapted.settings.get("response_format")
    if isinstance(setting, Mapping):
        kind = setting.get("type")
        return str(kind) if kind in ("json_schema", "json_object") else None
    if setting is None and adapted.request.response_format is not None:
        return "json_schema"
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


class Adaptation:
    """The profile of one ``LM``, which changes where the server refuses a setting.

    Several calls, threads and event loops may share it: a profile is replaced as a whole.
    """

    def __init__(self, model: str, profile: ModelProfile, *, strict: bool = False) -> None:
        self.model = model
        self.profile = profile
        self._known_profile = profile
        self.strict = strict
        self._taken: frozenset[Any] = frozenset()  # settings, with their values, that the server has taken
        self._accepted: tuple[Outline, ...] = (_EMPTY_OUTLINE,)
        self._warned: frozenset[str] = frozenset()  # changes that a warning has named
        self._first_calls: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[None]] = WeakKeyDictionary()

    @property
    def has_learned(self) -> bool:
        """Whether a refusal has changed the profile."""
        return self.profile is not self._known_profile

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_first_calls"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _first_calls=WeakKeyDictionary())

    def adapt(self, request: LMRequest, settings: Mapping[str, Any]) -> AdaptedRequest:
        """Adapt a request. Warns once of each change. Raises UnsupportedParameter in strict mode if a setting would be
        changed."""
        adapted = adapt(self.profile, request, settings)
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
        new_texts = [change.text for change in changes if change.text not in self._warned]
        if new_texts:
            self._warned |= set(new_texts)
            message = f"{self.model} does not take these settings as requested: {'; '.join(new_texts)} ({_SEE})"
            warnings.warn(ModelAdaptedWarning(message), stacklevel=2)

    async def send(self, request: LMRequest, settings: Mapping[str, Any], send: Send) -> LMReply:
        """Adapt a request and send it. Where the server refuses a setting, adapt the request again and repeat it.

        While the first call with some settings is under way, other calls with new settings wait for it, so that a
        server refuses a setting once and not for each of them.
        """
        outline = (settings, request.response_format is None, not request.tools)
        if outline in self._accepted:
            try:
                return await send(request, settings)
            except UnsupportedParameter:  # the server has changed its mind
                self._accepted = (_EMPTY_OUTLINE,)
        adapted = self.adapt(request, settings)
        loop = asyncio.get_running_loop()
        first_call = self._first_calls.get(loop)
        if _proofs(adapted) <= self._taken:
            return await self._send(adapted, request, settings, send)
        if first_call is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_CALL_SECONDS):
                    await asyncio.shield(first_call)
            return await self._send(self.adapt(request, settings), request, settings, send)
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
        while True:  # each refusal removes something from the request
            try:
                reply = await send(adapted.request, adapted.settings)
            except UnsupportedParameter as refusal:
                if self.strict:
                    raise
                has_learned = self.learn(refusal, adapted)
                before = adapted
                adapted = self.adapt(request, settings)
                if not has_learned and adapted == before:  # nor has another call, while this one was under way
                    raise
                continue
            self._taken |= _proofs(adapted)
            if adapted.changes:
                return replace(reply, sent=adapted.settings)
            self._accept(request, settings)
            return reply

    def _accept(self, request: LMRequest, settings: Mapping[str, Any]) -> None:
        """Remember that the server takes requests with these settings as they are, so that they need no further
        checks."""
        outline = (settings, request.response_format is None, not request.tools)
        if outline not in self._accepted:
            self._accepted = (outline, *self._accepted[: _MOST_ACCEPTED - 1])

    def learn(self, refusal: UnsupportedParameter, adapted: AdaptedRequest) -> bool:
        """Change the profile after a refusal. Returns False if the request cannot be adapted to it: the parameter is
        unknown or is no setting."""
        name = _refused_setting(refusal, adapted.settings)
        if name in TOOL_SETTINGS and adapted.request.tools:
            self.profile = replace(self.profile, native_tools=False)  # only the module can do without tools
            return False
        if name == "response_format":
            return self._learn_format(adapted)
        value = adapted.settings.get(name)
        if value is None or name in self.profile.refused:
            return False
        allowed = refusal.allowed
        if allowed is not None and isinstance(value, int | float) and not allowed[0] <= value <= allowed[1]:
            self.profile = replace(self.profile, ranges={**self.profile.ranges, name: allowed})
        else:
            self.profile = replace(self.profile, refused=self.profile.refused | {name})
        return True

    def _learn_format(self, adapted: AdaptedRequest) -> bool:
        kind = _format_kind(adapted)
        formats = self.profile.response_formats
        if kind not in formats:
            return False
        self.profile = replace(self.profile, response_formats=formats[formats.index(kind) + 1 :])
        return True


def _refused_setting(refusal: UnsupportedParameter, settings: Mapping[str, Any]) -> str:
    """The setting that a provider means, which may have another spelling there, such as ``maxOutputTokens``.

    If no setting has the name that was read from the message, it is the first setting that the message mentions.
    """
    parameter = refusal.parameter
    if parameter in settings or parameter in TOOL_SETTINGS or parameter == "response_format":
        return parameter
    word = parameter.lower().replace("_", "").replace("-", "")
    for name in settings:
        if name.replace("_", "") == word:
            return name
    if "token" in word:
        return next((name for name in LIMIT_NAMES if name in settings), parameter)
    mentions = {name: re.search(rf"\b{name}\b", refusal.problem) for name in settings}
    positions = {name: match.start() for name, match in mentions.items() if match is not None}
    return min(positions, key=lambda name: positions[name], default=parameter)


def _proofs(adapted: AdaptedRequest) -> frozenset[Any]:
    """What a server takes if it answers the request: its settings, with their values if these are numbers or texts."""
    proofs: set[Any] = set()
    for name, value in adapted.settings.items():
        proofs.add((name, value) if isinstance(value, int | float | str) else name)
    if adapted.request.response_format is not None:
        proofs.add("response_format")
    if adapted.request.tools:
        proofs.add("tools")
    return frozenset(proofs)
