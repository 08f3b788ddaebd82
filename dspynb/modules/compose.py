"""The steps of composed programs: whether one fits after another, and functions between them."""

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
    """The parts of a Module that tell whether it fits after another."""

    def input_names(self) -> Mapping[str, bool] | None:
        """The inputs, and whether each is required; None where they are not known."""
        ...

    def _fields(self, kind: str) -> Mapping[str, Field] | None: ...

    def _title(self) -> str: ...


async def apply_function(fn: Callable[[Prediction], Any], prediction: Prediction, name: str) -> Prediction:
    """What a user's function makes of a prediction. Raises InputError where that is no prediction."""
    try:
        value = fn(prediction)
        value = await value if inspect.isawaitable(value) else value
    except BaseException as error:
        exited = as_exception(error, f"the function {name}")
        if exited is error:
            raise
        raise exited from error
    return as_prediction(fn, value, name)


def accepted_values(program: Program, prediction: Prediction) -> dict[str, Any]:
    """The values that a program takes as inputs; all of them where its inputs are not known."""
    names = program.input_names()
    return {name: value for name, value in prediction.items() if names is None or name in names}


def check_fit(before: Program, after: Program) -> None:
    """Raise SignatureError where a program lacks an input after another, or would get one of a wrong type."""
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


def _fits(output: Any, wanted: Any) -> bool:
    """False only for types that certainly differ; unions, Any and the like are left to the call."""
    if output == wanted or (output, wanted) == (int, float):
        return True
    ours = get_origin(output) or output
    theirs = get_origin(wanted) or wanted
    if not (isinstance(ours, type) and isinstance(theirs, type)):
        return True
    if not issubclass(ours, theirs):
        return False
    pairs = list(zip(get_args(output), get_args(wanted), strict=False))
    return ours is not theirs or all(_fits(a, b) for a, b in pairs)
