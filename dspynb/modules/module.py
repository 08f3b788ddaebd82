"""Module: what users compose. Write fields and ``async def forward``, nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from dspynb.data import Prediction, rows_of
from dspynb.errors import InputError
from dspynb.events import SpanEnded, SpanStarted, new_span
from dspynb.modules.discovery import named_predictors
from dspynb.redact import told
from dspynb.running import Calls, Run, run_sync
from dspynb.scope import Layer, current_scope

__all__ = ["Module", "ModuleWork"]


class Module:
    """A program: call it with keyword inputs and await a Prediction.

    >>> class Answer(Module):
    ...     def __init__(self):
    ...         self.predict = Predict("question -> answer")
    ...     async def forward(self, question):
    ...         return await self.predict(question=question)
    """

    kind: ClassVar[str] = "call"

    async def forward(self, **inputs: Any) -> Any:
        """What the program does; written by its author."""
        raise NotImplementedError(f"{type(self).__name__} has no `async def forward`")

    async def __call__(self, *args: Any, **inputs: Any) -> Prediction:
        """Run the program. The outermost call is a run; calls inside become part of it."""
        _no_positional(self, args)
        scope = current_scope()
        if scope.open_run is not None:
            return await self._inside(inputs)
        scope.admit(0)  # an orphan of a stopped run starts nothing
        return await self._new_run(inputs).watched(self._work(inputs))  # type: ignore[no-any-return]

    def start(self, *args: Any, **inputs: Any) -> Run:
        """The same work as a handle: returns at once; display it, stop it, await it."""
        _no_positional(self, args)
        return self._new_run(inputs).start(self._work(inputs))

    def run_sync(self, *args: Any, **inputs: Any) -> Prediction:
        """The same, waited for: for scripts and ``df.apply``."""
        _no_positional(self, args)
        return run_sync(lambda: self(**inputs))

    async def batch(self, rows: Any, concurrency: int | None = None) -> list[Prediction | Exception]:
        """Run the program on every row, at most ``concurrency`` at a time (default: the setting, 32).

        ``rows``: a DataFrame, or a list of dicts or Examples. Returns a list as long as ``rows``, in their order: the
        Prediction or the exception of each row.
        """
        from dspynb.modules.batch import run_batch

        return await run_batch(self, rows_of(rows), concurrency)

    def input_names(self) -> tuple[str, ...] | None:
        """The inputs it takes: the parameters of ``forward``. None where they cannot be known (``**inputs``)."""
        parameters = inspect.signature(self.forward).parameters.values()
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return None
        return tuple(p.name for p in parameters if p.kind is not p.VAR_POSITIONAL)

    def most_calls(self) -> int:
        """About how many model calls one call of the program makes at most: so many a budget sets aside for a row or
        an attempt before it starts. Here a call and a repair of each predictor; override it where that is too few."""
        return max(1, sum(int(predictor.most_calls()) for _, predictor in self.named_predictors()))

    def named_predictors(self) -> list[tuple[str, Any]]:
        """(dotted path, predictor) of every predictor in the program."""
        return named_predictors(self)

    def submodules(self) -> Iterator[tuple[str, Any]]:
        """Where to look for predictors: the attributes, in the order they were set."""
        yield from vars(self).items()

    def _new_run(self, inputs: Mapping[str, Any], kind: str | None = None) -> Run:
        paths = {predictor.uid: path for path, predictor in self.named_predictors()}
        return Run(kind or self.kind, self._title(), inputs, paths, self._run_settings())

    def _run_settings(self) -> dict[str, Any]:
        """What a run of this module is to remember of its settings."""
        return {}

    def _work(self, inputs: Mapping[str, Any]) -> ModuleWork:
        return ModuleWork(self, inputs)

    def _title(self) -> str:
        return type(self).__name__

    async def _inside(self, inputs: Mapping[str, Any]) -> Prediction:
        """The call as one span of the run it is in."""
        scope, span = current_scope(), new_span()
        started = SpanStarted(span=span, parent=scope.open_span, kind="module", name=self._title(), inputs=inputs)
        scope.emit(started)
        try:
            with Layer(f"the call of {self._title()}", span=span):
                prediction = _as_prediction(self, await self.forward(**inputs))
        except Exception as error:
            scope.emit(SpanEnded(span=span, parent=started.parent, error=told(error)))
            raise
        scope.emit(SpanEnded(span=span, parent=started.parent, outputs=prediction.to_dict()))
        return prediction


class ModuleWork:
    """A module call as the work of a run."""

    def __init__(self, module: Module, inputs: Mapping[str, Any]) -> None:
        self.module, self.inputs = module, inputs

    async def __call__(self) -> Prediction:
        """The prediction, with its run."""
        run = current_scope().open_run
        prediction = await self._call()
        if prediction.meta.run is None:
            prediction.meta.run = run
            if not prediction.meta.calls and isinstance(run, Run):
                fold = run.fold()
                prediction.meta.calls, prediction.meta.usage = Calls(fold.calls), fold.usage
        return prediction

    async def _call(self) -> Prediction:
        return await self.module._inside(self.inputs)

    def partial(self) -> Prediction | None:
        """The best so far; only a search has one."""
        return None


def _no_positional(module: Module, args: tuple[Any, ...]) -> None:
    if args:
        raise InputError(f"{type(module).__name__} takes its inputs by name, as in program(question='…')")


def _as_prediction(module: Module, value: Any) -> Prediction:
    if isinstance(value, Prediction):
        return value
    if isinstance(value, Mapping):
        return Prediction(value)
    raise InputError(
        f"{type(module).__name__}.forward returned {type(value).__name__}; return a Prediction or a dict of outputs"
    )
