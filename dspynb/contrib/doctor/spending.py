"""A limit in USD for the calls of one model, which no call may pass."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dspynb.data import Usage
from dspynb.errors import AuthenticationError, BudgetExhausted, ModelError
from dspynb.lm.client import LM
from dspynb.lm.profiles import LIMIT_NAMES
from dspynb.lm.protocol import LMReply, LMRequest, PieceCallback
from dspynb.lm.providers.openai_format import request_body
from dspynb.lm.providers.prices import HighestPrices, highest_prices

__all__ = ["PROMPT_OVERHEAD", "SpendingLimit"]

PROMPT_OVERHEAD = 1_000
"""Tokens that a provider may add to a prompt, such as its chat template and its instructions for tools."""


@dataclass(frozen=True, slots=True)
class _Bound:
    """The largest cost of one request in USD, and the largest number of tokens of its reply."""

    usd: float
    reply_tokens: float


class SpendingLimit:
    """Checks each request of a model before it is sent, also retries and adapted requests. A request that could cost
    more than what is left is not sent, and raises BudgetExhausted.

    A prompt has at most one token for each UTF-8 byte of the request, and ``PROMPT_OVERHEAD`` more. A reply has at most
    as many tokens as the request allows. A request without a limit of the reply counts with the longest reply of the
    model, and is not sent if that is unknown.

    ``max_usd``: the limit. ``prices``: the prices of the model; None for those of litellm's map.

    Attributes: ``usd``: what is spent at most, in USD. A reply whose tokens are unknown counts with its largest cost,
    and so does a request that failed without saying whether it is billed. ``refusal``: why a request was not sent; None
    if all were sent.
    """

    def __init__(self, max_usd: float, prices: HighestPrices | None = None) -> None:
        self.max_usd = max_usd
        self.prices = prices
        self.usd = 0.0
        self.refusal: str | None = None
        self._passed_limit: str | None = None

    @property
    def left(self) -> float:
        """What is left, in USD."""
        return max(0.0, self.max_usd - self.usd)

    def watch(self, lm: LM) -> None:
        """Apply the limit to all requests of a model. It must send one request at a time (``concurrency=1``)."""
        lm.profile  # noqa: B018  # the engine is chosen when the profile is first read
        engine = lm._engine
        send = engine.complete

        async def complete(
            request: LMRequest, settings: Mapping[str, Any], on_piece: PieceCallback | None = None
        ) -> LMReply:
            bound = self._admit(lm, request, settings)
            reserved = bound.usd
            try:
                reply = await send(request, settings, on_piece)
                reserved = self._actual(lm, reply.usage, bound)
            except ModelError as error:
                reserved = self._actual_of_error(lm, error, bound)
                raise
            finally:
                self.usd += reserved
            return reply

        engine.complete = complete  # type: ignore[method-assign]  # the one place that each request passes

    def _admit(self, lm: LM, request: LMRequest, settings: Mapping[str, Any]) -> _Bound:
        """The largest cost of a request. Raises BudgetExhausted if it may not be sent."""
        prompt = prompt_tokens(lm.name, request, settings)
        prices = self._prices_for(lm, prompt)
        reply = _reply_tokens(lm, settings)
        problem = self._passed_limit
        if problem is None and reply is None and prices.reply_token > 0:
            problem = "the request has no limit of the reply's tokens, so its cost is unknown"
        usd = prompt * prices.prompt_token + prices.call
        if reply is not None:
            usd += reply * prices.reply_token
        if problem is None and usd > self.left:
            problem = f"the next call could cost USD {usd:.4f}, and USD {self.left:.4f} are left"
        if problem is not None:
            self.refusal = problem
            raise BudgetExhausted(f"the limit of USD {self.max_usd:g}: {problem}")
        return _Bound(usd, float("inf") if reply is None else reply)

    def _prices_for(self, lm: LM, prompt: int) -> HighestPrices:
        """The prices of a prompt of this length. Raises BudgetExhausted if they are unknown."""
        prices = self.prices or highest_prices(lm.name, prompt)
        if prices is None:
            self.refusal = "the price of a call is unknown"
            raise BudgetExhausted(f"the limit of USD {self.max_usd:g}: {self.refusal}")
        return prices

    def _actual(self, lm: LM, usage: Usage, bound: _Bound) -> float:
        """The cost of a call by its usage; its largest cost if its tokens are unknown."""
        prompt = usage.prompt_tokens
        reply = usage.completion_tokens
        if prompt is None or reply is None:
            return bound.usd
        reasoning = usage.reasoning_tokens or 0
        if reasoning > reply:  # xAI does not count the reasoning among the tokens of the reply
            reply += reasoning
        prices = self._prices_for(lm, prompt)
        if reply > bound.reply_tokens and prices.reply_token > 0:
            self._passed_limit = (
                f"the server does not keep to the limit of a reply ({reply} tokens instead of {bound.reply_tokens:g} "
                "at most), so the cost of a call is unknown"
            )
        return prompt * prices.prompt_token + reply * prices.reply_token + prices.call

    def _actual_of_error(self, lm: LM, error: ModelError, bound: _Bound) -> float:
        """The cost of a failed call. A request that the provider refuses is not billed."""
        if error.usage is not None:
            return self._actual(lm, error.usage, bound)
        is_refused = error.status is not None and 400 <= error.status < 500
        if is_refused or isinstance(error, AuthenticationError):  # that of a missing key is raised before sending
            return 0.0
        return bound.usd


def prompt_tokens(model: str, request: LMRequest, settings: Mapping[str, Any]) -> int:
    """The largest number of tokens that the prompt of a request may have."""
    body = json.dumps(request_body(model, request, settings), ensure_ascii=False, default=str)
    return len(body.encode("utf-8", "surrogatepass")) + PROMPT_OVERHEAD


def _reply_tokens(lm: LM, settings: Mapping[str, Any]) -> int | None:
    """The largest number of tokens of the replies to a request with these settings; None if it is unknown."""
    limits = [settings[name] for name in LIMIT_NAMES if settings.get(name) is not None]
    if not limits:
        longest = lm.profile.output_limit or lm.profile.context_window
        if longest is None:
            return None
        limits = [longest]
    return int(max(limits)) * int(settings.get("n") or 1)
