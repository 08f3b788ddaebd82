"""The prices of models: from ``LM(price=…)``, a price file, or litellm's map, which is read without importing litellm.

``dspynb.pricing`` computes costs from them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from dspynb.errors import ConfigurationError
from dspynb.lm.providers.litellm_files import litellm_file
from dspynb.pricing.litellm_format import price_of_entry, with_alias
from dspynb.pricing.price import Price, combined
from dspynb.pricing.price_list import PriceList, read_price_file
from dspynb.pricing.rates import HighestPrices, TokenCounts, cost_of, highest
from dspynb.scope.settings import setting

__all__ = [
    "PRICES_VARIABLE",
    "REPORTING_PROVIDERS",
    "HighestPrices",
    "ListedPrice",
    "cost",
    "highest_prices",
    "map_entry",
    "price_of",
    "read_environment",
    "supports",
]

_FILE = "model_prices_and_context_window_backup.json"
PRICES_VARIABLE = "DSPYNB_PRICES"
"""The environment variable with the path of a price file, for programs that do not set ``prices``."""
REPORTING_PROVIDERS = frozenset({"deepinfra", "litellm_proxy", "openrouter", "perplexity", "xai"})
"""Providers that report the cost of a reply with it."""
_SEARCHES_ALWAYS = re.compile(r"search|sonar", re.IGNORECASE)
"""Names of models that search the web for each request."""


@lru_cache(maxsize=1)
def _prices() -> Mapping[str, Any]:
    """The price map. It is empty if litellm is not installed, so that costs are unknown."""
    path = litellm_file(_FILE)
    if path is None:
        return {}
    try:
        return dict(from_json(path.read_bytes()))  # 3 MB, read during the first call: twice as fast as json
    except (OSError, ValueError):
        return {}


@lru_cache(maxsize=256)
def map_entry(model: str) -> Mapping[str, Any] | None:
    """The entry of ``provider/model`` in the map; None if it has none."""
    prices = _prices()
    return prices.get(model) or prices.get(model.split("/", 1)[-1])


def supports(model: str, feature: str) -> bool:
    """Whether a model supports a feature, such as ``function_calling``, according to litellm's price map."""
    return bool((map_entry(model) or {}).get(f"supports_{feature}"))


class ListedPrice(NamedTuple):
    """The price of a model, and where it comes from, with a short hash of its content. ``price``: None if it is
    unknown."""

    price: Price | None = None
    source: str | None = None


_UNKNOWN = ListedPrice()


@lru_cache(maxsize=1)
def _litellm_version() -> str:
    try:
        return importlib.metadata.version("litellm")
    except importlib.metadata.PackageNotFoundError:
        return "of an unknown version"


@lru_cache(maxsize=256)
def _price_in_map(model: str) -> ListedPrice:
    entry = map_entry(model)
    if entry is None:
        return _UNKNOWN
    entry = with_alias(entry, _prices())
    try:
        price = price_of_entry(entry)
    except ConfigurationError:  # a damaged map
        return _UNKNOWN
    if price is None:
        return _UNKNOWN
    digest = hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:8]
    return ListedPrice(price, f"litellm {_litellm_version()}, entry {digest}")


class _Environment:
    """The price file that the environment variable names. It is read again when the variable or the file changes."""

    def __init__(self) -> None:
        self.version: _FileVersion | None = None
        self.prices: PriceList | None = None

    def read(self) -> None:
        path = os.environ.get(PRICES_VARIABLE, "").strip()
        version = _version_of(path) if path else None
        if version == self.version:
            return
        prices = None
        if path:
            try:
                prices = read_price_file(path)
            except ConfigurationError as error:
                raise ConfigurationError(f"{error} (it is the value of {PRICES_VARIABLE})") from None
        self.prices = prices
        self.version = version


_FileVersion = tuple[str, int, int]
"""The path of a file, the time of its last change in nanoseconds, and its size."""


def _version_of(path: str) -> _FileVersion:
    try:
        status = Path(path).expanduser().stat()
    except (OSError, RuntimeError, ValueError):
        return path, 0, -1  # which no file has, so that reading it says why
    return path, status.st_mtime_ns, status.st_size


_environment = _Environment()


def read_environment() -> None:
    """Read the price file that the environment variable ``DSPYNB_PRICES`` names, if the variable or the file has
    changed. Raises ConfigurationError if it cannot be read. Each new ``LM`` calls this."""
    _environment.read()


def price_of(model: str, own: Price | None = None) -> ListedPrice:
    """The price of ``provider/model``: its ``own`` one, for the rest that of the price file of the setting ``prices``
    or of the environment, and for the rest that of litellm's map. An empty dict as ``prices`` leaves the file of the
    environment out."""
    prices = setting("prices")
    if prices is None:
        prices = _environment.prices
    if own is None and prices is None:
        return _price_in_map(model)
    return _price_in(model, own, prices)


@lru_cache(maxsize=256)
def _price_in(model: str, own: Price | None, prices: PriceList | None) -> ListedPrice:
    listed = _price_in_map(model)
    if prices is not None:
        in_file = prices.get(model)
        if in_file is not None:
            listed = _over(in_file, prices.source, listed)
    return listed if own is None else _over(own, f"the model's own price {own.fingerprint()}", listed)


def _over(price: Price, source: str, listed: ListedPrice) -> ListedPrice:
    """A price, and for the rest the listed one."""
    whole = combined(price, listed.price)
    if whole is not price and listed.source is not None:
        source += f", and {listed.source}"
    return ListedPrice(whole, source)


def cost(model: str, prompt: int, completion: int, cached: int, own: Price | None = None) -> float | None:
    """The price of one call of ``provider/model`` in USD; None if it is unknown.

    ``prompt``, ``completion``: tokens of the prompt and the reply. ``cached``: tokens of the prompt that the provider
    read from its cache. ``own``: prices that replace those of price files and of litellm's map.
    """
    price = price_of(model, own).price
    return None if price is None else cost_of(price, TokenCounts(prompt, completion, cached))


def highest_prices(
    model: str,
    prompt: int | None = None,
    own: Price | None = None,
    service_tier: str | None = None,
    *,
    has_media: bool = False,
    lasting_cache: bool = False,
) -> HighestPrices | None:
    """The highest prices that may apply to a call of ``provider/model``; None if they are unknown.

    Reasoning, tokens that the provider adds to its cache, long prompts and web searches have prices of their own at
    some providers. ``prompt``: the largest number of tokens of the prompt; None for any. ``service_tier``: the one that
    the request names. ``has_media``, ``lasting_cache``: see ``highest``.
    """
    price = own
    if own is None or own.input is None or own.output is None:
        price = price_of(model, own).price
    prices = highest(price, prompt, service_tier, has_media=has_media, lasting_cache=lasting_cache)
    search_usd = _search_usd(model)
    if prices is None or not search_usd:
        return prices
    return prices._replace(call=prices.call + search_usd)


@lru_cache(maxsize=256)
def _search_usd(model: str) -> float:
    """The highest price of the searches in the web that a model makes for each request; 0 for most models."""
    searches = (map_entry(model) or {}).get("search_context_cost_per_query")
    if not isinstance(searches, Mapping) or not _SEARCHES_ALWAYS.search(model):
        return 0.0
    return max(float(price) for price in searches.values())
