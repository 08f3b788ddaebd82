"""The client of a model: its address, key and prices, and the wire format that chooses between the two clients."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from dspynb.errors import ConfigurationError
from dspynb.lm.providers.addresses import check_base, has_login
from dspynb.lm.providers.endpoint import Endpoint
from dspynb.lm.providers.engine import Engine
from dspynb.lm.providers.litellm_engine import LiteLLMEngine
from dspynb.lm.providers.openai_http import DirectEngine
from dspynb.lm.providers.prices import read_environment
from dspynb.lm.providers.wire_formats import OPENAI_CHAT, OWN_FORMAT, WireFormat, format_of, is_direct
from dspynb.lm.settings import refuse_litellm_settings
from dspynb.pricing.litellm_format import for_a_million
from dspynb.pricing.price import Price, price_from_fields
from dspynb.pricing.price_list import as_price
from dspynb.redact import is_secret_name, secrets_in

__all__ = [
    "check_address",
    "check_key",
    "fields_of_engine",
    "make_endpoint",
    "make_engine",
    "own_price",
    "prices_in_profile",
]

_FORMAT_OF_ENGINE: Mapping[str, WireFormat] = {"direct": OPENAI_CHAT, "litellm": OWN_FORMAT}
_PRICES = {"input_price": "input", "output_price": "output", "cached_input_price": "cached_input"}
"""The prices in a profile, in US dollars for one token, and the names that a Price has for them."""


def fields_of_engine(
    engine: str, model: str, api_base: str | None, profile: Mapping[str, Any]
) -> dict[str, WireFormat]:
    """The field of a profile that ``LM(engine=…)`` decides. Empty for ``auto``, and for ``direct`` if the model is
    called directly anyway. ``profile``: the fields of ``LM(profile={…})``."""
    if engine == "auto":
        return {}
    if engine == "direct" and is_direct(profile.get("wire_format") or format_of(model, api_base)):
        return {}
    return {"wire_format": _FORMAT_OF_ENGINE[engine]}


def make_endpoint(
    model: str,
    address: Mapping[str, Any],
    settings: Mapping[str, Any],
    profile: Mapping[str, Any],
    price: Price | None = None,
) -> Endpoint:
    """The endpoint of a model, with the secrets in its settings. ``address``: api_base, api_key and timeout.
    ``profile``: the fields of ``LM(profile={…})``. ``price``: the model's own price."""
    secrets: list[str] = []
    for name, value in settings.items():
        secrets += secrets_in(value, inside=is_secret_name(name))
    read_environment()
    return Endpoint(
        model,
        **address,
        secrets=tuple(secrets),
        hosts=profile.get("hosts"),
        needs_key=profile.get("needs_key"),
        price=price,
        listed_as=settings.get("base_model"),
    )


def make_engine(endpoint: Endpoint, wire_format: WireFormat | None, settings: Mapping[str, Any]) -> Engine:
    """The client for a wire format. Raises ConfigurationError for an invalid address, and for settings that this client
    cannot send."""
    if endpoint.api_base is not None:
        check_base(endpoint.api_base)
    if not is_direct(wire_format):
        return LiteLLMEngine(endpoint)
    refuse_litellm_settings(endpoint.model, settings)
    if endpoint.api_base is not None and endpoint.api_key and has_login(endpoint.api_base):
        raise ConfigurationError("api_base contains a user name and api_key is given; only one of them can be sent")
    return DirectEngine(endpoint, wire_format or OPENAI_CHAT)


def own_price(price: object, profile: Mapping[str, Any]) -> Price | None:
    """The price of ``LM(price=…)``, or that in the fields of its profile; None if it has none. Raises
    ConfigurationError for a price that is not valid, and if both have one."""
    in_profile = {field: for_a_million(profile[name], name) for name, field in _PRICES.items() if name in profile}
    if price is None:
        return price_from_fields(in_profile) if in_profile else None
    if in_profile:
        raise ConfigurationError("price and the profile both have prices of this model: give them in one place")
    return as_price(price)


def prices_in_profile(price: Price | None) -> dict[str, float]:
    """The fields of a profile that show a model's own price, in US dollars for one token."""
    fields: dict[str, float] = {}
    for field, name in _PRICES.items():
        amount = None if price is None else getattr(price, name)
        if amount is not None:
            fields[field] = float(Fraction(repr(amount)) / 1_000_000)
    return fields


def check_address(api_base: object, base_url: object) -> str | None:
    """The server's address from its two arguments. Raises ConfigurationError if they differ, or for an empty one."""
    if api_base is not None and base_url is not None and api_base != base_url:
        raise ConfigurationError("api_base and base_url are two names of one setting and differ: give one of them")
    address: Any = api_base
    if address is None:
        address = base_url
    if address is None:
        return None
    if not str(address).strip():
        raise ConfigurationError("api_base is empty; leave it out for the provider's own address")
    return str(address)


def check_key(api_key: object) -> str | None:
    """The API key without surrounding whitespace, which a file or a paste may add; None for an empty one. Raises
    ConfigurationError for anything else than a text on one line."""
    if api_key is not None and not isinstance(api_key, str):
        raise ConfigurationError(f"api_key must be text, got {type(api_key).__name__}")
    key = (api_key or "").strip()
    if any(ord(letter) < ord(" ") for letter in key):
        raise ConfigurationError("api_key contains a line break or another control character: give the key alone")
    return key or None
