"""Prices by the names of models, as in a price file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dspynb.errors import ConfigurationError, shorten
from dspynb.pricing.litellm_format import has_prices, price_of_entry, with_alias
from dspynb.pricing.price import PRICE_FIELDS, Price, price_from_fields, shown
from dspynb.redact import redact

__all__ = ["PriceList", "as_price", "as_price_list", "read_price_file"]


class PriceList:
    """Prices by the names of models. ``source``: where they come from, with a short hash of the content."""

    def __init__(self, prices: Mapping[str, Price], source: str) -> None:
        self._prices = dict(prices)
        self.source = source

    def get(self, model: str) -> Price | None:
        """The price of ``provider/model``, or of the name without the provider; None if there is none."""
        price = self._prices.get(model)
        if price is None:
            price = self._prices.get(model.partition("/")[2])
        return price

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PriceList) and (self.source, self._prices) == (other.source, other._prices)

    def __hash__(self) -> int:
        return hash(self.source)

    def __len__(self) -> int:
        return len(self._prices)

    def __repr__(self) -> str:
        return f"PriceList({self.source}: {len(self)} models)"


def as_price(value: object, name: str = "price") -> Price:
    """A price from a Price, a dict of its fields, or an entry in litellm's format. Raises ConfigurationError, which
    begins with ``name``, for anything else."""
    try:
        return _as_price(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {str(error).removeprefix('price: ')}") from None


def _as_price(value: object) -> Price:
    if isinstance(value, Price):
        return value
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{shown(value)} is no price; give a dict of US dollars for a million tokens, such as "
            "{'input': 2.5, 'output': 10}"
        )
    if not all(isinstance(field, str) for field in value):
        raise ConfigurationError("the names of prices must be texts, such as 'input' and 'output'")
    if has_prices(value):
        mixed = [field for field in value if field in PRICE_FIELDS]
        if mixed:
            raise ConfigurationError(
                f"{mixed[0]} is US dollars for a million tokens, and the fields of litellm are for one token: use one "
                "format"
            )
        price = price_of_entry(value)
        if price is None:
            raise ConfigurationError("input_cost_per_token is missing")
        return price
    if not value:
        raise ConfigurationError("it is empty; give at least the prices of 'input' and 'output'")
    return price_from_fields(value)


def as_price_list(value: object) -> PriceList | None:
    """The value of the setting ``prices``: a path, a dict of prices by the names of models, or None.

    Raises ConfigurationError for a file that cannot be read, and for a price that is not valid.
    """
    if value is None or isinstance(value, PriceList):
        return value
    if isinstance(value, str | Path):
        return read_price_file(value)
    if isinstance(value, Mapping):
        prices = _read_prices(value, "prices")
        content = json.dumps({model: price.to_dict() for model, price in prices.items()}, sort_keys=True)
        return PriceList(prices, _source("prices", content.encode()))
    raise ConfigurationError(f"prices must be the path of a price file, a dict or None, got {type(value).__name__}")


def read_price_file(path: str | Path) -> PriceList:
    """Read a price file: a JSON object of prices by the names of models, each in the format of ``Price`` (US dollars
    for a million tokens) or of litellm's map (US dollars for one token). Raises ConfigurationError."""
    try:
        content = Path(path).expanduser().read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(f"prices: the price file {str(path)!r} cannot be read: {reason}") from None
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"prices: {str(path)!r} is no JSON file: {shorten(str(error), 100)}") from None
    name = redact(Path(path).name)
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"{name}: a price file is a JSON object of prices by the names of models")
    return PriceList(_read_prices(values, name), _source(name, content))


def _source(name: str, content: bytes) -> str:
    return f"{name} ({hashlib.sha256(content).hexdigest()[:8]})"


def _read_prices(values: Mapping[Any, Any], name: str) -> dict[str, Price]:
    prices: dict[str, Price] = {}
    is_map = any(_is_of_litellm(value) for value in values.values())
    for model, value in values.items():
        if not isinstance(model, str):
            raise ConfigurationError(f"{name}: the name of a model is {shown(model)}; it must be a text")
        if is_map and model in _NO_MODELS:
            continue
        where = f"{name}: {redact(model)}"
        price = _price_in_file(value, values, where)
        if price is not None:
            prices[model] = price
    return prices


def _is_of_litellm(entry: object) -> bool:
    """Whether an entry is one of litellm's map, which also has models without a price of tokens."""
    return isinstance(entry, Mapping) and not _MARKS.isdisjoint(entry)


_NO_MODELS = ("sample_spec", "fallback_generalizations")
"""Entries of litellm's map that are no models."""
_MARKS = frozenset({"mode", "litellm_provider", "alias_of"})


def _price_in_file(value: object, values: Mapping[str, Any], name: str) -> Price | None:
    """The price of an entry of a file; None for an entry of litellm's map without a price of tokens."""
    if not isinstance(value, Mapping) or not _is_of_litellm(value):
        return as_price(value, name)
    entry = with_alias(value, values)
    try:
        return price_of_entry(entry)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {str(error).removeprefix('price: ')}") from None
