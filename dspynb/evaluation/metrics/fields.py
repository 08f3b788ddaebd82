"""What metrics have in common: the choice of output and label, and the conversion of values before comparison."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel

from dspynb.data import Score
from dspynb.errors import ConfigurationError, RewardError, nearest, shorten
from dspynb.missing import is_missing

__all__ = ["FieldMetric", "output_and_label", "output_of", "plain", "plain_text", "quoted", "text_of"]

Row = Mapping[str, Any]
_PLAIN_TYPES = frozenset({type(None), bool, int, float, str})


@dataclass(frozen=True)
class FieldMetric:
    """A metric that compares one output with one label: ``metric(row, prediction) -> Score``.

    The functions of ``dn.metrics`` make it. Its instance docstring is the description, which advisors read.
    """

    name: str
    """The name of the metric in tables and errors."""
    description: str
    compare: Callable[..., Score]
    """``compare(field, output, label) -> Score``; without ``label`` if the metric has none."""
    field: str | None = None
    """The name of the output; for None, see `output_and_label`."""
    label: str | None = None
    """The name of the label in the row; for None, see `output_and_label`."""
    labelled: bool = True
    """Whether there is a label."""
    allows_null: bool = False
    """Whether None is a value, rather than a missing output or label."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.description)

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self, row: Row, prediction: Row) -> Score:
        """Score a prediction.

        Raises ConfigurationError for a field that does not exist, and RewardError for a row without a label.
        """
        if not self.labelled:
            field = output_of(self.name, self.field, prediction)
            return self._compare(field, prediction[field])
        field, label = output_and_label(self.name, self.field, self.label, row, prediction)
        value = plain(row[label])
        if is_missing(value) and not (value is None and self.allows_null):
            raise RewardError(f"{self.name}: the row has no label: {label!r} is {value!r}; leave such rows out")
        return self._compare(field, prediction[field], value)

    def _compare(self, field: str, output: object, *label: object) -> Score:
        value = plain(output)
        if is_missing(value) and not (value is None and self.allows_null):
            return Score(0.0, f"There is no answer: {field} is {value!r}.")
        return self.compare(field, value, *label)

    def __repr__(self) -> str:
        arguments = {"field": self.field, "label": self.label}
        texts = [f"{name}={value!r}" for name, value in arguments.items() if value is not None]
        return f"{self.name}({', '.join(texts)})"


def output_and_label(metric: str, field: str | None, label: str | None, row: Row, prediction: Row) -> tuple[str, str]:
    """The names of the output and the label that a metric compares.

    ``field`` and ``label`` if both are set. If neither is, the only name that is in prediction and row; else the only
    output and the only label. If one of them is set, the other is the same name, or else the only one there is. Fields
    that the row marks as inputs are not labels.

    ``metric``: its name, for errors. Raises ConfigurationError if there are several possibilities, and names them.
    """
    labels = _labels(row)
    _check_output(metric, field, prediction)
    _check_label(metric, label, row)
    if field is None and label is None:
        shared = [name for name in prediction if name in labels]
        if len(shared) == 1:
            return shared[0], shared[0]
        if shared or len(prediction) != 1 or len(labels) != 1:
            raise ConfigurationError(_ambiguity(metric, prediction, labels, shared))
        field = next(iter(prediction))
    if field is None:
        field = label if label in prediction else _only(list(prediction))
    if label is None:
        label = field if field in row else _only(labels)
    if field is None or label is None:
        raise ConfigurationError(_ambiguity(metric, prediction, labels, []))
    return field, label


def output_of(metric: str, field: str | None, prediction: Row) -> str:
    """The name of the output that a metric scores: ``field``, or the only output.

    ``metric``: its name, for errors. Raises ConfigurationError if there are several outputs, and names them.
    """
    _check_output(metric, field, prediction)
    if field is not None:
        return field
    if len(prediction) != 1:
        outputs = ", ".join(prediction) or "none"
        raise ConfigurationError(f"{metric}: say which output is meant: field=one of {outputs}")
    return next(iter(prediction))


def _only(names: list[str]) -> str | None:
    return names[0] if len(names) == 1 else None


def _labels(row: Row) -> list[str]:
    inputs = getattr(row, "input_names", None) or frozenset()
    return [name for name in row if name not in inputs]


def _check_output(metric: str, name: str | None, prediction: Row) -> None:
    if name is not None and name not in prediction:
        known = ", ".join(prediction) or "none"
        raise ConfigurationError(
            f"{metric}: the prediction has no output {name!r}.{nearest(name, prediction)} There are: {known}"
        )


def _check_label(metric: str, name: str | None, row: Row) -> None:
    if name is not None and name not in row:
        known = ", ".join(row) or "none"
        raise ConfigurationError(f"{metric}: the row has no field {name!r}.{nearest(name, row)} There are: {known}")


def _ambiguity(metric: str, prediction: Row, labels: list[str], shared: list[str]) -> str:
    reason = "no name is in both"
    if shared:
        reason = f"output and label share {len(shared)} names ({', '.join(shared)})"
    return (
        f"{metric}: which output is compared with which label? {reason}. Give field=one of "
        f"{', '.join(prediction) or 'none'} and label=one of {', '.join(labels) or 'none'}"
    )


def plain(value: object) -> Any:
    """Convert a value to plain Python, at any depth.

    A numpy scalar becomes a Python number and an array a list; an Enum its value; a pydantic model a dict; a tuple a
    list.
    """
    if type(value) in _PLAIN_TYPES:
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict | Mapping):  # dict is recognized much faster than Mapping
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    return value.tolist() if hasattr(value, "tolist") else value


def text_of(value: object) -> str:
    """A value as text. A whole float has no ``.0``, so that ``3.0`` from a table equals ``3`` from a model."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def plain_text(text: str) -> str:
    """Normalise text: lower case, single spaces, no quotes around it, no full stop at its end.

    >>> dn.metrics.plain_text(' "Paris." ')
    'paris'
    """
    text = re.sub(r"\s+", " ", text).strip().casefold()
    return text.strip("\"'`“”‘’").rstrip(".").strip("\"'`“”‘’ ") or text


def quoted(value: object, limit: int = 120) -> str:
    """A value as feedback quotes it, cut to ``limit`` characters."""
    return repr(shorten(value, limit)) if isinstance(value, str) else shorten(repr(value), limit)
