"""Values that all parts of the package exchange: rows, predictions and usage."""

from __future__ import annotations

import operator
from collections.abc import ItemsView, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import Any, SupportsIndex

from dspynb.aliases import Rows
from dspynb.dataclass_init import fast_init
from dspynb.errors import InputError, of_dspy, shorten
from dspynb.redact import redact_known
from dspynb.score import Score, as_score

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
    """Named values, which are read as keys or attributes. Equality is by content."""

    __slots__ = ("_values",)
    _values: dict[str, Any]

    def __init__(self, values: dict[str, Any]) -> None:
        """``values``: a dict that is not used elsewhere."""
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

    def __setattr__(self, name: str, _: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable; {name!r} cannot be set")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._values})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self._values == other._values

    def __hash__(self) -> int:
        """Equal records have the same hash. Values that have none themselves, such as lists, do not count."""
        hashes = set()
        for name, value in self._values.items():
            try:
                hashes.add(hash((name, value)))
            except TypeError:
                hashes.add(hash(name))
        return hash(frozenset(hashes))

    def to_dict(self) -> dict[str, Any]:
        """A new dict of the values."""
        return dict(self._values)

    def __repr__(self) -> str:
        arguments = []
        for name, value in self._values.items():
            arguments.append(f"{redact_known(name)}={shorten(redact_known(repr(value)), 200)}")
        return f"{type(self).__name__}({', '.join(arguments)})"


class Example(_Record):
    """One row of data: inputs and labels, which are read as attributes or keys.

    >>> row = dn.Example(question="2+2?", answer="4").with_inputs("question")
    >>> row.answer, row.inputs()
    ('4', {'question': '2+2?'})
    """

    __slots__ = ("input_names",)
    input_names: frozenset[str] | None

    def __init__(self, values: Mapping[str, Any] | None = None, /, **named: Any) -> None:
        """``values``, or ``base=`` as in DSPy: an Example or dict whose values are taken over."""
        if values is None and isinstance(named.get("base"), dict | Example):
            values = named.pop("base")
        super().__init__({**(values or {}), **named})
        object.__setattr__(self, "input_names", getattr(values, "input_names", None))

    def copy(self, **changes: Any) -> Example:
        """A copy with changes, which marks the same fields as inputs.

        >>> dn.Example(question="2+2?", answer="4").copy(answer="four")
        Example(question='2+2?', answer='four')
        """
        return Example(self, **changes)

    def without(self, *names: str) -> Example:
        """A copy without these fields. Names that are not fields are ignored.

        >>> dn.Example(question="2+2?", answer="4").without("answer")
        Example(question='2+2?')
        """
        values = {name: value for name, value in self._values.items() if name not in names}
        return _example(values, self.input_names and self.input_names & values.keys())

    def with_inputs(self, *names: str) -> Example:
        """A copy that marks which fields are inputs. All other fields are labels. Raises InputError for an unknown
        name."""
        unknown = [name for name in names if name not in self]
        if unknown:
            raise InputError(f"with_inputs: no field {unknown[0]!r}; there are: {redact_known(', '.join(self))}")
        copy = Example(self._values)
        object.__setattr__(copy, "input_names", frozenset(names))
        return copy

    def inputs(self) -> dict[str, Any]:
        """The input fields; all fields if ``with_inputs`` was not used."""
        names = self.input_names
        if names is None:
            return self.to_dict()
        return {name: value for name, value in self._values.items() if name in names}

    def labels(self) -> dict[str, Any]:
        """The fields that are not inputs; none if ``with_inputs`` was not used."""
        names = self.input_names
        if names is None:
            return {}
        return {name: value for name, value in self._values.items() if name not in names}

    def __reduce__(self) -> tuple[Any, ...]:
        return _example, (self._values, self.input_names)


def _example(values: dict[str, Any], names: frozenset[str] | None) -> Example:
    example = Example(values)
    return example if names is None else example.with_inputs(*names)


@fast_init
@dataclass(frozen=True, slots=True)
class Usage:
    """The cost of model calls: number of calls, tokens, US dollars, seconds and retries.

    ``calls``: without calls that a cache answered. ``prompt_tokens``, ``completion_tokens``: None if the provider did
    not report them. ``cached_tokens``: those of the prompt that were in the provider's own cache. ``reasoning_tokens``:
    those of the completion with which the model reasoned. ``usd``: None if a price is unknown. ``seconds``: the sum
    over all calls. ``retries``: how many attempts to send a request failed. The sum of None and a number is None.

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
        """The sum of prompt and completion tokens; None if one of them is unknown."""
        return _sum(self.prompt_tokens, self.completion_tokens)

    def as_cached(self) -> Usage:
        """The usage of a reply from a cache: the same tokens, but no call, cost or time."""
        return replace(self, calls=0, usd=0.0, seconds=0.0, retries=0)

    def timed(self, seconds: float, retries: int) -> Usage:
        """A copy with other ``seconds`` and ``retries``."""
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
    """A running sum of usages. Adding to it takes a third of the time of ``Usage + Usage``."""

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
        self._calls = 0
        self._prompt = 0
        self._completion = 0
        self._cached = 0
        self._reasoning = 0
        self._retries = 0
        self._usd = 0.0
        self._seconds = 0.0
        self._unknown: Usage | None = None  # the sum, once a usage with an unknown number was added

    def add(self, usage: Usage) -> None:
        """Add one usage."""
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
            self._prompt = prompt
            self._completion = completion
            self._cached = cached
            self._reasoning = reasoning
            self._usd = usd
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


def _sum(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right


def sum_tokens(usages: Iterable[Usage]) -> int | None:
    """The sum of the tokens of usages; None if those of one are unknown."""
    total: int | None = 0
    for usage in usages:
        total = _sum(total, usage.tokens)
    return total


def tokens_text(tokens: int | None) -> str:
    """A number of tokens for display, such as ``1,200 tokens``; empty for 0."""
    if tokens is None:
        return "unknown tokens"
    if tokens == 0:
        return ""
    return "1 token" if tokens == 1 else f"{tokens:,} tokens"


_LARGEST = 10**12
"""A larger number is not valid in a Usage. Sums of valid numbers stay far below 2**63, the limit of tables."""


def token_count(value: object) -> int | None:
    """The number of tokens that a provider or a file reports; None for anything that is not a valid number."""
    if type(value) is int:  # nearly always; the checks below take 20 times as long
        return value if 0 <= value <= _LARGEST else None
    if isinstance(value, float) and value.is_integer():  # 12.0, as JSON of some languages writes it
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):  # numpy's integers support it
        return None
    number = operator.index(value)
    return number if 0 <= number <= _LARGEST else None


def is_sound(usage: object) -> bool:
    """Whether a value is a Usage whose fields are valid numbers, or None where that is allowed."""
    if type(usage) is not Usage:
        return False
    tokens = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens)
    for number in (usage.calls, usage.retries, *tokens):  # a plain loop, since it runs in every model call
        if number is None:
            continue
        if type(number) is not int or not 0 <= number <= _LARGEST:
            return False
    has_counts = usage.calls is not None and usage.retries is not None
    return has_counts and _amount(usage.usd) is usage.usd and _amount(usage.seconds) is not None


def usage_of(values: object) -> Usage:
    """Build a Usage from a mapping, or from a Usage with unchecked fields. Invalid numbers become unknown."""
    if type(values) is dict:
        usage = _complete_usage(values)
        if usage is not None:
            return usage
    if isinstance(values, Usage):
        values = {name: getattr(values, name) for name in Usage.__slots__}
    if not isinstance(values, Mapping):
        return Usage(1, None, None, None, None, None)
    return Usage(
        calls=token_count(values.get("calls", 0)) or 0,
        prompt_tokens=token_count(values.get("prompt_tokens", 0)),
        completion_tokens=token_count(values.get("completion_tokens", 0)),
        cached_tokens=token_count(values.get("cached_tokens", 0)),
        reasoning_tokens=token_count(values.get("reasoning_tokens", 0)),
        usd=_amount(values.get("usd", 0.0)),
        seconds=_amount(values.get("seconds", 0.0)) or 0.0,
        retries=token_count(values.get("retries", 0)) or 0,
    )


_COUNTS = ("calls", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "retries")
_get_numbers = operator.itemgetter(*_COUNTS, "usd", "seconds")


def _complete_usage(values: dict[str, Any]) -> Usage | None:
    """The Usage in a dict that has all fields as valid numbers, as nearly every line of a run file has; None for any
    other dict. Takes a quarter of the time of checking each field by itself."""
    try:
        calls, prompt, completion, cached, reasoning, retries, usd, seconds = _get_numbers(values)
    except KeyError:
        return None
    are_ints = (
        type(calls) is type(prompt) is type(completion) is type(cached) is type(reasoning) is type(retries) is int
    )
    are_floats = type(usd) is type(seconds) is float
    if not (are_ints and are_floats):
        return None
    if not (0 <= calls <= _LARGEST and 0 <= prompt <= _LARGEST and 0 <= completion <= _LARGEST):
        return None
    if not (0 <= cached <= _LARGEST and 0 <= reasoning <= _LARGEST and 0 <= retries <= _LARGEST):
        return None
    if not (0 <= usd <= _LARGEST and 0 <= seconds <= _LARGEST):
        return None
    return Usage(calls, prompt, completion, cached, reasoning, usd, seconds, retries)


def _amount(value: object) -> float | None:
    """A number of seconds or US dollars; None for anything that is not a valid number."""
    if type(value) is not float and (not isinstance(value, int | float) or isinstance(value, bool)):
        return None
    return value if 0 <= value <= _LARGEST else None


NO_USAGE = Usage()
"""The usage of no calls, with which sums begin."""


@dataclass(slots=True)
class Meta:
    """The metadata of a prediction."""

    score: Score | None = None
    usage: Usage = NO_USAGE
    calls: tuple[Any, ...] = ()
    run: Any = None
    logprobs: Any = None
    truncated: bool = False
    further_completions: tuple[Prediction, ...] = ()


class Completions(list["Prediction"]):
    """The predictions of all completions of one call. ``completions.answer`` is the list of their answers."""

    def __getattr__(self, name: str) -> list[Any]:
        if name.startswith("__") or not any(name in prediction for prediction in self):
            raise AttributeError(f"no field {name!r} in the completions")
        return [prediction[name] for prediction in self]


class Prediction(_Record):
    """The outputs of a module, as attributes and keys, in the order of its signature.

    ``.meta`` has ``score``, ``usage``, ``calls``, ``run``, ``logprobs`` (the log probabilities of the reply in the
    provider's format, if ``logprobs=True`` was sent) and ``truncated`` (whether the reply was cut; see ``LM``). Each is
    also an attribute unless an output has its name.

    ``.completions``: a list of the predictions of a call with ``n`` > 1, one for each completion that can be read, in
    the order of the provider. The first is this prediction, also if the provider's first completion cannot be read; a
    reply is repaired only if none can be read. ``completions.answer`` is the list of their answers.

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
            if name == "completions":
                return Completions([self, *self.meta.further_completions])
            return getattr(self.meta, name)
        return super().__getattr__(name)

    def with_meta(self, **changes: Any) -> Prediction:
        """A copy with other values of some fields of ``meta``."""
        copy = type(self).__new__(type(self))  # not by its constructor, since that of a subclass may differ
        if hasattr(self, "__dict__"):
            vars(copy).update(vars(self))
        object.__setattr__(copy, "_values", self._values)
        object.__setattr__(copy, "meta", replace(self.meta, **changes))
        return copy

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_META_NAMES})

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the outputs, and the metadata without run and calls, which are in the run's file."""
        meta = replace(self.meta, run=None, calls=())
        attributes = dict(vars(self)) if hasattr(self, "__dict__") else {}
        return _unpickled, (type(self), self._values, meta, attributes)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(redact_known(name))}</th>"
            f"<td style='text-align:left;white-space:pre-wrap'>{escape(_cell_text(value))}</td></tr>"
            for name, value in self.items()
        )
        html = f"<table>{rows}</table>"
        score = self.meta.score
        if score is not None:
            html += f"<div style='opacity:.75'>score {score.value:.4g}</div>"
        return html


