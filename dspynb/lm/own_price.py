"""The cost of replies of models that have a price of their own: any object with ``complete`` and ``price``."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from dspynb.data import Usage
from dspynb.errors import ConfigurationError
from dspynb.lm.protocol import LMProtocol, LMReply
from dspynb.lm.providers.billing import usage_at_price
from dspynb.pricing.price import Price
from dspynb.pricing.price_list import as_price
from dspynb.redact import error_text

__all__ = ["at_own_price", "read_own_price"]


def read_own_price(lm: LMProtocol, model: str) -> Price | None:
    """The ``price`` of a model; None if it has none. A method of this name is no price.

    Raises ConfigurationError, which names the model, for a price that is not valid, and for a property that fails. Call
    this before the model, so that no reply is lost.
    """
    name = f"the price of the model {model}"
    try:
        price = getattr(lm, "price", None)
        if price is None and isinstance(getattr(type(lm), "price", None), property):
            price = lm.price  # type: ignore[attr-defined]  # getattr hides an AttributeError in the property
    except Exception as error:
        raise ConfigurationError(f"{name} cannot be read: {error_text(error, 200)}") from error
    return None if price is None or callable(price) else as_price(price, name)


def at_own_price(reply: LMReply, own: Price | None) -> LMReply:
    """The reply with its cost, where the model has a price of its ``own`` or reports its usage as a dict."""
    has_usage = type(reply.usage) is Usage
    if (has_usage and own is None) or reply.cached or reply.price_source is not None:
        return reply
    source = "" if own is None else _source_of(own)
    usage, price_source = usage_at_price(reply.usage, own, source)
    return replace(reply, usage=usage, price_source=price_source)


@lru_cache(maxsize=64)
def _source_of(own: Price) -> str:
    return f"the model's own price {own.fingerprint()}"
