"""What a request may cost at most, before it is sent: the tokens of its prompt and of its reply, and their prices."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dspynb.lm.interceptors.chain import ModelCall
from dspynb.lm.own_price import read_own_price
from dspynb.lm.profiles import LIMIT_NAMES
from dspynb.lm.protocol import LMProtocol, LMRequest
from dspynb.lm.providers.prices import highest_prices
from dspynb.lm.token_counts import token_counter
from dspynb.media.describe import content_text
from dspynb.scope.amounts import Cost

__all__ = [
    "MEDIA_TOKENS",
    "MESSAGE_TOKENS",
    "PROMPT_TOKENS",
    "TOOL_TOKENS",
    "exact_prompt_tokens",
    "has_unknown_price",
    "largest_cost",
    "most_prompt_tokens",
]

PROMPT_TOKENS = 64
"""Tokens that a provider may add to a prompt, such as the beginning of its chat template."""
MESSAGE_TOKENS = 16
"""Tokens that a provider may add to each message."""
TOOL_TOKENS = 512
"""Tokens that a provider may add to a request with tools: its instructions for calling them."""
MEDIA_TOKENS = 4_096
"""Tokens of an image or a file at most."""
_REPLY_LIMITS = (*LIMIT_NAMES, "max_output_tokens")
"""Settings that limit the tokens of a reply."""


def largest_cost(call: ModelCall, *, with_prices: bool = True) -> Cost:
    """The largest cost of a call: see ``Cost``. The length of a reply without a limit is that of the model's longest
    reply, infinite if it is unknown. ``with_prices``: whether the prices are looked up."""
    settings = call.requested()
    request = call.request
    model = call.model
    prompt = _plain_prompt_tokens(request)
    is_plain = prompt is not None
    if prompt is None:
        prompt = most_prompt_tokens(request)
    reply, is_bound = _reply_tokens(call, settings)
    if not with_prices:
        return Cost(model, prompt, reply, is_bound)
    prices = highest_prices(
        model,
        prompt,
        read_own_price(call.lm, model),
        settings.get("service_tier"),
        has_media=settings.get("modalities") is not None or (not is_plain and any(_media(request))),
        lasting_cache=not is_plain and any(map(_has_lasting_cache, request.messages)),
    )
    if prices is None:  # a model of one's own may report what a reply costs
        return Cost(model, prompt, reply, is_bound, may_report_usd=getattr(call.lm, "reports_usd", True))
    return Cost(model, prompt, reply, is_bound, prices.prompt_token, prices.reply_token, prices.call)


def has_unknown_price(lm: LMProtocol) -> bool:
    """Whether the cost of a model in USD is neither known nor going to be reported with its replies."""
    if getattr(lm, "reports_usd", True):
        return False
    model = str(getattr(lm, "name", type(lm).__name__))
    return highest_prices(model, 0, read_own_price(lm, model)) is None


def _plain_prompt_tokens(request: LMRequest) -> int | None:
    """``most_prompt_tokens`` of a request that has only texts, as nearly always; None for any other. Takes a fifth of
    the time."""
    if request.tools or request.response_format is not None:
        return None
    tokens = PROMPT_TOKENS
    for message in request.messages:
        content = message.get("content")
        if type(content) is not str or len(message) != 2:  # beside its role, it has only this text
            return None
        tokens += MESSAGE_TOKENS + _bytes(content)
    return tokens


def most_prompt_tokens(request: LMRequest, count: Callable[[str], int | None] | None = None) -> int:
    """The largest number of tokens of a prompt, with what a provider may add. ``count``: counts the tokens of a text,
    or returns None; without it, a text has a token for each UTF-8 byte at most."""
    tokens = PROMPT_TOKENS + MESSAGE_TOKENS * len(request.messages) + MEDIA_TOKENS * sum(1 for _ in _media(request))
    if request.tools:
        tokens += TOOL_TOKENS
    for text in _texts(request):
        exact = None if count is None else count(text)
        tokens += _bytes(text) if exact is None else exact
    return tokens


def exact_prompt_tokens(call: ModelCall) -> int | None:
    """The tokens of the prompt by the model's tokenizer, with what a provider may add; None if the tokenizer is not
    known. This may take a second."""
    count = token_counter(call.model)
    return None if count is None else most_prompt_tokens(call.request, count)


def _texts(request: LMRequest) -> Iterator[str]:
    """All texts of a request: of the messages, their tool calls, the tools and the schema."""
    for message in request.messages:
        content = message.get("content")
        yield content if isinstance(content, str) else content_text(content)
        if message.get("tool_calls"):
            yield json.dumps(message["tool_calls"], default=str)
    if request.tools:
        yield json.dumps(request.tools, default=str)
    if request.response_format is not None:
        yield json.dumps(request.response_format, default=str)


def _parts(message: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    content = message.get("content")
    if isinstance(content, list | tuple):
        yield from (part for part in content if isinstance(part, Mapping))


def _media(request: LMRequest) -> Iterator[Mapping[str, Any]]:
    """The images and files of the messages."""
    for message in request.messages:
        yield from (part for part in _parts(message) if part.get("type") != "text")


def _has_lasting_cache(message: Mapping[str, Any]) -> bool:
    """Whether a message asks the provider to keep a part of the prompt longer than usual."""
    marks = [part.get("cache_control") for part in (message, *_parts(message))]
    return any(isinstance(mark, Mapping) and "ttl" in mark for mark in marks)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _reply_tokens(call: ModelCall, settings: Mapping[str, Any]) -> tuple[float, bool]:
    """The largest number of tokens of all completions of a reply, and whether the request limits it."""
    count = settings.get("n") or 1
    for name in _REPLY_LIMITS:
        limit = settings.get(name)
        if limit is not None and isinstance(limit, int | float) and not isinstance(limit, bool):
            return limit * count, True
    profile = getattr(call.lm, "profile", None)
    longest = getattr(profile, "output_limit", None)
    return (math.inf if longest is None else longest * count), False
