"""Programs made of programs: ``a.then(b)`` and ``a.map(fn)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args, get_origin

from dspynb.data import Prediction
from dspynb.errors import ConfigurationError, SignatureError
from dspynb.modules.module import Module, as_prediction
from dspynb.running.user_code import as_exception
from dspynb.signatures.fields import Field

__all__ = ["Chain", "Mapped"]

Step = Module | Callable[[Prediction], Any]


class Chain(Module):
    """Steps one after the other; made by ``a.then(b)``. A step gets what the one before it gave.

    A program takes those of the outputs that it has inputs for; what a function returns is passed on whole. Predictors
    are found under ``steps[0]``, ``steps[1]``, …; a chain of chains is one chain. Raises SignatureError when made of
    programs that do not fit.
    """

    def __init__(self, *steps: Step) -> None:
        self.steps = tuple(_flat(steps))
        for before, after in zip(self.steps, self.steps[1:], strict=False):
            _check_fit(before, after)

    async def forward(self, **inputs: Any) -> Prediction:
        """The last step's prediction."""
        prediction = Prediction(inputs)
        for before, step in zip((None, *self.steps), self.steps, strict=False):
            if isinstance(step, Module):
                prediction = await step(**(_taken(step, prediction) if isinstance(before, Module) else prediction))
            else:
                prediction = await _applied(self, step, prediction)
        return prediction

    def _title(self) -> str:
        return " → ".join(_name(step) for step in self.steps)

    def _fields(self, kind: str) -> Mapping[str, Field] | None:
        end = self.steps[0 if kind == "input" else -1]
        return end._fields(kind) if isinstance(end, Module) else None


class Mapped(Module):
    """A program whose prediction goes through a function; made by ``a.map(fn)``. Its predictors keep their paths."""

    def __init__(self, module: Module, fn: Callable[[Prediction], Any]) -> None:
        if isinstance(fn, Module) or not callable(fn):
            raise ConfigurationError(f"map takes a function of the prediction, got {fn!r}; for a program use then(…)")
        self.module, self.fn = module, fn

    async def forward(self, **inputs: Any) -> Prediction:
        """What the function makes of the program's prediction."""
        return await _applied(self, self.fn, await self.module(**inputs))

    def submodules(self) -> Iterator[tuple[str, Any]]:
        """The program's own predictors, under their own paths."""
        yield "", self.module

    def _title(self) -> str:
        return f"{self.module._title()} → {_name(self.fn)}"

    def _fields(self, kind: str) -> Mapping[str, Field] | None:
        return self.module._fields(kind) if kind == "input" else None


def _flat(steps: tuple[Step, ...]) -> Iterator[Step]:
    for step in steps:
        if isinstance(step, Chain):
            yield from step.steps
        elif callable(step) and not isinstance(step, type):
            yield step
        else:
            raise ConfigurationError(f"then takes a program or a function of the prediction, got {step!r}")


def _name(step: Step) -> str:
    return step._title() if isinstance(step, Module) else getattr(step, "__name__", type(step).__name__)


async def _applied(owner: Module, fn: Callable[[Prediction], Any], prediction: Prediction) -> Prediction:
    try:
        value = fn(prediction)
        value = await value if inspect.isawaitable(value) else value
    except BaseException as error:
        exited = as_exception(error, f"the function {_name(fn)}")
        if exited is error:
            raise
        raise exited from error
    return as_prediction(owner, value, _name(fn))


def _taken(step: Module, prediction: Prediction) -> dict[str, Any]:
    """Those of the values that the step takes; all of them where that is not known."""
    names = step.input_names()
    return {n: v for n, v in prediction.items() if names is None or n in names}


def _check_fit(before: Step, after: Step) -> None:
    given = before._fields("output") if isinstance(before, Module) else None
    wanted = after.input_names() if isinstance(after, Module) else None
    if given is None or wanted is None or not isinstance(after, Module):
        return
    missing = [name for name, required in wanted.items() if required and name not in given]
    if missing:
        raise SignatureError(
            f"{_name(after)} needs {', '.join(map(repr, missing))}, but {_name(before)} gives {', '.join(given)}; put "
            "a function between them that renames the outputs, or write a Module with `async def forward`"
        )
    types = after._fields("input") or {}
    for name in [n for n in types if n in given]:
        if not _fits(given[name].annotation, types[name].annotation):
            raise SignatureError(
                f"{name!r} is {given[name].type_text} in {_name(before)} and {types[name].type_text} in "
                f"{_name(after)}; put a function between them that converts it"
            )


def _fits(given: Any, wanted: Any) -> bool:
    """False only for types that certainly differ; unions, Any and the like are left to the call."""
    if given == wanted or (given, wanted) == (int, float):
        return True
    ours, theirs = get_origin(given) or given, get_origin(wanted) or wanted
    if not (isinstance(ours, type) and isinstance(theirs, type)):
        return True
    if not issubclass(ours, theirs):
        return False
    pairs = list(zip(get_args(given), get_args(wanted), strict=False))
    return ours is not theirs or all(_fits(a, b) for a, b in pairs)
