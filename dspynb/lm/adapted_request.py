"""Adapting a request to a model's profile: settings that the model does not take are renamed, moved into its range, or
left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from dspynb.lm.format_in_words import ask_for_json
from dspynb.lm.profiles import LIMIT_NAMES, ModelProfile
from dspynb.lm.protocol import LMRequest

__all__ = ["AdaptedRequest", "Change", "adapt", "format_kind"]

_EFFORT = "reasoning_effort"
"""The name under which servers take ``effort``."""
_WHOLE_NUMBERS = frozenset({"max_tokens", "max_completion_tokens", "n", "seed", "top_logprobs"})


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
    changes: list[Change] = []
    requested = _with_effort(profile, settings, changes)
    sent: dict[str, Any] = {}
    for name, value in requested.items():
        if name in ("extra_body", "extra_headers"):
            sent[name] = value
        elif value is None:  # is sent as null
            if name not in profile.refused:
                sent[name] = None
        elif name in LIMIT_NAMES:
            _rename_limit(profile, name, value, sent, changes)
        elif profile.refuses(name, value, requested):
            changes.append(Change(name, f"{name}={_short(value)} was left out"))
        elif name in profile.ranges:
            _fit_into_range(profile.ranges[name], name, value, sent, changes)
        else:
            sent[name] = value
    return _with_format(profile, AdaptedRequest(request, sent, tuple(changes)))


def _with_effort(profile: ModelProfile, settings: Mapping[str, Any], changes: list[Change]) -> Mapping[str, Any]:
    """The settings with the effort under the name and at the level that the model takes."""
    if "effort" not in settings and _EFFORT not in settings:
        return settings
    name = "effort" if "effort" in settings else _EFFORT
    value = settings[name]
    requested = {key: other for key, other in settings.items() if key not in ("effort", _EFFORT)}
    level = profile.nearest_effort(value) if isinstance(value, str) else value
    if level is None and value is not None:
        changes.append(Change(_EFFORT, f"{name}={_short(value)} was left out"))
        return requested
    if level != value:
        levels = ", ".join(profile.efforts or ())
        changes.append(Change(_EFFORT, f"{name}={_short(value)} became {level!r}: allowed are {levels}"))
    return {**requested, _EFFORT: level}


def _fit_into_range(
    bounds: tuple[float, float], name: str, value: Any, sent: dict[str, Any], changes: list[Change]
) -> None:
    low, high = bounds
    if not isinstance(value, int | float) or low <= value <= high:
        sent[name] = value
        return
    nearest = min(max(value, low), high)
    if name in _WHOLE_NUMBERS:
        nearest = math.ceil(nearest) if value < low else math.floor(nearest)
    if low == high or not low <= nearest <= high:
        changes.append(Change(name, f"{name}={value:g} was left out: allowed is {low:g} only"))
    else:
        sent[name] = nearest
        changes.append(Change(name, f"{name}={value:g} became {nearest:g}: allowed are {low:g} to {high:g}"))


def _rename_limit(profile: ModelProfile, name: str, value: Any, sent: dict[str, Any], changes: list[Change]) -> None:
    names = [profile.limit_name or name, *LIMIT_NAMES]
    new_name = next((known_name for known_name in names if known_name not in profile.refused), None)
    if new_name is None:
        changes.append(Change(name, f"{name}={value} was left out"))
        return
    if new_name != name:
        changes.append(Change(name, f"{name}={value} was sent as {new_name}"))
    if new_name in profile.ranges:
        _fit_into_range(profile.ranges[new_name], new_name, value, sent, changes)
    else:
        sent[new_name] = value


def _with_format(profile: ModelProfile, adapted: AdaptedRequest) -> AdaptedRequest:
    """Replace a kind of structured output that the model does not take by the strictest one that it takes, or by none.
    The prompt then describes the format in words."""
    kind = format_kind(adapted)
    if kind is None or kind in profile.response_formats:
        return adapted
    settings = {name: value for name, value in adapted.settings.items() if name != "response_format"}
    text = "response_format was left out"
    if kind == "json_schema" and "json_object" in profile.response_formats:
        settings["response_format"] = {"type": "json_object"}
        text = "response_format became {'type': 'json_object'}"
    request = adapted.request
    messages = request.messages
    if not request.format_in_prompt:
        messages = ask_for_json(messages, _schema(adapted))
        text += ", and the prompt asks for JSON"
    changes = (*adapted.changes, Change("response_format", text))
    return AdaptedRequest(replace(request, messages=messages, response_format=None), settings, changes)


def _schema(adapted: AdaptedRequest) -> Mapping[str, Any] | None:
    """The JSON schema of the structured output of a request; None if it has none."""
    setting = adapted.settings.get("response_format")
    if not isinstance(setting, Mapping):
        return adapted.request.response_format
    json_schema = setting.get("json_schema")
    schema = json_schema.get("schema") if isinstance(json_schema, Mapping) else None
    return schema if isinstance(schema, Mapping) else None


def format_kind(adapted: AdaptedRequest) -> str | None:
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
