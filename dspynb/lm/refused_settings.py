"""The setting of a request that a provider refuses, which may have another name in the provider's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dspynb.errors import ContextTooLong, UnsupportedParameter
from dspynb.lm.adapted_request import AdaptedRequest
from dspynb.lm.profiles import LIMIT_NAMES

__all__ = ["TOOL_SETTINGS", "narrower_range", "refused_setting", "room_for_reply"]

TOOL_SETTINGS = frozenset({"tools", "tool_choice", "functions", "function_call", "parallel_tool_calls"})
"""Settings that only a model with native tools takes."""
_SPELLINGS_OF_LIMIT = frozenset(
    {"maxtokens", "maxcompletiontokens", "maxoutputtokens", "maxnewtokens", "maxtokenstosample", "maxgentokens"}
    | {"numpredict", "npredict"}
)
"""The names of the limit of a reply's tokens in the words of providers, without underscores."""
_SPELLINGS_OF_FORMAT = frozenset({"outputformat", "responseschema", "responsejsonschema", "responsemimetype"})
"""The names of the response format in the words of Anthropic, Bedrock and Gemini."""
_SPELLINGS_OF_EFFORT = frozenset(
    {"effort", "think", "thinking", "reasoning", "thinkinglevel", "thinkingbudget", "thinkingconfig", "budgettokens"}
    | {"enablethinking", "reasoningconfig", "thinkingtype"}
)
"""The names of the effort in the words of providers, without underscores."""
_OF_THIS_PROMPT = re.compile(r"context|input|prompt|messages|inputs", re.IGNORECASE)
_LEAST_ROOM = 256
"""With less room for the reply, in tokens, a prompt counts as too long."""


def refused_setting(refusal: UnsupportedParameter, settings: Mapping[str, Any]) -> str:
    """The setting that a provider means, which may have another spelling there, such as ``maxOutputTokens``.

    If no setting has the name that was read from the message, it is the first setting that the message mentions.
    """
    parameter = refusal.parameter
    if parameter in settings or parameter in TOOL_SETTINGS or parameter == "response_format":
        return parameter
    if parameter in (settings.get("extra_body") or {}):  # its fields are sent as they are
        return ""
    word = parameter.lower().replace("_", "").replace("-", "")
    for name in settings:
        if name.replace("_", "") == word:
            return name
    setting = _setting_by_spelling(word, settings)
    if setting is not None:
        return setting
    mentions = {name: re.search(rf"\b{name}\b", refusal.problem) for name in settings}
    positions = {name: match.start() for name, match in mentions.items() if match is not None}
    return min(positions, key=lambda name: positions[name], default=parameter)


def _setting_by_spelling(word: str, settings: Mapping[str, Any]) -> str | None:
    """The setting for which providers have this other name; None if there is none."""
    if word in _SPELLINGS_OF_FORMAT:
        return "response_format"
    if word in _SPELLINGS_OF_LIMIT:
        return next((name for name in LIMIT_NAMES if name in settings), word)
    if word in _SPELLINGS_OF_EFFORT and "reasoning_effort" in settings:
        return "reasoning_effort"
    if word == "include":  # the field of the Responses API that requests log probabilities
        return next((name for name in ("logprobs", "top_logprobs") if name in settings), None)
    return None


def narrower_range(
    allowed: tuple[float, float] | None, known: tuple[float, float] | None, value: Any
) -> tuple[float, float] | None:
    """The range of a setting after a refusal of ``value``. None if no value of it is known to be allowed."""
    if allowed is None or not isinstance(value, int | float) or allowed[0] <= value <= allowed[1]:
        return None
    low, high = allowed
    if known is not None:
        low, high = max(low, known[0]), min(high, known[1])
    return (low, high) if low <= high else None


def room_for_reply(refusal: UnsupportedParameter, adapted: AdaptedRequest) -> dict[str, tuple[float, float]] | None:
    """The limit of the reply that the refusal names, if it depends on the length of this prompt. None otherwise. Raises
    ContextTooLong if there is hardly any room."""
    name = refused_setting(refusal, adapted.settings)
    value = adapted.settings.get(name)
    if name not in LIMIT_NAMES or not isinstance(value, int | float) or refusal.allowed is None:
        return None
    if not _OF_THIS_PROMPT.search(refusal.problem):
        return None
    most = refusal.allowed[1]
    if most < min(_LEAST_ROOM, value):
        raise ContextTooLong(
            refusal.problem, model=refusal.model, status=refusal.status, advice=ContextTooLong.remedy
        ) from refusal
    return {name: refusal.allowed}
