"""Values that pass between all parts: rows, predictions, scores and usage."""

from __future__ import annotations

import math
from collections.abc import ItemsView, Iterator, Mapping
from dataclasses import dataclass, field, replace
from html import escape
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
            raise AttributeError(f"no field {name!r}; there are: {redact_known(', '.join(self)) or 'none'}") from None

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
        values = (
            f"{redact_known(name)}={shorten(redact_known(repr(value)), 200)}" for name, value in self._values.items()
        )
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
            raise InputError(f"with_inputs: no field {unknown[0]!r}; there are: {redact_known(', '.join(self))}")
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


@dataclass(frozen=True, slots=True)
class Score:
    """A reward or metric value, higher is better, with optional textual feedback and named parts.

    Raises RewardError when ``value`` is not a finite number.

    >>> score = dn.Score(0.5, feedback="Use the word 'blue'.", parts={"short": 1.0, "blue": 0.0})
    >>> float(score), score.feedback
    (0.5, "Use the word 'blue'.")
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
        copy = type(self)(self._values)
        for name in _META_NAMES:
            setattr(copy.meta, name, changes.get(name, getattr(self.meta, name)))
        return copy

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_META_NAMES})

    def __reduce__(self) -> tuple[Any, ...]:
        return Prediction, (self._values,)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(redact_known(k))}</th>"
            f"<td style='text-align:left;white-space:pre-wrap'>{escape(_shown(v))}</td></tr>"
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
