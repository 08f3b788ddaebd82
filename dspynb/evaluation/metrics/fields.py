"""What metrics share: which output is compared with which label, and values as they can be compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel

from dspynb.data import Score
from dspynb.errors import ConfigurationError, RewardError, nearest, shorten

__all__ = ["FieldMetric", "is_missing", "output_of", "pair_of", "plain", "plain_text", "quoted", "text_of"]

Row = Mapping[str, Any]
_PLAIN = frozenset({type(None), bool, int, float, str})


@dataclass(frozen=True)
class FieldMetric:
    """A metric over one output and one label: ``metric(row, prediction) -> Score``. Made by ``dn.metrics``.

    ``field`` is the output's name and ``label`` the row's; what is None is found out (see ``pair_of``). ``compare``
    gets both values. With ``labelled=False`` there is no label, and ``compare`` gets the output only.
    """

    name: str
    says: str
    compare: Callable[..., Score]
    field: str | None = None
    label: str | None = None
    labelled: bool = True
    nulls: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.says)  # what an advisor is told of it

    @property
    def __name__(self) -> str:  # what tables call it
        return self.name

    def __call__(self, row: Row, prediction: Row) -> Score:
        """The score. Raises ConfigurationError for a field that is not there, RewardError for a row without label."""
        if not self.labelled:
            field = output_of(self.name, self.field, prediction)
            return self._scored(field, prediction[field])
        field, label = pair_of(self.name, self.field, self.label, row, prediction)
        wanted = plain(row[label])
        if is_missing(wanted) and not (self.nulls and wanted is None):
            raise RewardError(f"{self.name}: the row has no label: {label!r} is {wanted!r}; leave such rows out")
        return self._scored(field, prediction[field], wanted)

    def _scored(self, field: str, given: Any, *wanted: Any) -> Score:
        value = plain(given)
        if is_missing(value) and not (self.nulls and value is None):
            return Score(0.0, f"There is no answer: {field} is {value!r}.")
        return self.compare(field, value, *wanted)

    def __repr__(self) -> str:
        given = {"field": self.field, "label": self.label}
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in given.items() if v is not None)})"


def pair_of(who: str, field: str | None, label: str | None, row: Row, prediction: Row) -> tuple[str, str]:
    """The names of output and label: those given; else the only name that both have; else the only one of each.

    Inputs of the row, where they are marked, are no labels. Raises ConfigurationError naming the candidates.
    """
    labels = _labels(row)
    _check(who, "output", field, prediction)
    _check(who, "label", label, row)
    if field is None and label is None:
        shared = [name for name in prediction if name in labels]
        if len(shared) == 1:
            return shared[0], shared[0]
        if shared or len(prediction) != 1 or len(labels) != 1:
            raise ConfigurationError(_ambiguous(who, prediction, labels, shared))
    outputs = list(prediction)
    if field is None:
        field = label if label in prediction else outputs[0] if len(outputs) == 1 else None
    if label is None:
        label = field if field in row else labels[0] if len(labels) == 1 else None
    if field is None or label is None:
        raise ConfigurationError(_ambiguous(who, prediction, labels, []))
    return field, label


def output_of(who: str, field: str | None, prediction: Row) -> str:
    """The output's name: the given one, or the only one. Raises ConfigurationError naming the candidates."""
    _check(who, "output", field, prediction)
    if field is None and len(prediction) != 1:
        raise ConfigurationError(f"{who}: say which output is meant: field=one of {', '.join(prediction) or 'none'}")
    return field if field is not None else next(iter(prediction))


def _labels(row: Row) -> list[str]:
    inputs = getattr(row, "input_names", None) or frozenset()
    return [name for name in row if name not in inputs]


def _check(who: str, what: str, name: str | None, there: Row) -> None:
    if name is not None and name not in there:
        kind = "prediction has no output" if what == "output" else "row has no field"
        known = ", ".join(there) or "none"
        raise ConfigurationError(f"{who}: the {kind} {name!r}.{nearest(name, there)} There are: {known}")


def _ambiguous(who: str, prediction: Row, labels: list[str], shared: list[str]) -> str:
    why = f"output and label share {len(shared)} names ({', '.join(shared)})" if shared else "no name is in both"
    return (
        f"{who}: which output is compared with which label? {why}. Give field=one of "
        f"{', '.join(prediction) or 'none'} and label=one of {', '.join(labels) or 'none'}"
    )


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, NaT or pandas' NA."""
    if value is None:
        return True
    try:
        return bool(value != value)  # noqa: PLR0124  # what NaN is known by
    except TypeError:  # pandas' NA has no truth value
        return True
    except ValueError:  # an array is something
        return False


def plain(value: Any) -> Any:
    """A value without wrapping: numpy's as Python's, an Enum's value, a pydantic model's fields, a tuple as a list."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    return value.tolist() if hasattr(value, "tolist") else value


def text_of(value: Any) -> str:
    """A value as text: a whole float without its ``.0``, so that ``3.0`` from a table equals ``3`` from a model."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def plain_text(text: str) -> str:
    """Text in lower case, with single spaces, without quotes around it and a full stop after it.

    >>> dn.metrics.plain_text(' "Paris." ')
    'paris'
    """
    text = re.sub(r"\s+", " ", text).strip().casefold()
    return text.strip("\"'`“”‘’").rstrip(".").strip("\"'`“”‘’ ") or text


def quoted(value: Any, limit: int = 120) -> str:
    """A value as feedback shows it."""
    return repr(shorten(value, limit)) if isinstance(value, str) else shorten(repr(value), limit)
