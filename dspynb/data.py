"""Values that pass between all parts: rows, predictions and usage."""

from __future__ import annotations

import operator
from collections.abc import ItemsView, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any, SupportsIndex

from dspynb.aliases import Rows
from dspynb.errors import InputError, of_dspy, shorten
from dspynb.records import quickly_made
from dspynb.redact import redact_known
from dspynb.score import Score, as_score

if TYPE_CHECKING:
    pass

__all__ = [
    "NO_USAGE",
    "Example",
    "Meta",
    "Prediction",
    "Score",
    "Usage",
    "as_score",
    "is_sound",
    "rows_of",
    "sum_tokens",
    "token_count",
    "tokens_text",
    "usage_of",
]


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

    ``usd`` is None when a price is unknown, a number of tokens where the provider did not report it; unknown plus
    anything is unknown. ``calls`` counts none that a cache answered; ``cached_tokens`` are those of the prompt that a
    provider had in its own cache, ``reasoning_tokens`` those of the completion that the model thought with.

    >>> total = dn.Usage(calls=1, prompt_tokens=90, completion_tokens=10, usd=0.002) + dn.Usage(calls=1, usd=None)
    >>> total.calls, total.tokens, total.usd
    (2, 100, None)
    """

    calls: int = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    cached_tokens: int | None = 0
    reasoning_tokens: int | None = 0
    usd: float | None = 0.0
    seconds: float = 0.0
    retries: int = 0

    @property
    def tokens(self) -> int | None:
        """Prompt and completion tokens together; None where one of them is unknown."""
        return _sum(self.prompt_tokens, self.completion_tokens)

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
            _sum(self.prompt_tokens, other.prompt_tokens),
            _sum(self.completion_tokens, other.completion_tokens),
            _sum(self.cached_tokens, other.cached_tokens),
            _sum(self.reasoning_tokens, other.reasoning_tokens),
            None if self.usd is None or other.usd is None else self.usd + other.usd,
            self.seconds + other.seconds,
            self.retries + other.retries,
        )


class UsageTotal:
    """A sum of usages that grows: adding to it takes a third of the time that ``Usage + Usage`` takes."""

    __slots__ = (
        "_cached",
        "_calls",
        "_completion",
        "_prompt",
        "_reasoning",
        "_retries",
        "_seconds",
        "_unknown",
        "_usd",
    )

    def __init__(self) -> None:
        self._calls = self._prompt = self._completion = self._cached = self._reasoning = self._retries = 0
        self._usd = self._seconds = 0.0
        self._unknown: Usage | None = None  # the sum, from the first usage on that has a number that is not known

    def add(self, usage: Usage) -> None:
        """Add one."""
        if self._unknown is None:
            try:
                prompt = self._prompt + usage.prompt_tokens  # type: ignore[operator]  # None raises
                completion = self._completion + usage.completion_tokens  # type: ignore[operator]
                cached = self._cached + usage.cached_tokens  # type: ignore[operator]
                reasoning = self._reasoning + usage.reasoning_tokens  # type: ignore[operator]
                usd = self._usd + usage.usd  # type: ignore[operator]
            except TypeError:
                self._unknown = self.value() + usage
                return
            self._prompt, self._completion, self._cached = prompt, completion, cached
            self._reasoning, self._usd = reasoning, usd
            self._calls += usage.calls
            self._seconds += usage.seconds
            self._retries += usage.retries
        else:
            self._unknown += usage

    def value(self) -> Usage:
        """The sum so far."""
        if self._unknown is not None:
            return self._unknown
        return Usage(
            self._calls,
            self._prompt,
            self._completion,
            self._cached,
            self._reasoning,
            self._usd,
            self._seconds,
            self._retries,
        )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def sum_tokens(usages: Iterable[Usage]) -> int | None:
    """The tokens of all; None where those of one are unknown."""
    total: int | None = 0
    for usage in usages:
        total = _sum(total, usage.tokens)
    return total


def tokens_text(tokens: int | None) -> str:
    """A number of tokens as people read it; empty for none."""
    if tokens is None:
        return "unknown tokens"
    return f"{tokens:,} token{'' if tokens == 1 else 's'}" if tokens else ""


_MOST_TOKENS = 10**12
"""A larger number is no count of tokens; sums of this many stay far below 2**63, which tables can hold."""


def token_count(value: Any) -> int | None:
    """The number of tokens that a provider or a file reports; None for anything that is no such number."""
    if type(value) is int:  # nearly always: the tests below take 20 times as long
        return value if 0 <= value <= _MOST_TOKENS else None
    if isinstance(value, float) and value.is_integer():  # 12.0, as JSON of some languages writes it
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):  # numpy's integers are some
        return None
    number = operator.index(value)
    return number if 0 <= number <= _MOST_TOKENS else None


def is_sound(usage: Any) -> bool:
    """Whether it is a Usage whose members are numbers of their kind, or None where they may be."""
    if type(usage) is not Usage:
        return False
    whole = (usage.calls, usage.retries, *(0 if (n := getattr(usage, name)) is None else n for name in _TOKENS))
    numbers = all(type(n) is int and 0 <= n <= _MOST_TOKENS for n in whole)
    return numbers and _amount(usage.usd) is usage.usd and _amount(usage.seconds) is not None


def usage_of(values: Any) -> Usage:
    """The Usage in a mapping, or a Usage of any members: what is no number of its kind is unknown."""
    if type(values) is dict and (usual := _usual(values)) is not None:
        return usual
    if isinstance(values, Usage):
        values = {name: getattr(values, name) for name in Usage.__slots__}
    if not isinstance(values, Mapping):
        return Usage(1, None, None, None, None, None)
    get = values.get
    calls, retries = token_count(get("calls", 0)), token_count(get("retries", 0))
    prompt, completion = token_count(get("prompt_tokens", 0)), token_count(get("completion_tokens", 0))
    cached, thought = token_count(get("cached_tokens", 0)), token_count(get("reasoning_tokens", 0))
    usd, seconds = _amount(get("usd", 0.0)), _amount(get("seconds", 0.0))
    return Usage(calls or 0, prompt, completion, cached, thought, usd, seconds or 0.0, retries or 0)


_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")


_MEMBERS = operator.itemgetter("calls", *_TOKENS, "retries", "usd", "seconds")


def _usual(values: dict[str, Any]) -> Usage | None:
    """The Usage in a dict with all members, known and of their types, as nearly every line of a run file has it; None
    for any other. A quarter of the time of looking at each."""
    try:
        calls, prompt, completion, cached, thought, retries, usd, seconds = _MEMBERS(values)
    except KeyError:
        return None
    whole = type(calls) is type(prompt) is type(completion) is type(cached) is type(thought) is type(retries) is int
    if not (whole and type(usd) is type(seconds) is float and 0 <= usd <= _MOST_TOKENS and seconds >= 0):
        return None
    small = 0 <= calls <= _MOST_TOKENS and 0 <= prompt <= _MOST_TOKENS and 0 <= completion <= _MOST_TOKENS
    also = 0 <= cached <= _MOST_TOKENS and 0 <= thought <= _MOST_TOKENS and 0 <= retries <= _MOST_TOKENS
    if not (small and also and seconds <= _MOST_TOKENS):
        return None
    return Usage(calls, prompt, completion, cached, thought, usd, seconds, retries)


def _amount(value: Any) -> float | None:
    """Seconds or US dollars; None for what is no finite number of them."""
    if type(value) is not float and (not isinstance(value, int | float) or isinstance(value, bool)):
        return None
    known = 0 <= value <= _MOST_TOKENS
    return value if known else None


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


def rows_of(rows: Rows) -> list[Example]:
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
