"""Missing values, as pandas, numpy, Arrow and Python write them."""

from __future__ import annotations

__all__ = ["is_missing"]

_NEVER_MISSING = (str, bytes, int, list, tuple, dict, set, frozenset)


def is_missing(value: object) -> bool:
    """Whether a value is None, NaN (also of Decimal), NaT, pandas' NA or a null of Arrow. Arrays and tables are not."""
    if value is None:
        return True
    if isinstance(value, _NEVER_MISSING) or getattr(value, "ndim", None):
        return False
    if getattr(value, "is_valid", None) is False:  # a scalar of Arrow
        return True
    try:
        return bool(value != value)  # noqa: PLR0124  # only NaN and NaT differ from themselves
    except TypeError:  # pandas' NA has no truth value
        return True
    except Exception:  # a value of the user's that cannot be compared, such as a signalling NaN or an odd object
        return False
