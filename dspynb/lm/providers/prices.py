"""What calls cost, from the price map that litellm ships. The file is read; litellm is not imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic_core import from_json

__all__ = ["cost", "supports"]

_FILE = "model_prices_and_context_window_backup.json"


@lru_cache(maxsize=1)
def _prices() -> Mapping[str, Any]:
    """The price map; empty where litellm is not installed, so that costs are unknown."""
    spec = importlib.util.find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        return {}
    path = Path(next(iter(spec.submodule_search_locations))) / _FILE
    try:
        return dict(from_json(path.read_bytes()))  # 3 MB, while a first call waits: twice as fast as json
    except (OSError, ValueError):
        return {}


@lru_cache(maxsize=256)
def _entry(model: str) -> Mapping[str, Any] | None:
    prices = _prices()
    return prices.get(model) or prices.get(model.split("/", 1)[-1])


def supports(model: str, what: str) -> bool:
    """Whether litellm's map says that a model supports something, such as ``function_calling``."""
    return bool((_entry(model) or {}).get(f"supports_{what}"))


def cost(model: str, prompt: int, completion: int, cached: int) -> float | None:
    """USD of one call of ``provider/model`` with so many tokens, ``cached`` of the prompt's from the provider's cache;
    None where the price is not known (unknown is not zero)."""
    entry = _entry(model)
    if entry is None or "input_cost_per_token" not in entry:
        return None
    full = float(entry["input_cost_per_token"])
    read = float(entry.get("cache_read_input_token_cost") or full)
    output = float(entry.get("output_cost_per_token") or 0.0)
    return (prompt - cached) * full + cached * read + completion * output
