"""Values that pass between all parts: rows, predictions, scores and usage."""

from __future__ import annotations

import math
import operator
from collections.abc import ItemsView, Iterator, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from numbers import Real
from typing import TYPE_CHECKING, Any

from dspynb.errors import InputError, RewardError, of_dspy, shorten
from dspynb.records import quickly_made
from dspynb.redact import redact_known

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NO_USAGE", "Example", "Meta", "Prediction", "Score", "Usage", "as_score", "rows_of"]


class _Record(Mapping[str, Any]):
    """Named values, read as keys or attributes; equality is by content."""

    __slots__ = ("_values",)
    _values: dict[str, Any]

    def __init__(self, values: dict[str, Any]) -> None:
        """``values``: a dict that nobody else holds."""
        object.__setattr__(self, "_values", values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def items(self) -> ItemsView[str, Any]:
        return self._values.items()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_values":
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"no field {name!r}; there are: {', '.join(self) or 'none'}") from None

    def __setattr__(self, name: str, _: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable; {name!r} cannot be set")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._values})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]  # content may hold lists

    def to_dict(self) -> dict[str, Any]:
        """A new dict of the values."""
        return dict(self._values)

    def __repr__(self) -> str:
        values = (f"{name}={shorten(redact_known(repr(value)), 200)}" for name, value in self._values.items())
        return f"{type(self).__name__}({', '.join(values)})"


class Example(_Record):
    """One row of data: inputs and labels, read as attributes or keys.

    >>> row = dn.Example(question="2+2?", answer="4").with_inputs("question")
    >>> row.answer, row.inputs()
    ('4', {'question': '2+2?'})
    """

    __slots__ = ("input_names",)
    input_names: frozenset[str] | None

    def __init__(self, values: Mapping[str, Any] | None = None, /, **named: Any) -> None:
        super().__init__({**(values or {}), **named})
        object.__setattr__(self, "input_names", None)

    def with_inputs(self, *names: str) -> Example:
        """A copy that marks which fields are inputs; the rest are labels. Raises InputError for an unknown name."""
        unknown = [n for n in names if n not in self]
        if unknown:
            raise InputError(f"with_inputs: no field {unknown[0]!r}; there are: {', '.join(self)}")
        copy = Example(self._values)
        object.__setattr__(copy, "input_names", frozenset(names))
        return copy

    def inputs(self) -> dict[str, Any]:
        """The input fields; all fields if ``with_inputs`` was not used."""
        names = self.input_names
        return self.to_dict() if names is None else {k: v for k, v in self._values.items() if k in names}

    def labels(self) -> dict[str, Any]:
        """The fields that are not inputs."""
        return {k: v for k, v in self.items() if self.input_names is not None and k not in self.input_names}

    def __reduce__(self) -> tuple[Any, ...]:
        return _example, (self._values, self.input_names)


def _example(values: dict[str, Any], names: frozenset[str] | None) -> Example:
    example = Example(values)
    return example if names is None else example.with_inputs(*names)


@quickly_made
@dataclass(frozen=True, slots=True)
class Usage:
    """What calls cost: how many, tokens, US dollars, ``seconds`` spent on them in all, and tries that failed.

    ``usd`` is None when a price is unknown, and unknown plus anything is unknown. ``calls`` counts none that a cache
    answered; ``cached_tokens`` are those of the prompt that a provider had in its own cache.

    >>> total = dn.Usage(calls=1, prompt_tokens=90, completion_tokens=10, usd=0.002) + dn.Usage(calls=1, usd=None)
    >>> total.calls, total.tokens, total.usd
    (2, 100, None)
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    usd: float | None = 0.0
    seconds: float = 0.0
    retries: int = 0

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    def as_cached(self) -> Usage:
        """The same tokens, served again: no call, no cost."""
        return replace(self, calls=0, usd=0.0, seconds=0.0, retries=0)

    def timed(self, seconds: float, retries: int) -> Usage:
        """The same, with how long it took and how many tries failed before it."""
        return Usage(
            self.calls,
            self.prompt_tokens,
            self.completion_tokens,
            self.cached_tokens,
            self.reasoning_tokens,
            self.usd,
            seconds,
            retries,
        )

    def __add__(self, other: Usage) -> Usage:
        if self is NO_USAGE:
            return other
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            None if self.usd is None or other.usd is None else self.usd + other.usd,
            self.seconds + other.seconds,
            self.retries + other.retries,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Score(Real):
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

    def __float__(self) -> float:
        return self.value

    def __bool__(self) -> bool:
        return self.value != 0

    def __hash__(self) -> int:
        return hash(self.value)

    def __eq__(self, other: object) -> bool:
        return self.value == _plain(other)

    def __lt__(self, other: Any) -> bool:
        return operator.lt(self.value, _plain(other))

    def __le__(self, other: Any) -> bool:
        return operator.le(self.value, _plain(other))

    def __gt__(self, other: Any) -> bool:
        return operator.gt(self.value, _plain(other))

    def __ge__(self, other: Any) -> bool:
        return operator.ge(self.value, _plain(other))

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
        if reflected is not None and isinstance(inputs[0], Real) and inputs[1] is self:
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


def _plain(value: Any) -> Any:
    """A Score as its number; anything else as it is."""
    return value.value if isinstance(value, Score) else value


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
    except (TypeError, ValueError):
        raise RewardError(
            f"the reward or metric returned {type(value).__name__}, not a number, a bool or dn.Score"
        ) from None
    if not math.isfinite(number):
        raise RewardError(f"the reward or metric returned {number}; a score must be a finite number")
    return number


def as_score(value: Any) -> Score:
    """A Score from what a reward returned: a Score, a float, a bool or a numpy scalar. Raises RewardError."""
    return value if isinstance(value, Score) else Score(value)


NO_USAGE = Usage()
"""Where a sum begins."""


@dataclass(slots=True)
class Meta:
    """What is known about a prediction besides its outputs."""

    score: Score | None = None
    usage: Usage = NO_USAGE
    calls: tuple[Any, ...] = ()
    run: Any = None


class Prediction(_Record):
    """The outputs of a module, as attributes and keys, in the order of its signature.

    ``.meta`` has ``score``, ``usage``, ``calls`` and ``run``; each is also an attribute where no output bears the name.

    >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"]))
    >>> prediction = ask.run_sync(question="2+2?")
    >>> prediction.answer, prediction["answer"], prediction.to_dict(), prediction.usage.calls
    ('4', '4', {'answer': '4'}, 1)
    """

    __slots__ = ("meta",)
    meta: Meta

    def __init__(self, values: Mapping[str, Any] | None = None, /, **named: Any) -> None:
        super().__init__({**(values or {}), **named})
        object.__setattr__(self, "meta", Meta())

    def __getattr__(self, name: str) -> Any:
        if name in _META_NAMES and name not in self._values:
            return getattr(self.meta, name)
        return super().__getattr__(name)

    def with_meta(self, **changes: Any) -> Prediction:
        """A copy with some of its meta replaced."""
        copy = type(self).__new__(type(self))  # a subclass may take other arguments
        if hasattr(self, "__dict__"):
            vars(copy).update(vars(self))
        object.__setattr__(copy, "_values", self._values)
        object.__setattr__(copy, "meta", Meta())
        for name in _META_NAMES:
            setattr(copy.meta, name, changes.get(name, getattr(self.meta, name)))
        return copy

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_META_NAMES})

    def __reduce__(self) -> tuple[Any, ...]:
        return Prediction, (self._values,)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(k)}</th><td style='text-align:left;white-space:pre-wrap'>"
            f"{escape(_shown(v))}</td></tr>"
            for k, v in self.items()
        )
        score = self.meta.score
        told = "" if score is None else f"<div style='opacity:.75'>score {score.value:.4g}</div>"
        return f"<table>{rows}</table>{told}"


def _shown(value: Any) -> str:
    text = redact_known(str(value))
    return text[:2000] if isinstance(value, str) else shorten(text, 2000)


_META_NAMES = ("score", "usage", "calls", "run")


def rows_of(rows: pd.DataFrame | list[Any] | tuple[Any, ...]) -> list[Example]:
    """Rows as Examples: from a DataFrame, or from dicts and Examples. Raises InputError naming the row."""
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        names = [str(name) for name in rows.columns]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"the DataFrame has two columns {twice!r}; rename one")
        return [Example(dict(zip(names, row.values(), strict=True))) for row in rows.to_dict("records")]
    if isinstance(rows, str | bytes | Mapping) or not hasattr(rows, "__iter__"):
        raise InputError(f"rows must be a DataFrame or a list of dicts or Examples, got {type(rows).__name__}")
    return [_row(i, row) for i, row in enumerate(rows)]


def _row(i: int, row: Any) -> Example:
    if isinstance(row, Example):
        return row
    if isinstance(row, Mapping):
        return Example({str(k): v for k, v in row.items()})
    raise InputError(f"row {i} is {type(row).__name__}; give a dict or an Example.{of_dspy(row)}")
