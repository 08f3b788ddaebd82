"""Prices of calls, from litellm's price map. The file is read without importing litellm."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic_core import from_json

from dspynb.lm.providers.litellm_files import litellm_file

__all__ = ["NO_PRICES", "HighestPrices", "Prices", "cost", "highest_prices", "map_entry", "supports"]

_FILE = "model_prices_and_context_window_backup.json"
_INPUT_PRICES = ("input_cost_per_token", "cache_creation_input_token_cost")
"""The prices of a token of the prompt; the second one is that of a token which the provider adds to its cache."""
_OUTPUT_PRICES = ("output_cost_per_token", "output_cost_per_reasoning_token")
_LONG_PROMPT_PRICE = re.compile(r"(?P<name>\w+?)_above_(?P<thousands>\d+)k_tokens")
"""The name of a price for prompts above a number of tokens, as in ``input_cost_per_token_above_200k_tokens``."""
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


class Prices(NamedTuple):
    """Prices in US dollars for a token: of the prompt, of the reply, and of a part of the prompt that the provider read
    from its cache. None where a price is unknown."""

    input: float | None = None
    output: float | None = None
    cached_input: float | None = None


NO_PRICES = Prices()
"""Prices of a model of which none is known."""


@lru_cache(maxsize=256)
def _prices_of(model: str, own: Prices) -> Prices:
    """The prices of a model: ``own``, and those of the map for the rest. A cached token costs as much as any other one
    if its price is unknown, or if only the price of the prompt is given anew."""
    entry = map_entry(model) or {}
    listed = Prices()
    if "input_cost_per_token" in entry:
        listed = Prices(
            float(entry["input_cost_per_token"]),
            float(entry.get("output_cost_per_token") or 0.0),
            float(entry.get("cache_read_input_token_cost") or 0.0) or None,
        )
    input_price = listed.input
    cached_price = listed.cached_input
    if own.input is not None:
        input_price = own.input
        cached_price = None
    if own.cached_input is not None:
        cached_price = own.cached_input
    if cached_price is None:
        cached_price = input_price
    output_price = listed.output if own.output is None else own.output
    return Prices(input_price, output_price, cached_price)


def cost(model: str, prompt: int, completion: int, cached: int, own: Prices = NO_PRICES) -> float | None:
    """The price of one call of ``provider/model`` in USD; None if it is unknown.

    ``prompt``, ``completion``: tokens of the prompt and the reply. ``cached``: tokens of the prompt that the provider
    read from its cache. ``own``: prices that replace those of litellm's map.
    """
    input_price, output_price, cached_price = _prices_of(model, own)
    if input_price is None or output_price is None or cached_price is None:
        return None
    return (prompt - cached) * input_price + cached * cached_price + completion * output_price


class HighestPrices(NamedTuple):
    """The highest prices of a call in USD: for a token of the prompt, a token of the reply, and the call itself."""

    prompt_token: float
    reply_token: float
    call: float = 0.0


def highest_prices(model: str, prompt: int) -> HighestPrices | None:
    """The highest prices that may apply to a call of ``provider/model``; None if they are unknown.

    Reasoning, tokens that the provider adds to its cache, long prompts and web searches have prices of their own at
    some providers. ``prompt``: the number of tokens of the prompt. Prices of service tiers are not considered, since
    they apply on request only.
    """
    entry = map_entry(model)
    if entry is None or "input_cost_per_token" not in entry or "output_cost_per_token" not in entry:
        return None
    call_price = float(entry.get("input_cost_per_request") or 0.0)
    searches = entry.get("search_context_cost_per_query")
    if isinstance(searches, Mapping) and _SEARCHES_ALWAYS.search(model):
        call_price += max(float(price) for price in searches.values())
    prompt_price = _highest(entry, _INPUT_PRICES, prompt)
    return HighestPrices(prompt_price, _highest(entry, _OUTPUT_PRICES, prompt), call_price)


def _highest(entry: Mapping[str, Any], names: tuple[str, ...], prompt: int) -> float:
    """The highest of some prices, with those that apply to a prompt of this number of tokens."""
    prices = [float(entry.get(name) or 0.0) for name in names]
    for field, price in entry.items():
        match = _LONG_PROMPT_PRICE.fullmatch(field)
        if match and match["name"] in names and prompt > 1000 * int(match["thousands"]):
            prices.append(float(price or 0.0))
    return max(prices)
