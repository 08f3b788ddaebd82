"""Score: the value of a reward or metric, a number that may have feedback."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Real
from typing import Any

from dspynb.errors import RewardError, shorten

__all__ = ["Score", "as_float", "as_score"]


class _Number(Real):
    """Lets subclasses of Score that are dataclasses compare and hash by the number, instead of by generated methods."""

    __slots__ = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not {"__eq__", "__hash__"} & vars(cls).keys():
            cls.__eq__ = Score.__eq__  # type: ignore[assignment]
            cls.__hash__ = Score.__hash__  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, eq=False)
class Score(_Number):
    """A reward or metric value, higher is better, with optional textual feedback and named parts.

    A Score behaves as the number ``value``: truth value, comparison, hash, arithmetic, ``float()``, ``sum`` and numpy.
    Arithmetic of one Score with plain numbers (``0.5 * score``, ``1 - score``) returns a Score with the same feedback
    and parts. Arithmetic of two Scores returns a Score without feedback; use ``dn.metrics.weighted`` to combine both.

    ``value``: a finite number. ``feedback``: text or None. ``parts``: names and numbers. Raises RewardError for any
    other value.

    >>> score = dn.Score(0.5, feedback="Use the word 'blue'.", parts={"short": 1.0, "blue": 0.0})
    >>> float(score), score.feedback
    (0.5, "Use the word 'blue'.")
    >>> bool(dn.Score(0.0)), score >= 0.5, (0.5 * score).feedback, float((score + dn.Score(1.0)) / 2)
    (False, True, "Use the word 'blue'.", 0.75)
    """

    value: float
    feedback: str | None = None
    parts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _finite(self.value))
        if self.feedback is not None and not isinstance(self.feedback, str):
            raise RewardError(f"Score feedback must be text, got {type(self.feedback).__name__}")
        object.__setattr__(self, "parts", _parts(self.parts))

    def __float__(self) -> float:
        return self.value

    def __bool__(self) -> bool:
        return self.value != 0

    def __hash__(self) -> int:  # type: ignore[override]  # the base class Number has none
        return hash(self.value)

    def __eq__(self, other: object) -> Any:
        return self.value == _plain(other)  # for an array, an array of truth values

    def __ne__(self, other: object) -> Any:
        return self.value != _plain(other)

    def __lt__(self, other: object) -> bool:
        return operator.lt(self.value, _plain(other))  # type: ignore[no-any-return]

    def __le__(self, other: object) -> bool:
        return operator.le(self.value, _plain(other))  # type: ignore[no-any-return]

    def __gt__(self, other: object) -> bool:
        return operator.gt(self.value, _plain(other))  # type: ignore[no-any-return]

    def __ge__(self, other: object) -> bool:
        return operator.ge(self.value, _plain(other))  # type: ignore[no-any-return]

    def __add__(self, other: object) -> Any:
        return self._combined(operator.add(self.value, _plain(other)), other)

    def __radd__(self, other: object) -> Any:
        return self._combined(operator.add(other, self.value), other)

    def __sub__(self, other: object) -> Any:
        return self._combined(operator.sub(self.value, _plain(other)), other)

    def __rsub__(self, other: object) -> Any:
        return self._combined(operator.sub(other, self.value), other)

    def __mul__(self, other: object) -> Any:
        return self._combined(operator.mul(self.value, _plain(other)), other)

    def __rmul__(self, other: object) -> Any:
        return self._combined(operator.mul(other, self.value), other)

    def __truediv__(self, other: object) -> Any:
        return self._combined(operator.truediv(self.value, _plain(other)), other)

    def __rtruediv__(self, other: object) -> Any:
        return self._combined(operator.truediv(other, self.value), other)

    def __floordiv__(self, other: object) -> Any:
        return self._combined(operator.floordiv(self.value, _plain(other)), other)

    def __rfloordiv__(self, other: object) -> Any:
        return self._combined(operator.floordiv(other, self.value), other)

    def __mod__(self, other: object) -> Any:
        return self._combined(operator.mod(self.value, _plain(other)), other)

    def __rmod__(self, other: object) -> Any:
        return self._combined(operator.mod(other, self.value), other)

    def __pow__(self, other: object) -> Any:
        return self._combined(operator.pow(self.value, _plain(other)), other)

    def __rpow__(self, other: object) -> Any:
        return self._combined(operator.pow(other, self.value), other)

    def __neg__(self) -> Score:
        return Score(-self.value, self.feedback, self.parts)

    def __pos__(self) -> Score:
        return self

    def __abs__(self) -> Score:
        return Score(abs(self.value), self.feedback, self.parts)

    def __round__(self, ndigits: int | None = None) -> Any:
        if ndigits is None:
            return round(self.value)
        return Score(round(self.value, ndigits), self.feedback, self.parts)

    def __int__(self) -> int:
        return int(self.value)

    def __trunc__(self) -> int:
        return math.trunc(self.value)

    def __floor__(self) -> int:
        return math.floor(self.value)

    def __ceil__(self) -> int:
        return math.ceil(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else str(self)

    def as_integer_ratio(self) -> tuple[int, int]:
        """The value as an exact fraction, as from ``float.as_integer_ratio``. The module ``statistics`` calls it."""
        return self.value.as_integer_ratio()

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Apply a numpy function to the value. A numpy number times a Score is a Score, as the other way round."""
        if method == "__call__" and not options and ufunc.__name__ in _REFLECTED:
            number, score = inputs
            if score is self and _is_number(number):
                return getattr(self, _REFLECTED[ufunc.__name__])(number)
        return getattr(ufunc, method)(*map(_plain, inputs), **options)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:  # numpy's own signature
        import numpy as np

        return np.asarray(self.value, dtype=dtype)

    def _combined(self, result: object, other: object) -> Any:
        """The result of an operation with ``other``, as a Score if it is a finite real number."""
        if not isinstance(result, Real) or not math.isfinite(result):
            return result
        if isinstance(other, Score):
            return Score(float(result))
        return Score(float(result), self.feedback, self.parts)


