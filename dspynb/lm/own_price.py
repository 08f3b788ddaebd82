"""The cost of replies of models that have a price of their own: any object with ``complete`` and ``price``."""

from __future__ import annotations

from dataclasses import replace

from dspynb.data import Usage
from dspynb.lm.protocol import LMProtocol, LMReply
from dspynb.lm.providers.billing import usage_at_price
from dspynb.pricing.price_list import as_price

__all__ = ["at_own_price"]


def at_own_price(reply: LMReply, lm: LMProtocol, model: str) -> LMReply:
    """The reply with its cost, where the model has a ``price`` or reports its usage as a dict.

    A method of this name is no price. Raises ConfigurationError, which names the model, for a price that is not valid.
    """
    price = getattr(lm, "price", None)
    if callable(price):
        price = None
    has_usage = type(reply.usage) is Usage
    if (has_usage and price is None) or reply.cached or reply.price_source is not None:
        return reply
    own = None if price is None else as_price(price, f"the price of the model {model}")
    source = "" if own is None else f"the model's own price {own.fingerprint()}"
    usage, price_source = usage_at_price(reply.usage, own, source)
    return replace(reply, usage=usage, price_source=price_source)
