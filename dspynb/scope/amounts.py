"""Numbers of tokens and US dollars, and what one request may cost at most."""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["NOTHING", "UNLIMITED", "Amounts", "Cost"]


class Amounts(NamedTuple):
    """A number of tokens and of US dollars."""

    tokens: float = 0.0
    usd: float = 0.0

    def plus(self, other: Amounts, times: float = 1) -> Amounts:
        """The sum with ``times`` times the other."""
        if times == 0:  # 0 times infinity is 0 here
            return self
        return Amounts(self.tokens + times * other.tokens, self.usd + times * other.usd)

    def within(self, limit: Amounts) -> bool:
        """Whether neither number is above that of the limit."""
        return self.tokens <= limit.tokens and self.usd <= limit.usd

    def largest(self, other: Amounts) -> Amounts:
        """The larger number of each."""
        return Amounts(max(self.tokens, other.tokens), max(self.usd, other.usd))


NOTHING = Amounts()
UNLIMITED = Amounts(math.inf, math.inf)


class Cost(NamedTuple):
    """What one request may cost.

    ``model``: the name of the model. ``prompt``: the largest number of tokens of the prompt. ``reply``: the largest
    number of tokens of the reply. ``is_bound``: whether no reply can be longer; else ``reply`` is an estimate until
    replies of the model have arrived. ``prompt_usd``, ``reply_usd``: the price of a token; None if it is unknown.
    ``call_usd``: the price of the request itself. ``may_report_usd``: whether the model may report its cost with the
    reply, where its price is unknown.
    """

    model: str
    prompt: int
    reply: float
    is_bound: bool
    prompt_usd: float | None = None
    reply_usd: float | None = None
    call_usd: float = 0.0
    may_report_usd: bool = True

    @property
    def has_price(self) -> bool:
        """Whether the price of a token is known."""
        return self.prompt_usd is not None and self.reply_usd is not None

    def is_covered_by(self, other: Cost) -> bool:
        """Whether no number is above that of the other cost."""
        return (
            self.prompt <= other.prompt
            and self.reply <= other.reply
            and (self.prompt_usd or 0) <= (other.prompt_usd or 0)
            and (self.reply_usd or 0) <= (other.reply_usd or 0)
            and self.call_usd <= other.call_usd
        )

    def largest(self, other: Cost) -> Cost:
        """The larger number of each."""
        prompt_usd = reply_usd = None
        if self.prompt_usd is not None and other.prompt_usd is not None:
            prompt_usd = max(self.prompt_usd, other.prompt_usd)
        if self.reply_usd is not None and other.reply_usd is not None:
            reply_usd = max(self.reply_usd, other.reply_usd)
        return self._replace(
            prompt=max(self.prompt, other.prompt),
            reply=max(self.reply, other.reply),
            is_bound=self.is_bound and other.is_bound,
            prompt_usd=prompt_usd,
            reply_usd=reply_usd,
            call_usd=max(self.call_usd, other.call_usd),
        )

    def amounts(self, reply: float, usd: float) -> Amounts:
        """The cost with a reply of this length. ``usd``: the cost in USD if the price of a token is unknown."""
        if self.prompt_usd is not None and self.reply_usd is not None:  # has_price, which mypy does not follow
            usd = self.call_usd + self.prompt * self.prompt_usd + (reply * self.reply_usd if self.reply_usd else 0.0)
        return Amounts(self.prompt + reply, usd)
