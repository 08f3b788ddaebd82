"""Prices of calls, from litellm's price map. The file is read without importing litellm."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic_core import from_json

from dspynb.lm.providers.litellm_files import litellm_file

__all__ = ["cost", "map_entry", "supports"]

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


def cost(model: str, prompt: int, completion: int, cached: int) -> float | None:
    """The price of one call of ``provider/model`` in USD; None if it is unknown.

    ``prompt``, ``completion``: tokens of the prompt and the reply. ``cached``: tokens of the prompt that the provider
    read from its cache.
    """
    entry = map_entry(model)
    if entry is None or "input_cost_per_token" not in entry:
        return None
    input_price = float(entry["input_cost_per_token"])
    cached_price = float(entry.get("cache_read_input_token_cost") or input_price)
    output_price = float(entry.get("output_cost_per_token") or 0.0)
    return (prompt - cached) * input_price + cached * cached_price + completion * output_price
