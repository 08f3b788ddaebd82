"""Conversion of DSPy's rows, predictions, and the values in them."""

from __future__ import annotations

from typing import Any

from dspynb.contrib.migration.names import describe_type, kind_of
from dspynb.conversation import History
from dspynb.data import Example, Prediction
from dspynb.errors import InputError, shorten
from dspynb.media.values import File, Image

__all__ = ["convert_example", "convert_prediction", "convert_value"]

_CONTENT_OR_URL = ("data:", "http://", "https://")


def convert_value(value: object) -> Any:
    """A copy of a value with dspynb's types in the place of DSPy's, at any depth of lists and dicts.

    Raises InputError for a type without a counterpart.
    """
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)([convert_value(item) for item in value])
    if isinstance(value, dict):
        return {name: convert_value(item) for name, item in value.items()}
    kind = kind_of(value)
    if kind is None:
        return value
    if kind not in _CONVERTERS:
        raise InputError(f"a value is {describe_type(value)}, which has no counterpart here")
    return _CONVERTERS[kind](value)


def convert_example(row: Any) -> Example:
    """A dspy.Example as an Example with the same inputs, without DSPy's own fields (``dspy_…``).

    Raises InputError for a value without a counterpart.
    """
    example = Example({name: convert_value(value) for name, value in row.items()})
    try:
        input_names = list(row.inputs().keys())
    except ValueError:  # no inputs are marked
        return example
    return example.with_inputs(*(name for name in input_names if name in example))


def convert_prediction(prediction: Any) -> Prediction:
    """A dspy.Prediction as a Prediction. If it has several completions, the values of the first are used."""
    return Prediction({name: convert_value(value) for name, value in prediction.items()})


def _convert_image(image: Any) -> Image:
    return Image(_check_source(image.url, image))


def _convert_file(file: Any) -> File:
    return File(_check_source(file.file_data or file.file_id or "", file), name=file.filename)


def _check_source(source: str, medium: object) -> str:
    # Image and File would read any other text as the path of a file on this machine.
    if not source.startswith(_CONTENT_OR_URL):
        raise InputError(
            f"{describe_type(medium)}: only its content or an http(s) URL is taken, got {shorten(source, 80)!r}"
        )
    return source


def _convert_history(history: Any) -> History:
    return History(convert_value(history.messages))


_CONVERTERS: dict[str, Any] = {
    "Image": _convert_image,
    "File": _convert_file,
    "History": _convert_history,
    "Reasoning": str,
    "Example": lambda row: convert_example(row).to_dict(),
    "Prediction": lambda prediction: convert_prediction(prediction).to_dict(),
}
