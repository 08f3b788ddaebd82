"""The steps of composed programs: checking that one fits after another, and calling functions between them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, get_args, get_origin

from dspynb.data import Prediction
from dspynb.errors import SignatureError
from dspynb.modules.forward import as_prediction
from dspynb.running.user_code import as_exception
from dspynb.signatures.fields import Field

__all__ = ["Program", "accepted_values", "apply_function", "check_fit"]


class Program(Protocol):
    """The parts of a Module that decide whether it fits after another."""

    def input_names(self) -> Mapping[str, bool] | None:
        """The inputs, and whether each is required; None where they are unknown."""
        ...

    def _fields(self, kind: str) -> Mapping[str, Field] | None: ...

    def _title(self) -> str: ...


async def apply_function(fn: Callable[[Prediction], Any], prediction: Prediction, name: str) -> Prediction:
    """Pass a prediction through a user's function. Raises InputError if the function returns no prediction."""
    try:
        value = fn(prediction)
        if inspect.isawaitable(value):
            value = await value
    except BaseException as error:
        exited = as_exception(error, f"the function {name}")
        if exited is error:
            raise
        raise exited from error
    return as_prediction(value, name)


def accepted_values(program: Program, prediction: Prediction) -> dict[str, Any]:
    """The values that a program takes as inputs; all of them where its inputs are unknown."""
    names = program.input_names()
    if names is None:
        return dict(prediction.items())
    return {name: value for name, value in prediction.items() if name in names}


def check_fit(before: Program, after: Program) -> None:
    """Raise SignatureError if the outputs of ``before`` lack an input that ``after`` needs, or one has a wrong type."""
    outputs = before._fields("output")
    inputs = after.input_names()
    if outputs is None or inputs is None:
        return
    missing = [name for name, required in inputs.items() if required and name not in outputs]
    if missing:
        raise SignatureError(
            f"{after._title()} needs {', '.join(map(repr, missing))}, but {before._title()} gives "
            f"{', '.join(outputs)}; put a function between them that renames the outputs, or write a Module with "
            "`async def forward`"
        )
    fields = after._fields("input") or {}
    for name in [name for name in fields if name in outputs]:
        if not _fits(outputs[name].annotation, fields[name].annotation):
            raise SignatureError(
                f"{name!r} is {outputs[name].type_text} in {before._title()} and {fields[name].type_text} in "
                f"{after._title()}; put a function between them that converts it"
            )


def _fits(output: object, expected: object) -> bool:
    """Whether values of one type may be inputs of another. False only for types that certainly differ: unions, Any and
    the like are checked in the call."""
    if output == expected or (output, expected) == (int, float):
        return True
    output_class = get_origin(output) or output
    expected_class = get_origin(expected) or expected
    if not (isinstance(output_class, type) and isinstance(expected_class, type)):
        return True
    if not issubclass(output_class, expected_class):
        return False
    if output_class is not expected_class:
        return True
    arguments = zip(get_args(output), get_args(expected), strict=False)
    return all(_fits(output_part, expected_part) for output_part, expected_part in arguments)
