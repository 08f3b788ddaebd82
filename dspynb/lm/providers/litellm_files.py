"""Files of the package litellm, which are read without importing it: the import takes seconds."""

from __future__ import annotations

import importlib.util
from pathlib import Path

__all__ = ["litellm_file"]


def litellm_file(name: str) -> Path | None:
    """The path of a file of litellm, such as ``types/utils.py``. None if litellm is not installed."""
    spec = importlib.util.find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / name
