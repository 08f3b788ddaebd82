"""What the refusals of a server have changed in the profile of a model, as JSON values.

Run files hold these changes, so that a resumed run adapts its first request as the run before adapted its last one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dspynb.lm.profiles import ModelProfile, in_responses_format
from dspynb.lm.providers.wire_formats import OPENAI_CHAT, OPENAI_RESPONSES

__all__ = ["learned_changes", "with_changes"]


def learned_changes(known: ModelProfile, profile: ModelProfile) -> dict[str, Any]:
    """The changes that lead from the profile ``known`` to ``profile``, where refusals have made them."""
    changes: dict[str, Any] = {}
    refused = profile.refused - known.refused
    if refused:
        changes["refused"] = sorted(refused)
    ranges = {name: bounds for name, bounds in profile.ranges.items() if known.ranges.get(name) != bounds}
    if ranges:
        changes["ranges"] = {name: [_finite(bound) for bound in bounds] for name, bounds in ranges.items()}
    if profile.response_formats != known.response_formats:
        changes["response_formats"] = list(profile.response_formats)
    if profile.wire_format != known.wire_format:
        changes["wire_format"] = profile.wire_format
    if profile.native_tools is False and known.native_tools is not False:
        changes["native_tools"] = False
    return changes


def with_changes(profile: ModelProfile, changes: Mapping[str, Any]) -> ModelProfile:
    """The profile with changes that ``learned_changes`` returned.

    A run file may come from anywhere, so that a value of a wrong form is left out.
    """
    if changes.get("wire_format") == OPENAI_RESPONSES and profile.wire_format == OPENAI_CHAT:
        profile = in_responses_format(profile)
    values: dict[str, Any] = {"refused": profile.refused.union(_texts(changes.get("refused")))}
    ranges = dict(profile.ranges)
    for name, bounds in _ranges(changes.get("ranges")).items():
        ranges[name] = _common_range(bounds, ranges.get(name))
    values["ranges"] = ranges
    if "response_formats" in changes:
        formats = _texts(changes["response_formats"])
        values["response_formats"] = tuple([kind for kind in profile.response_formats if kind in formats])
    if changes.get("native_tools") is False:
        values["native_tools"] = False
    return replace(profile, **values)


def _common_range(bounds: tuple[float, float], known: tuple[float, float] | None) -> tuple[float, float]:
    """The values that are in both ranges; those of the first one if there are none."""
    if known is None:
        return bounds
    low = max(bounds[0], known[0])
    high = min(bounds[1], known[1])
    return (low, high) if low <= high else bounds


def _finite(bound: float) -> float | None:
    """A bound as JSON has it: None for no bound."""
    return bound if math.isfinite(bound) else None


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list | tuple):
        return []
    return [item for item in value if isinstance(item, str)]


def _ranges(value: Any) -> dict[str, tuple[float, float]]:
    ranges: dict[str, tuple[float, float]] = {}
    if not isinstance(value, Mapping):
        return ranges
    for name, bounds in value.items():
        if not isinstance(bounds, list | tuple) or len(bounds) != 2:
            continue
        low, high = bounds
        if isinstance(low, float | int | None) and isinstance(high, float | int | None):
            ranges[name] = (-math.inf if low is None else low, math.inf if high is None else high)
    return ranges
