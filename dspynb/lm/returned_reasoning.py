"""Which models return the text of their reasoning beside the reply."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

__all__ = ["RETURNS_REASONING", "ReturnsReasoning", "returned_reasoning"]

ReturnsReasoning = Literal["always", "with_effort", "never"]
RETURNS_REASONING: tuple[ReturnsReasoning, ...] = ("always", "with_effort", "never")

_ALWAYS = re.compile(
    r"deepseek-r1(?!\w)|deepseek-reasoner|\bqwq\b|qwen3[-\w.]*-thinking|magistral|sonar-reasoning|r1-1776|grok-3-mini"
    r"|kimi-k2-thinking|minimax-m[12]",
    re.IGNORECASE,
)
"""Names of models whose replies have their reasoning by default, at every provider: in a field of its own, or within
tags in the text. Sources: DeepSeek's guide to its reasoning model, Mistral's to Magistral, xAI's to grok-3-mini (later
Grok models return none), and the model cards of the open models."""
_WITH_EFFORT = frozenset({"anthropic", "bedrock", "bedrock_converse", "vertex_ai", "gemini"})
"""Providers whose models think, and return it, where a request asks for an effort. Source: litellm's documentation of
reasoning_content, and Anthropic's and Google's guides to thinking."""
_HIDDEN = frozenset({"openai", "azure", "azure_ai", "github_copilot"})
"""Providers whose chat completions have the number of reasoning tokens only."""


def returned_reasoning(provider: str, name: str, entry: Mapping[str, Any]) -> ReturnsReasoning | None:
    """When the replies of ``provider/name`` have the text of the model's reasoning; None if that is unknown.

    ``entry``: of litellm's model map.
    """
    if provider in _HIDDEN:
        return "never" if entry.get("supports_reasoning") else None
    if _ALWAYS.search(name):
        return "always"
    if provider in _WITH_EFFORT and entry.get("supports_reasoning"):
        return "with_effort"
    return None
