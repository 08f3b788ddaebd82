"""The setting of a request that a provider refuses, which may have another name in the provider's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dspynb.errors import UnsupportedParameter
from dspynb.lm.profiles import LIMIT_NAMES

__all__ = ["TOOL_SETTINGS", "refused_setting"]

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
