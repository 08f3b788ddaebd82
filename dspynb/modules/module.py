"""Module: what users compose. Write fields and ``async def forward``, nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, Union

from dspynb.aliases import Rows
from dspynb.data import Prediction, rows_of
from dspynb.errors import ConfigurationError, InputError, of_dspy
from dspynb.events import SpanEnded, SpanStarted, new_span
from dspynb.keywords import configurable
from dspynb.modules.batch import run_batch
from dspynb.modules.compose import accepted_values, apply_function, check_fit
from dspynb.modules.copying import copied_instance
from dspynb.modules.discovery import advisor_uids, calls_inside, hinted_paths, named_predictors, resolve_path
from dspynb.modules.forward import as_prediction, check_forward, checked_awaitable
from dspynb.options import Concurrency
from dspynb.redact import error_text, redact_values
from dspynb.running.aio.sync import run_sync
from dspynb.running.call_history import Calls
from dspynb.running.control import Takes
from dspynb.running.executor import ExecutorOption
from dspynb.running.reader import open_reader
from dspynb.running.record_rows import usage_of
from dspynb.running.run import Run
from dspynb.running.user_code import as_exception
from dspynb.scope.core import Layer, current_scope
from dspynb.signatures.fields import Field
from dspynb.state.files import read_state, write_state
from dspynb.state.state import dump_state, load_state, with_state

__all__ = ["Chain", "Mapped", "Module", "ModuleWork", "checked_program"]


_BATCH_OF_DSPY = {
    "num_threads": "concurrency",
    "examples": "rows",
    "max_errors": "every row is run, and a row that failed is its exception in the list",
    "return_failed_examples": "a row that failed is its exception in the list",
    "provide_traceback": "a row that failed is its exception in the list, with its traceback",
    "disable_progress_bar": "what a run shows is a setting: dn.configure(view='off')",
}

Step = Union["Module", Callable[[Prediction], Any]]


class Module:
    """A program: call it with keyword inputs and await a Prediction.

    >>> class Answer(dn.Module):
    ...     def __init__(self):
    ...         self.predict = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"]))
    ...     async def forward(self, question):
    ...         return await self.predict(question=question)
    >>> Answer().run_sync(question="2+2?").answer  # in a notebook: (await Answer()(question="2+2?")).answer
    '4'
    """

    kind: ClassVar[str] = "call"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_forward(cls)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return copied_instance(self, memo)

    if TYPE_CHECKING:  # with whatever parameters its author writes
        forward: Callable[..., Any]
    else:

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
        """The same work as a handle: returns at once; display it, stop it, await it.

        >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> async def main():
        ...     run = ask.start(question="2+2?")
        ...     return (await run).answer, run.status
        >>> dn.run_sync(main)
        ('4', 'finished')
        """
        _no_positional(self, args)
        return self._new_run(inputs).start(self._work(inputs))

    def run_sync(self, *args: Any, **inputs: Any) -> Prediction:
        """The same, waited for: for scripts and ``df.apply``.

        >>> import pandas as pd
        >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> pd.Series(["2+2?", "1+3?"]).apply(lambda question: ask.run_sync(question=question).answer).tolist()
        ['4', '4']
        """
        _no_positional(self, args)
        return run_sync(lambda: self(**inputs))

    @configurable(renamed=_BATCH_OF_DSPY)
    async def batch(
        self, rows: Rows, concurrency: Concurrency = None, *, executor: ExecutorOption = None
    ) -> list[Prediction | Exception]:
        """Run the program on every row, at most ``concurrency`` at a time (default: the setting, 32); by ``executor``,
        a DaskExecutor, on other machines.

        ``rows``: a DataFrame, or a list of dicts or Examples. Returns a list as long as ``rows``, in their order: the
        Prediction or the exception of each row.

        >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4", dn.errors.ServerError("it is down")]))
        >>> dn.run_sync(lambda: ask.batch([{"question": "2+2?"}, {"question": "2+3?"}], concurrency=1))
        [Prediction(answer='4'), ServerError('it is down')]
        """
        return await run_batch(self, rows_of(rows), concurrency, executor)

    def input_names(self) -> Mapping[str, bool] | None:
        """The inputs it takes, and whether each must be given: from its signature, else the parameters of ``forward``.
        None where they cannot be known (``**inputs``)."""
        fields = self._fields("input")
        if fields is not None:
            return {name: field.info.is_required() for name, field in fields.items()}
        parameters = list(inspect.signature(self.forward).parameters.values())
        if any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters):
            return None
        return {p.name: p.default is p.empty for p in parameters}

    def most_calls(self) -> int:
        """About how many model calls one call of the program makes at most: so many a budget sets aside for a row or
        an attempt before it starts. Here those of each module in it, once; override it where that is too few."""
        return max(1, calls_inside(self))

    def then(self, step: Module | Callable[[Prediction], Any]) -> Module:
        """This program, then another that takes its outputs as inputs, or a function (sync or async) of its prediction
        that returns a dict or Prediction. Raises SignatureError for programs that do not fit.

        >>> plan = dn.Predict("question -> plan", lm=dn.ScriptedLM(["plan: add the numbers"]))
        >>> answer = dn.Predict("plan -> answer", lm=dn.ScriptedLM(["answer: 4"]))
        >>> plan.then(answer).run_sync(question="2+2?")
        Prediction(answer='4')
        """
        return Chain(self, step)

    def map(self, fn: Callable[[Prediction], Any]) -> Module:
        """This program with its prediction passed through a function (sync or async) that returns a dict or
        Prediction. The predictors keep their paths.

        >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"]))
        >>> ask.map(lambda prediction: {"answer": int(prediction.answer)}).run_sync(question="2+2?")
        Prediction(answer=4)
        """
        return Mapped(self, fn)

    def named_predictors(self) -> list[tuple[str, Any]]:
        """(dotted path, predictor) of every predictor in the program.

        >>> program = dn.MultiChainComparison("question -> answer", m=3)
        >>> [path for path, _ in program.named_predictors()]
        ['predict', 'sampler.predict']
        """
        return named_predictors(self)

    def resolve_path(self, path: str) -> str | None:
        """The path under which ``named_predictors`` lists a predictor, from any path that leads to it (one that is
        shared has several); None if there is none."""
        return resolve_path(self, path)

    def dump_state(self) -> dict[str, Any]:
        """What the program has learned, JSON-able: per predictor path the instruction, the demos and the signature.
        Holds no hints, models, settings or code; secrets are redacted. Raises StateError for what JSON cannot hold."""
        return dump_state(self)

    def load_state(self, state: Mapping[str, Any], *, strict: bool = True) -> None:
        """Take on a state, whole or (with a StateError that lists what differs) not at all; DSPy's JSON too.

        ``strict=False`` leaves out paths that the program lacks and accepts other wording in signatures.
        """
        load_state(self, state, strict=strict)

    def with_state(self, state: Mapping[str, Any], *, strict: bool = True) -> Self:
        """A copy of the program with a state; the program itself stays as it is. Raises StateError.

        >>> learned = dn.Predict("question -> answer", instruction="Be brief.").dump_state()
        >>> dn.Predict("question -> answer").with_state(learned).instruction
        'Be brief.'
        """
        return with_state(self, state, strict=strict)

    def save(self, path: str | Path) -> None:
        """Write the state to a JSON file, whole or not at all. Raises StateError.

        >>> ask = dn.Predict("question -> answer", instruction="Be brief.")
        >>> ask.save("ask.json")
        >>> again = dn.Predict("question -> answer")
        >>> again.load("ask.json")
        >>> again.instruction
        'Be brief.'
        """
        write_state(path, self.dump_state())

    def load(self, path: str | Path, *, strict: bool = True) -> None:
        """``load_state`` from a file that ``save`` or DSPy's ``save("….json")`` wrote. Raises StateError.

        >>> dn.Predict("question -> answer", instruction="Be brief.").save("ask.json")
        >>> ask = dn.Predict("question -> answer")
        >>> ask.load("ask.json")
        >>> ask.instruction
        'Be brief.'
        """
        self.load_state(read_state(path), strict=strict)

    def submodules(self) -> Iterator[tuple[str, Any]]:
        """Where to look for predictors: the attributes, in the order they were set."""
        yield from vars(self).items()
        for cls in type(self).__mro__:
            slots = cls.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if not name.startswith("__") and hasattr(self, name):
                    yield name, getattr(self, name)

    def hinted(self) -> Sequence[Module]:
        """The programs in it that may get hints while they run: that of a Refine."""
        return ()

    def advisors(self) -> Sequence[Any]:
        """The predictors in it that advise others: that of a Refine."""
        return ()

    def advisor_uids(self) -> set[str]:
        """The uids of all advisors in the program."""
        return advisor_uids(self)

    def _new_run(self, inputs: Mapping[str, Any], kind: str | None = None) -> Run:
        paths = {predictor.uid: path for path, predictor in self.named_predictors()}
        run = Run(kind or self.kind, self._title(), inputs, paths, self._run_settings())
        run.program_type = type(self)
        return run

    def _run_settings(self) -> dict[str, Any]:
        """What a run of this module is to remember of its settings."""
        return {}

    def _work(self, inputs: Mapping[str, Any]) -> ModuleWork:
        return ModuleWork(self, inputs)

    def _title(self) -> str:
        return type(self).__name__

    def _fields(self, kind: str) -> Mapping[str, Field] | None:
        """The input or output fields, where a signature tells them."""
        signature: Any = getattr(self, "signature", None) if getattr(self, "is_predictor", False) else None
        if signature is None:
            return None
        fields: Mapping[str, Field] = signature.input_fields if kind == "input" else signature.output_fields
        return fields

    async def _inside(self, inputs: Mapping[str, Any]) -> Prediction:
        """The call as one span of the run it is in."""
        scope, span = current_scope(), new_span()
        started = SpanStarted(
            span=span, parent=scope.open_span, kind="module", name=self._title(), inputs=redact_values(inputs)
        )
        scope.emit(started)
        run = open_reader()
        try:
            with Layer(f"the call of {self._title()}", span=span):
                prediction = as_prediction(self, await checked_awaitable(self, self.forward(**inputs)))
        except BaseException as error:
            failed = as_exception(error, f"{type(self).__name__}.forward")
            if isinstance(failed, Exception):
                scope.emit(SpanEnded(span=span, parent=started.parent, error=error_text(failed)))
            if failed is error:
                raise
            raise failed from error
        scope.emit(SpanEnded(span=span, parent=started.parent, outputs=redact_values(prediction.to_dict())))
        calls = run.record.calls_in(span)
        return prediction.with_meta(usage=usage_of(calls), calls=Calls(calls))  # a copy: forward may keep its own


class Chain(Module):
    """Steps one after the other; made by ``a.then(b)``. A step gets what the one before it gave.

    A program takes those of the outputs that it has inputs for; what a function returns is passed on whole. Predictors
    are found under ``steps[0]``, ``steps[1]``, …; a chain of chains is one chain. Raises SignatureError when made of
    programs that do not fit.
    """

    def __init__(self, *steps: Step) -> None:
        self.steps: tuple[Step, ...] = tuple(_flat_steps(steps))
        for before, after in pairwise(self.steps):
            if isinstance(before, Module) and isinstance(after, Module):
                check_fit(before, after)

    async def forward(self, **inputs: Any) -> Prediction:
        """The last step's prediction."""
        prediction = Prediction(inputs)
        before: Step | None = None
        for step in self.steps:
            if isinstance(before, Module) and isinstance(step, Module):
                prediction = await step(**accepted_values(step, prediction))
            elif isinstance(step, Module):
                prediction = await step(**prediction)
            else:
                prediction = await apply_function(step, prediction, _step_name(step))
            before = step
        return prediction

    def _title(self) -> str:
        return " → ".join(_step_name(step) for step in self.steps)

    def _fields(self, kind: str) -> Mapping[str, Field] | None:
        end = self.steps[0 if kind == "input" else -1]
        return end._fields(kind) if isinstance(end, Module) else None


