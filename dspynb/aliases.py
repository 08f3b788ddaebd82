"""Names for the types that users pass: rows of data, metrics and rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Metric", "Metrics", "Reward", "Rows"]

Rows: TypeAlias = "pd.DataFrame | Sequence[Mapping[str, Any]]"
"""A DataFrame, or a list of dicts or Examples."""
Metric: TypeAlias = Callable[..., Any]
"""A function ``(row, prediction) -> float | bool | Score``, sync or async. If it has parameters with these names, it
also gets ``trace`` (the calls that led to the prediction) and ``predictor`` (a path, or None)."""
Metrics: TypeAlias = "Metric | Mapping[str, Metric] | Sequence[Metric]"
"""One metric, or several by name or as a list; the first one gives the score."""
Reward: TypeAlias = Metric
"""The metric of a search; its ``row`` has the inputs of the call."""
