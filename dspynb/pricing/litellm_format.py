"""Prices in the format of litellm's price map: US dollars for one token, in fields of many names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from dspynb.errors import ConfigurationError
from dspynb.pricing.price import Price, amount_of, price_from_fields, shown
from dspynb.pricing.rates import BATCH

__all__ = ["for_a_million", "has_prices", "price_of_entry", "with_alias"]

_FIELDS: Mapping[str, str] = {
    "input_cost_per_token": "input",
    "cache_read_input_token_cost": "cached_input",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "cache_creation_input_token_cost_above_12hr": "cache_write_12h",
    "input_cost_per_audio_token": "audio_input",
    "cache_read_input_audio_token_cost": "cached_audio_input",
    "input_cost_per_image_token": "image_input",
    "cache_read_input_image_token_cost": "cached_image_input",
    "input_cost_per_video_token": "video_input",
    "output_cost_per_token": "output",
    "output_cost_per_reasoning_token": "reasoning",
    "output_cost_per_audio_token": "audio_output",
    "output_cost_per_image_token": "image_output",
}
"""The fields of an entry, and those of a Price."""
_TIERS = {"batches": BATCH, "flex": "flex", "priority": "priority", "balanced": "balanced", "ultrafast": "ultrafast"}
_TIER = "|".join(_TIERS)
_KEY = re.compile(
    rf"(?P<field>{'|'.join(_FIELDS)})(?:_(?P<tier>{_TIER}))?"
    rf"(?:_above_(?P<number>\d{{1,12}})(?P<thousands>k?)_tokens)?(?:_(?P<last_tier>{_TIER}))?"
)
"""The name of a price, as in ``cache_read_input_token_cost_above_200k_tokens_priority``."""
_INCLUSIVE = "xai"
"""The provider whose prices of long prompts hold from the threshold on, and not only above it."""
_WRITERS = ("chat", "completion", "responses")
"""The kinds of models that write text. Others, such as those of embeddings, may have no price of replies."""
_HALF_CACHED = "fireworks_ai"
"""The provider whose cached tokens cost half the price of others, where the map has no price."""


def has_prices(entry: Mapping[str, Any]) -> bool:
    """Whether an entry has prices of tokens in litellm's format."""
    return "tiered_pricing" in entry or any(isinstance(name, str) and _KEY.fullmatch(name) for name in entry)


def with_alias(entry: Mapping[str, Any], entries: Mapping[str, Any]) -> Mapping[str, Any]:
    """An entry of a map, with the fields of the one of which it is an alias."""
    alias = entry.get("alias_of")
    original = entries.get(alias) if isinstance(alias, str) else None
    return {**original, **entry} if isinstance(original, Mapping) else entry


def price_of_entry(entry: Mapping[str, Any]) -> Price | None:
    """The price in an entry of litellm's map; None if it has no price for tokens of prompts.

    Raises ConfigurationError for a price that is negative, infinite or no number.
    """
    levels: dict[tuple[str | None, int | None], dict[str, Any]] = {(None, None): {}}
    for name, value in entry.items():
        match = _KEY.fullmatch(name) if isinstance(name, str) else None
        if value is None or match is None:
            continue
        tier = _TIERS.get(match["last_tier"] or match["tier"] or "")
        threshold = _threshold(match, entry)
        levels.setdefault((tier, threshold), {})[_FIELDS[match["field"]]] = for_a_million(value, name)
    plain = levels[None, None]
    request = entry.get("input_cost_per_request")
    if request is not None:
        plain["request"] = request
    ranges = _ranges(entry.get("tiered_pricing"))
    if ranges:
        return _price_by_ranges(plain, ranges)
    if "input" not in plain:
        return None
    if not plain.get("output") and "image_output" in plain:
        plain["output"] = plain["image_output"]  # of models that only make images
    if entry.get("mode", "chat") not in _WRITERS:
        plain.setdefault("output", 0.0)
    if entry.get("litellm_provider") == _HALF_CACHED:
        plain.setdefault("cached_input", _half(plain["input"]))
    return _nested(levels)


def _threshold(match: re.Match[str], entry: Mapping[str, Any]) -> int | None:
    if match["number"] is None:
        return None
    threshold = int(match["number"]) * (1000 if match["thousands"] else 1)
    return threshold - 1 if entry.get("litellm_provider") == _INCLUSIVE else threshold


def for_a_million(value: Any, name: str) -> float:
    """A price of a million tokens. Raises ConfigurationError for a value that is no number."""
    number = amount_of(value)
    if number is None:
        raise ConfigurationError(f"{name} is {shown(value)}; it must be US dollars for one token, such as 2.5e-06")
    return float(Fraction(repr(number)) * 1_000_000)


def _half(price: float) -> float:
    return float(Fraction(repr(price)) / 2)


def _nested(levels: Mapping[tuple[str | None, int | None], dict[str, Any]]) -> Price:
    prices: dict[str | None, dict[str, Any]] = {}
    for (tier, threshold), values in levels.items():
        price = prices.setdefault(tier, {})
        if threshold is None:
            price.update(values)
        else:
            price.setdefault("above", {})[threshold] = values
    plain = prices.pop(None)
    return price_from_fields({**plain, "service_tiers": prices})


def _ranges(value: object) -> list[tuple[int, Mapping[str, Any]]]:
    """The tiers of ``tiered_pricing`` by the number of tokens that a prompt must exceed."""
    if not isinstance(value, list | tuple):
        return []
    ranges = []
    for tier in value:
        if not isinstance(tier, Mapping) or "input_cost_per_token" not in tier:
            continue
        bounds = tier.get("range")
        if not isinstance(bounds, list | tuple) or not bounds:
            continue
        start = amount_of(bounds[0])
        if start is None:
            raise ConfigurationError(
                f"tiered_pricing has the range {shown(bounds)}; it must begin with a number of tokens, such as 128000"
            )
        ranges.append((math.floor(start), tier))
    return sorted(ranges, key=_by_start)


def _by_start(entry: tuple[int, Mapping[str, Any]]) -> int:
    return entry[0]


def _price_by_ranges(plain: dict[str, Any], ranges: Iterable[tuple[int, Mapping[str, Any]]]) -> Price:
    """A price whose tiers are those of ``tiered_pricing``: all tokens of a call have the prices of one tier."""
    price = dict(plain)
    above: dict[int, dict[str, Any]] = {}
    for number, (start, tier) in enumerate(ranges):
        values: dict[str, Any] = {}
        for name, field in _FIELDS.items():
            if tier.get(name) is not None:
                values[field] = for_a_million(tier[name], name)
        if "output" in plain:
            values.setdefault("output", plain["output"])
        for field in ("cached_input", "cache_write"):
            values.setdefault(field, values["input"])
        for field in ("cache_write_1h", "cache_write_12h"):
            values.setdefault(field, values["cache_write"])
        if number == 0:
            price.pop("reasoning", None)
            price.update(values)
        else:
            above[start] = values
    return price_from_fields({**price, "above": above})