def _unpickled(kind: type[Prediction], values: dict[str, Any], meta: Meta, attributes: dict[str, Any]) -> Prediction:
    """A prediction from another process. Made without its constructor, since that of a subclass may differ."""
    prediction = kind.__new__(kind)
    if attributes:
        vars(prediction).update(attributes)
    object.__setattr__(prediction, "_values", values)
    object.__setattr__(prediction, "meta", meta)
    return prediction


def _cell_text(value: object) -> str:
    text = redact_known(str(value))
    return text[:2000] if isinstance(value, str) else shorten(text, 2000)


_META_NAMES = ("score", "usage", "calls", "run", "completions", "logprobs", "truncated")


def rows_of(rows: Rows) -> list[Example]:
    """Convert a DataFrame, or dicts and Examples, to Examples. Raises InputError, which names the row or column."""
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        names = [str(name) for name in rows.columns]
        duplicate = next((name for name in names if names.count(name) > 1), None)
        if duplicate is not None:
            raise InputError(f"the DataFrame has two columns {duplicate!r}; rename one")
        return [Example(dict(zip(names, row.values(), strict=True))) for row in rows.to_dict("records")]
    if isinstance(rows, str | bytes | Mapping) or not hasattr(rows, "__iter__"):
        raise InputError(f"rows must be a DataFrame or a list of dicts or Examples, got {type(rows).__name__}")
    return [_as_example(number, row) for number, row in enumerate(rows)]


def _as_example(number: int, row: object) -> Example:
    if isinstance(row, Example):
        return row
    if isinstance(row, dict | Mapping):  # dict, as nearly always, is recognized much faster than Mapping
        return Example({str(name): value for name, value in row.items()})
    raise InputError(f"row {number} is {type(row).__name__}; give a dict or an Example.{of_dspy(row)}")
