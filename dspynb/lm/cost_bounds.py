"""What a request may cost at most, before it is sent: the tokens of its prompt and of its reply, and their prices."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from dspynb.lm.interceptors.chain import ModelCall
from dspynb.lm.profiles import LIMIT_NAMES
from dspynb.lm.protocol import LMRequest
from dspynb.media.describe import content_text
from dspynb.pricing.rates import HighestPrices
from dspynb.scope.ledger import Cost

__all__ = ["MEDIA_TOKENS", "MESSAGE_TOKENS", "PROMPT_TOKENS", "TOOL_TOKENS", "largest_cost", "most_prompt_tokens"]

PROMPT_TOKENS = 64
"""Tokens that a provider may add to a prompt, such as the beginning of its chat template."""
MESSAGE_TOKENS = 16
"""Tokens that a provider may add to each message."""
TOOL_TOKENS = 512
"""Tokens that a provider may add to a request with tools: its instructions for calling them."""
MEDIA_TOKENS = 4_096
"""Tokens of an image or a file at most."""


def largest_cost(call: ModelCall) -> Cost:
    """The largest cost of a call: see ``Cost``. The length of a reply without a limit is that of the model's longest
    reply, infinite if it is unknown."""
    settings = call.requested()
    prompt = most_prompt_tokens(call.request)
    reply, is_bound = _reply_tokens(call, settings)
    prices = _prices(call, prompt, settings)
    if prices is None:
        return Cost(call.model, prompt, reply, is_bound)
    return Cost(call.model, prompt, reply, is_bound, prices.prompt_token, prices.reply_token, prices.call)


def most_prompt_tokens(request: LMRequest) -> int:
    """The largest number of tokens of a prompt: one for each UTF-8 byte, and what a provider may add."""
    tokens = PROMPT_TOKENS + MESSAGE_TOKENS * len(request.messages)
    for message in request.messages:
        content = message.get("content")
        tokens += _bytes(content if isinstance(content, str) else content_text(content))
        if isinstance(content, list | tuple):
            tokens += MEDIA_TOKENS * sum(part.get("type") != "text" for part in content if isinstance(part, Mapping))
        if message.get("tool_calls"):
            tokens += _bytes(json.dumps(message["tool_calls"], default=str))
    if request.tools:
        tokens += TOOL_TOKENS + _bytes(json.dumps(request.tools, default=str))
    if request.response_format is not None:
        tokens += _bytes(json.dumps(request.response_format, default=str))
    return tokens


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _reply_tokens(call: ModelCall, settings: Mapping[str, Any]) -> tuple[float, bool]:
    """The largest number of tokens of all completions of a reply, and whether the request limits it."""
    count = settings.get("n") or 1
    for name in (*LIMIT_NAMES, "max_output_tokens"):
        limit = settings.get(name)
        if isinstance(limit, int | float) and not isinstance(limit, bool):
            return limit * count, True
    profile = getattr(call.lm, "profile", None)
    longest = getattr(profile, "output_limit", None)
    return (math.inf if longest is None else longest * count), False


def _prices(call: ModelCall, prompt: int, settings: Mapping[str, Any]) -> HighestPrices | None:
    """The highest prices of a call; None if they are unknown."""
    find = getattr(call.lm, "highest_prices", None)
    return None if find is None else find(prompt, settings)
