"""Score: what a reward or metric says of a prediction, as a number that may carry feedback."""

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
    """Keeps ``==`` and hash by the number where a subclass of Score is a dataclass, which would write its own."""

    __slots__ = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not {"__eq__", "__hash__"} & vars(cls).keys():
            cls.__eq__, cls.__hash__ = Score.__eq__, Score.__hash__  # type: ignore[assignment,method-assign]


@dataclass(frozen=True, slots=True, eq=False)
class Score(_Number):
    """A reward or metric value, higher is better, with optional textual feedback and named parts.

    A Score behaves as the number ``value``: truth value, comparison, hash, arithmetic, ``float()``, ``sum`` and numpy.
    Arithmetic of one Score with plain numbers (``0.5 * score``, ``1 - score``) gives a Score with the same feedback
    and parts. Of two Scores it gives a Score without feedback: combine them with ``dn.metrics.weighted`` to keep both.

    Raises RewardError when ``value`` is not a finite number.

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

    def __hash__(self) -> int:  # type: ignore[override]  # Number has none
        return hash(self.value)

    def __eq__(self, other: object) -> Any:
        return self.value == _plain(other)  # of an array, one truth value for each number

    def __ne__(self, other: object) -> Any:
        return self.value != _plain(other)

    def __lt__(self, other: Any) -> bool:
        return operator.lt(self.value, _plain(other))  # type: ignore[no-any-return]

    def __le__(self, other: Any) -> bool:
        return operator.le(self.value, _plain(other))  # type: ignore[no-any-return]

    def __gt__(self, other: Any) -> bool:
        return operator.gt(self.value, _plain(other))  # type: ignore[no-any-return]

    def __ge__(self, other: Any) -> bool:
        return operator.ge(self.value, _plain(other))  # type: ignore[no-any-return]

    def __add__(self, other: Any) -> Any:
        return self._combined(operator.add(self.value, _plain(other)), other)

    def __radd__(self, other: Any) -> Any:
        return self._combined(operator.add(other, self.value), other)

    def __sub__(self, other: Any) -> Any:
        return self._combined(operator.sub(self.value, _plain(other)), other)

    def __rsub__(self, other: Any) -> Any:
        return self._combined(operator.sub(other, self.value), other)

    def __mul__(self, other: Any) -> Any:
        return self._combined(operator.mul(self.value, _plain(other)), other)

    def __rmul__(self, other: Any) -> Any:
        return self._combined(operator.mul(other, self.value), other)

    def __truediv__(self, other: Any) -> Any:
        return self._combined(operator.truediv(self.value, _plain(other)), other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._combined(operator.truediv(other, self.value), other)

    def __floordiv__(self, other: Any) -> Any:
        return self._combined(operator.floordiv(self.value, _plain(other)), other)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._combined(operator.floordiv(other, self.value), other)

    def __mod__(self, other: Any) -> Any:
        return self._combined(operator.mod(self.value, _plain(other)), other)

    def __rmod__(self, other: Any) -> Any:
        return self._combined(operator.mod(other, self.value), other)

    def __pow__(self, other: Any) -> Any:
        return self._combined(operator.pow(self.value, _plain(other)), other)

    def __rpow__(self, other: Any) -> Any:
        return self._combined(operator.pow(other, self.value), other)

    def __neg__(self) -> Score:
        return Score(-self.value, self.feedback, self.parts)

    def __pos__(self) -> Score:
        return self

    def __abs__(self) -> Score:
        return Score(abs(self.value), self.feedback, self.parts)

    def __round__(self, ndigits: int | None = None) -> Any:
        rounded = round(self.value, ndigits)
        return rounded if ndigits is None else Score(rounded, self.feedback, self.parts)

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
        """The value as an exact fraction, as ``float.as_integer_ratio`` gives it. The module statistics needs it."""
        return self.value.as_integer_ratio()

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Apply a numpy function to the value. ``numpy number * score`` is what ``score * numpy number`` is."""
        reflected = _REFLECTED.get(ufunc.__name__) if method == "__call__" and not options else None
        if reflected is not None and inputs[1] is self and _is_number(inputs[0]):
            return getattr(self, reflected)(inputs[0])
        return getattr(ufunc, method)(*map(_plain, inputs), **options)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:  # numpy's own signature
        import numpy as np

        return np.asarray(self.value, dtype=dtype)

    def _combined(self, result: Any, other: Any) -> Any:
        """The result of an operation with ``other``: a Score where it is a finite real number, else itself."""
        if not isinstance(result, Real) or not math.isfinite(result):
            return result
        if isinstance(other, Score):
            return Score(float(result))
        return Score(float(result), self.feedback, self.parts)


_REFLECTED = {"add": "__radd__", "subtract": "__rsub__", "multiply": "__rmul__", "divide": "__rtruediv__"}


def _is_number(value: Any) -> bool:
    """Whether it is one number, of Python or numpy (``numpy.bool_`` is no Real)."""
    return isinstance(value, Real | Decimal) or getattr(value, "shape", None) == ()


def _plain(value: Any) -> Any:
    """A Score as its number; anything else as it is."""
    return value.value if isinstance(value, Score) else value


def _parts(parts: Any) -> dict[str, Any]:
    """The parts with their numbers (bools, Scores, Decimals, those of numpy) as floats, as a run file holds them."""
    if parts is None:
        return {}
    if not isinstance(parts, Mapping):
        raise RewardError(f"Score parts must be a mapping of name to number, got {type(parts).__name__}")
    return {str(name): float(part) if _is_number(part) else part for name, part in parts.items()}


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
            f"the reward or metric returned {type(value).__name__}, not a number, a bool or dn.Score"
        ) from None
    if not math.isfinite(number):
        raise RewardError(f"the reward or metric returned {number}; a score must be a finite number")
    return number


def as_score(value: Any) -> Score:
    """A Score from what a reward returned: a Score, a float, a bool or a numpy scalar. Raises RewardError."""
    return value if isinstance(value, Score) else Score(value)


def as_float(value: Any) -> Any:
    """A Score, a Decimal or a number of numpy as a float, for settings that scores are compared with. Anything else,
    bools included, as it is."""
    is_other = isinstance(value, Real | Decimal) and not isinstance(value, bool | int | float)
    return float(value) if is_other else value
