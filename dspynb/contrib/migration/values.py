"""Rows, predictions and the values in them."""

from __future__ import annotations

from typing import Any

from dspynb.contrib.migration.names import kind_of, shown
from dspynb.conversation import History
from dspynb.data import Example, Prediction
from dspynb.errors import InputError, shorten
from dspynb.media.values import File, Image

__all__ = ["example_of", "prediction_of", "value_of"]

_OPENED_BY_A_PROVIDER = ("data:", "http://", "https://")


def value_of(value: Any) -> Any:
    """A value with DSPy's types in it replaced by ours; lists and dicts are new ones. Raises InputError."""
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)([value_of(item) for item in value])
    if isinstance(value, dict):
        return {name: value_of(item) for name, item in value.items()}
    kind = kind_of(value)
    if kind is None:
        return value
    if kind not in _VALUES:
        raise InputError(f"a value is {shown(value)}, which has no counterpart here")
    return _VALUES[kind](value)


def example_of(row: Any) -> Example:
    """A dspy.Example; what DSPy keeps under names that begin with ``dspy_`` is left out. Raises InputError."""
    example = Example({name: value_of(value) for name, value in row.items()})
    try:
        marked = list(row.inputs().keys())
    except ValueError:  # no inputs are marked
        return example
    return example.with_inputs(*(name for name in marked if name in example))


def prediction_of(prediction: Any) -> Prediction:
    """A dspy.Prediction: its values, of several completions those of the first."""
    return Prediction({name: value_of(value) for name, value in prediction.items()})


def _image(image: Any) -> Image:
    return Image(_checked(image.url, image))


def _file(file: Any) -> File:
    return File(_checked(file.file_data or file.file_id or "", file), name=file.filename)


def _checked(source: str, medium: Any) -> str:
    # Any other text would be taken for the path of a file on this machine.
    if not source.startswith(_OPENED_BY_A_PROVIDER):
        raise InputError(f"{shown(medium)}: only its content or an http(s) URL is taken, got {shorten(source, 80)!r}")
    return source


def _history(history: Any) -> History:
    return History(value_of(history.messages))


_VALUES: dict[str, Any] = {
    "Image": _image,
    "File": _file,
    "History": _history,
    "Reasoning": str,
    "Example": lambda row: example_of(row).to_dict(),
    "Prediction": lambda prediction: prediction_of(prediction).to_dict(),
}