_REFLECTED = {"add": "__radd__", "subtract": "__rsub__", "multiply": "__rmul__", "divide": "__rtruediv__"}


def _is_number(value: object) -> bool:
    """Whether a value is one number, of Python or numpy. (``numpy.bool_`` is not a Real.)"""
    return isinstance(value, Real | Decimal) or getattr(value, "shape", None) == ()


def _plain(value: object) -> Any:
    """The number of a Score; any other value itself."""
    return value.value if isinstance(value, Score) else value


def _parts(parts: object) -> dict[str, Any]:
    """The parts with all numbers (also bools, Scores, Decimals and those of numpy) as floats, for run files."""
    if parts is None:
        return {}
    if not isinstance(parts, dict | Mapping):
        raise RewardError(f"Score parts must be a mapping of name to number, got {type(parts).__name__}")
    floats = {}
    for name, part in parts.items():
        floats[str(name)] = float(part) if _is_number(part) else part
    return floats


def _finite(value: Any) -> float:
    if value is None:
        raise RewardError(
            "the reward or metric returned None; return a number, a bool or dn.Score (is a `return` missing?)"
        )
    if isinstance(value, str | bytes):
        raise RewardError(
            f"the reward or metric returned text {shorten(repr(value), 80)}; return a number, a bool or dn.Score"
        )
    try:
        number = float(value)
    except OverflowError:
        raise RewardError("the reward or metric returned a number too large for a float") from None
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a torch tensor of several numbers
        raise RewardError(
            f"the reward or metric returned {type(value).__name__}, not a number, a bool or dn.Score; with feedback: "
            "dn.Score(0.5, feedback='…')"
        ) from None
    if not math.isfinite(number):
        raise RewardError(f"the reward or metric returned {number}; a score must be a finite number")
    return number


def as_score(value: Any) -> Score:
    """Convert the value of a reward to a Score. Raises RewardError.

    It is a Score, float, bool or numpy scalar; or a mapping such as a Prediction, as metrics for DSPy's GEPA return it,
    with ``score`` and perhaps ``feedback`` (text) and ``parts`` (numbers by name).
    """
    if isinstance(value, Score):
        return value
    if isinstance(value, Mapping) and "score" in value:
        return Score(as_score(value["score"]).value, value.get("feedback"), value.get("parts") or {})
    return Score(value)


def as_float(value: object) -> Any:
    """Convert a Score, Decimal or number of numpy to a float, for settings that are compared with scores. Any other
    value, also a bool, is returned unchanged."""
    if isinstance(value, Real | Decimal) and not isinstance(value, bool | int | float):
        return float(value)
    return value
