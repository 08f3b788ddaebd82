"""Tables and arrays as complete texts: their own ``str`` leaves out the middle."""

from __future__ import annotations

from typing import Any

__all__ = ["whole_text"]


def whole_text(value: Any) -> str:
    """``str(value)``; for a table, column or array of pandas, numpy or polars all of its rows and columns."""
    package = type(value).__module__.partition(".")[0]
    if package == "pandas" and hasattr(value, "to_string"):
        return str(value.to_string())
    if package == "numpy" and getattr(value, "ndim", None):
        import numpy as np

        return np.array2string(value, threshold=value.size + 1)
    if package == "polars" and hasattr(value, "write_csv"):
        return str(value.write_csv())
    return str(value)
