"""From what users write as a model to the model itself."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

from dspynb.errors import NoModelError
from dspynb.lm.base import LMProtocol
from dspynb.lm.client import LM

__all__ = ["resolve_lm"]


@lru_cache(maxsize=64)
def _named(model: str) -> LM:
    return LM(model)


def resolve_lm(choice: Any) -> LMProtocol:
    """A model from its name or itself. Raises NoModelError for None."""
    if choice is None:
        raise NoModelError
    return _named(choice) if isinstance(choice, str) else cast("LMProtocol", choice)