class Mapped(Module):
    """A program whose prediction goes through a function; made by ``a.map(fn)``. Its predictors keep their paths."""

    def __init__(self, module: Module, fn: Callable[[Prediction], Any]) -> None:
        if isinstance(fn, Module) or not callable(fn):
            raise ConfigurationError(f"map takes a function of the prediction, got {fn!r}; for a program use then(…)")
        self.module = module
        self.fn = fn

    async def forward(self, **inputs: Any) -> Prediction:
        """What the function makes of the program's prediction."""
        return await apply_function(self.fn, await self.module(**inputs), _step_name(self.fn))

    def submodules(self) -> Iterator[tuple[str, Any]]:
        """The program's own predictors, under their own paths."""
        yield "", self.module

    def _title(self) -> str:
        return f"{self.module._title()} → {_step_name(self.fn)}"

    def _fields(self, kind: str) -> Mapping[str, Field] | None:
        return self.module._fields(kind) if kind == "input" else None


def _flat_steps(steps: Sequence[Step]) -> Iterator[Step]:
    for step in steps:
        if isinstance(step, Chain):
            yield from step.steps
        elif callable(step) and not isinstance(step, type):
            yield step
        else:
            raise ConfigurationError(f"then takes a program or a function of the prediction, got {step!r}")


def _step_name(step: Step) -> str:
    return step._title() if isinstance(step, Module) else getattr(step, "__name__", type(step).__name__)


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
        return prediction

    async def _call(self) -> Prediction:
        return await self.module._inside(self.inputs)

    def partial(self) -> Prediction | None:
        """The best so far; only a search has one."""
        return None

    def takes(self) -> Takes:
        """A hint, where there is a Refine in the program."""
        paths = hinted_paths(self.module)
        return Takes() if paths is None else Takes(frozenset({"hint"}), paths)


def _no_positional(module: Module, args: tuple[Any, ...]) -> None:
    if args:
        raise InputError(f"{type(module).__name__} takes its inputs by name, as in program(question='…')")


def checked_program(module: Any) -> Module:
    """The program, if it is one. Raises InputError."""
    if not isinstance(module, Module):
        got = f"{type(module).__name__}.{of_dspy(module)}"
        raise InputError(f"the program must be a dn.Module such as dn.Predict(...), got {got}")
    return module
