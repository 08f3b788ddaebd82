"""Prices of calls, from litellm's price map. The file is read without importing litellm."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic_core import from_json

from dspynb.lm.providers.litellm_files import litellm_file

__all__ = ["NO_PRICES", "Prices", "cost", "map_entry", "supports"]

_FILE = "model_prices_and_context_window_backup.json"


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
