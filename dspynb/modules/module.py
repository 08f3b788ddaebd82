"""Module: the base class of programs. A subclass needs only attributes and ``async def forward``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, Union

from dspynb.aliases import Rows
from dspynb.data import Prediction, rows_of
from dspynb.errors import ConfigurationError, InputError
from dspynb.events import SpanEnded, SpanStarted, new_span
from dspynb.forecasting.forecast import Forecast
from dspynb.forecasting.probe import ProbeOption
from dspynb.keywords import configurable
from dspynb.lm.protocol import LMProtocol
from dspynb.lm.resolve import check_lm
from dspynb.modules.batch_forecast import forecast_batch, run_batch
from dspynb.modules.compose import accepted_values, apply_function, check_fit
from dspynb.modules.copying import copy_instance
from dspynb.modules.discovery import (
    advisor_uids,
    calls_inside,
    hinted_paths,
    named_modules,
    named_predictors,
    resolve_path,
)
from dspynb.modules.forward import as_prediction, check_forward, checked_awaitable, recorded_outputs, with_outputs
from dspynb.not_awaited import explains_await
from dspynb.options import Concurrency
from dspynb.redact import error_text, redact_values
from dspynb.running.aio.sync import run_sync
from dspynb.running.call_history import Calls
from dspynb.running.control import AcceptedRequests
from dspynb.running.executor import ExecutorOption
from dspynb.running.reader import open_reader
from dspynb.running.record_rows import usage_of
from dspynb.running.run import Run
from dspynb.running.user_code import as_exception
from dspynb.scope.core import Layer, current_scope
from dspynb.signatures.fields import Field
from dspynb.signatures.signature import Signature

__all__ = ["Chain", "Mapped", "Module", "ModuleWork"]


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
        return copy_instance(self, memo)

    if TYPE_CHECKING:  # subclasses may have any parameters
        forward: Callable[..., Any]
    else:

        async def forward(self, **inputs: Any) -> Any:
            """Compute the outputs. Every program defines its own ``forward``."""
            raise NotImplementedError(f"{type(self).__name__} has no `async def forward`")

    @explains_await
    async def __call__(self, *args: Any, **inputs: Any) -> Prediction:
        """Run the program. The outermost call is a run; calls inside it become part of that run."""
        _refuse_positional(self, args)
        scope = current_scope()
        if scope.open_run is not None:
            return await self._inside(inputs)
        scope.admit(0)  # a task that has outlived a stopped run must not start another
        return await self._new_run(inputs).watched(self._work(inputs))  # type: ignore[no-any-return]

    def start(self, *args: Any, **inputs: Any) -> Run:
        """Start the program and return its run at once. The run can be displayed, stopped and awaited.

        >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> async def main():
        ...     run = ask.start(question="2+2?")
        ...     return (await run).answer, run.status
        >>> dn.run_sync(main)
        ('4', 'finished')
        """
        _refuse_positional(self, args)
        return self._new_run(inputs).start(self._work(inputs))

    def run_sync(self, *args: Any, **inputs: Any) -> Prediction:
        """Run the program synchronously and return its prediction. For scripts and ``df.apply``; in a notebook, await
        the call instead.

        >>> import pandas as pd
        >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> pd.Series(["2+2?", "1+3?"]).apply(lambda question: ask.run_sync(question=question).answer).tolist()
        ['4', '4']
        """
        _refuse_positional(self, args)
        return run_sync(lambda: self(**inputs))

    @configurable(renamed=_BATCH_OF_DSPY)
    async def batch(
        self, rows: Rows, concurrency: Concurrency = None, *, executor: ExecutorOption = None
    ) -> list[Prediction | Exception]:
        """Run the program on every row.

        ``rows``: a DataFrame, or a list of dicts or Examples. ``concurrency``: how many rows run at the same time
        (default: the setting, 32). ``executor``: a DaskExecutor, to run the rows on other machines. Returns the
        Prediction or the exception of each row, in the order of the rows.

        >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4", dn.errors.ServerError("it is down")]))
        >>> dn.run_sync(lambda: ask.batch([{"question": "2+2?"}, {"question": "2+3?"}], concurrency=1))
        [Prediction(answer='4'), ServerError('it is down')]
        """
        return await run_batch(self, rows_of(rows), concurrency, executor)

    @configurable(renamed=_BATCH_OF_DSPY)
    async def forecast(
        self,
        rows: Rows,
        concurrency: Concurrency = None,
        *,
        probe: ProbeOption = None,
        executor: ExecutorOption = None,
    ) -> Forecast:
        """Foresee what ``batch`` on the rows will cost, and return a Forecast: rollouts, calls, tokens, USD and
        minutes, each with an 80 % interval, and what a budget buys.

        ``probe``: how many rows to run for it, 5 by default. They are rows of the batch itself: the next ``batch`` of
        this program on the same rows has their results. 0 makes no call; then the forecast rests on earlier evaluations
        of the program in the folder of runs, else on a guess, which it says. ``concurrency``, ``executor``: see
        ``batch``. Raises InputError where there are no rows, ConfigurationError for a probe larger than the rows.

        >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
        >>> rows = [{"question": f"{n}+1?"} for n in range(40)]
        >>> dn.run_sync(lambda: ask.forecast(rows)).rollouts.point
        40
        """
        return await forecast_batch(self, rows_of(rows), probe, concurrency, executor)

    def input_names(self) -> Mapping[str, bool] | None:
        """The inputs of the program, and whether each is required: from its signature, else the parameters of
        ``forward``. None where they are unknown, as with ``**inputs``."""
        fields = self._fields("input")
        if fields is not None:
            return {name: not field.may_be_left_out for name, field in fields.items()}
        parameters = list(inspect.signature(self.forward).parameters.values())
        if any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters):
            return None
        return {p.name: p.default is p.empty for p in parameters}

    def most_calls(self) -> int:
        """About how many model calls one call of the program makes at most. A budget takes so many before a row or
        attempt starts. The default is the sum over the modules inside, each called once; override it if that is too
        low."""
        return max(1, calls_inside(self))

    def then(self, step: Module | Callable[[Prediction], Any]) -> Module:
        """This program followed by another, which takes its outputs as inputs, or by a function (sync or async) of its
        prediction that returns a dict or Prediction. Raises SignatureError for programs that do not fit.

        >>> plan = dn.Predict("question -> plan", lm=dn.ScriptedLM(["plan: add the numbers"]))
        >>> answer = dn.Predict("plan -> answer", lm=dn.ScriptedLM(["answer: 4"]))
        >>> plan.then(answer).run_sync(question="2+2?")
        Prediction(answer='4')
        """
        return Chain(self, step)

    def map(self, fn: Callable[[Prediction], Any]) -> Module:
        """This program with its prediction passed through a function (sync or async), which returns a dict or
        Prediction. The predictors keep their paths.

        >>> ask = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"]))
        >>> ask.map(lambda prediction: {"answer": int(prediction.answer)}).run_sync(question="2+2?")
        Prediction(answer=4)
        """
        return Mapped(self, fn)

    def named_predictors(self) -> list[tuple[str, Any]]:
        """(dotted path, predictor) for every predictor in the program.

        >>> program = dn.MultiChainComparison("question -> answer", m=3)
        >>> [path for path, _ in program.named_predictors()]
        ['predict', 'sampler.predict']
        """
        return named_predictors(self)

    def resolve_path(self, path: str) -> str | None:
        """The path under which ``named_predictors`` lists a predictor, from any path that leads to it (a shared
        predictor has several); None if there is none."""
        return resolve_path(self, path)

    def named_sub_modules(self, type_: type | None = None) -> Iterator[tuple[str, Module]]:
        """(dotted path, module) for the program, whose path is ``self``, and every module inside it, each once.

        ``type_``: only modules of this class; None for all.

        >>> program = dn.ChainOfThought("question -> answer")
        >>> [path for path, _ in program.named_sub_modules()]
        ['self', 'predict']
        """
        for path, module in named_modules(self):
            if type_ is None or isinstance(module, type_):
                yield path, module

    def reset(self) -> None:
        """Remove the demos of every predictor, and the model that it has of its own. Instructions stay."""
        for _, predictor in self.named_predictors():
            predictor.demos = []
            predictor.lm = None

    def reset_copy(self) -> Self:
        """A copy of the program after ``reset``. The program itself does not change. Raises StateError.

        >>> ask = dn.Predict("question -> answer", demos=[{"question": "1+1?", "answer": "2"}])
        >>> len(ask.reset_copy().demos), len(ask.demos)
        (0, 1)
        """
        from dspynb.state.state import copy_program

        new = copy_program(self, "create another program")
        new.reset()
        return new

    def dump_state(self) -> dict[str, Any]:
        """What the program has learned, as values that JSON can represent: the instruction, demos and signature of each
        predictor, by path.

        Contains no hints, models, settings or code; secrets are redacted. Raises StateError for values that JSON cannot
        represent.
        """
        from dspynb.state.state import dump_state

        return dump_state(self)

    def load_state(self, state: Mapping[str, Any], *, strict: bool = True) -> None:
        """Set instructions and demos from a state. Reads DSPy's JSON too.

        ``strict=False`` ignores paths that the program does not have and accepts other wording in signatures. If the
        state does not fit the program, raises a StateError that lists the differences, and sets nothing.
        """
        from dspynb.state.state import load_state

        load_state(self, state, strict=strict)

    def with_state(self, state: Mapping[str, Any], *, strict: bool = True) -> Self:
        """A copy of the program with a state. The program itself does not change. Raises StateError.

        >>> learned = dn.Predict("question -> answer", instruction="Be brief.").dump_state()
        >>> dn.Predict("question -> answer").with_state(learned).instruction
        'Be brief.'
        """
        from dspynb.state.state import with_state

        return with_state(self, state, strict=strict)

    def with_lm(self, lm: LMProtocol | str | None) -> Self:
        """A copy of the program in which every predictor uses ``lm``. The program itself does not change.

        ``lm``: a model, or its name ("provider/model"). It replaces the models that predictors of the program have of
        their own, at every depth, including those of tools and the advisor of a Refine. With None, all of them use the
        model in force (``dn.configure(lm=…)``, ``dn.context(lm=…)``). Models that ``forward`` calls directly, and those
        of rewards, stay. The copy shares with the program what ``with_state`` shares: other models, and what cannot be
        copied. A saved state has no models, so it loads into both. Raises ConfigurationError for a value that is no
        model, StateError for a program that cannot be copied.

        >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: four"))
        >>> ask.with_lm(dn.FunctionLM(lambda request: "answer: 4")).run_sync(question="2+2?").answer
        '4'
        >>> ask.run_sync(question="2+2?").answer
        'four'
        """
        from dspynb.state.state import copy_program

        check_lm(lm)
        new = copy_program(self, "create another program and give its predictors the model")
        for _, predictor in new.named_predictors():
            predictor.lm = lm
        return new

    def save(self, path: str | Path) -> None:
        """Write the state to a JSON file, atomically. Raises StateError.

        The file also names the model and temperature of each predictor, as information; loading ignores them.

        >>> ask = dn.Predict("question -> answer", instruction="Be brief.")
        >>> ask.save("ask.json")
        >>> loaded = dn.Predict("question -> answer")
        >>> loaded.load("ask.json")
        >>> loaded.instruction
        'Be brief.'
        """
        from dspynb.state.files import write_state
        from dspynb.state.models import models_in

        write_state(path, {**self.dump_state(), "models": models_in(self)})

    def load(self, path: str | Path, *, strict: bool = True) -> None:
        """Load a state from a file that ``save`` or DSPy's ``save("….json")`` wrote; see ``load_state``. Raises
        StateError.

        >>> dn.Predict("question -> answer", instruction="Be brief.").save("ask.json")
        >>> ask = dn.Predict("question -> answer")
        >>> ask.load("ask.json")
        >>> ask.instruction
        'Be brief.'
        """
        from dspynb.state.files import read_state

        self.load_state(read_state(path), strict=strict)

    def submodules(self) -> Iterator[tuple[str, Any]]:
        """The values that are searched for predictors, with their names: the attributes, in the order of setting."""
        yield from vars(self).items()
        for cls in type(self).__mro__:
            slots = cls.__dict__.get("__slots__", ())
            if isinstance(slots, str):
                slots = (slots,)
            for name in slots:
                if not name.startswith("__") and hasattr(self, name):
                    yield name, getattr(self, name)

    def hinted(self) -> Sequence[Module]:
        """The programs to which this module gives hints. Only a Refine has one."""
        return ()

    def advisors(self) -> Sequence[Any]:
        """The predictors with which this module writes hints. Only a Refine has one."""
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
        """The settings that a run of this module records."""
        return {}

    def _work(self, inputs: Mapping[str, Any]) -> ModuleWork:
        return ModuleWork(self, inputs)

    def _title(self) -> str:
        return type(self).__name__

    def _fields(self, kind: str) -> Mapping[str, Field] | None:
        """The input or output fields of a predictor's signature; None for a module without one."""
        if not getattr(self, "is_predictor", False):
            return None
        signature: type[Signature] | None = getattr(self, "signature", None)
        if signature is None:
            return None
        return signature.input_fields if kind == "input" else signature.output_fields

    async def _inside(self, inputs: Mapping[str, Any]) -> Prediction:
        """Call the program as one span of the open run."""
        scope = current_scope()
        span = new_span()
        title = self._title()
        started = SpanStarted(
            span=span, parent=scope.open_span, kind="module", name=title, inputs=redact_values(inputs)
        )
        scope.emit(started)
        run = open_reader()
        try:
            with Layer(f"the call of {title}", span=span):
                prediction = with_outputs(await checked_awaitable(self, self.forward(**inputs)))
        except BaseException as error:
            failure = as_exception(error, f"{type(self).__name__}.forward")
            if isinstance(failure, Exception):
                scope.emit(SpanEnded(span=span, parent=started.parent, error=error_text(failure)))
            if failure is error:
                raise
            raise failure from error
        scope.emit(SpanEnded(span=span, parent=started.parent, outputs=redact_values(recorded_outputs(prediction))))
        if not isinstance(prediction, Prediction):
            return prediction  # type: ignore[no-any-return]  # a program may return any value
        calls = run.record.calls_in(span)
        return prediction.with_meta(usage=usage_of(calls), calls=Calls(calls))  # a copy: forward may use its own later


class Chain(Module):
    """Steps in sequence; ``a.then(b)`` creates one. Each step gets the outputs of the step before it.

    A program gets only the outputs for which it has inputs, if the step before is a program; all outputs of a function
    are passed on. Predictors have paths below ``steps[0]``, ``steps[1]``, …; a chain of chains is one chain. Raises
    SignatureError for programs that do not fit.
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
                prediction = await step(**accepted_values(step, as_prediction(prediction, _step_name(before))))
            elif isinstance(step, Module):
                prediction = await step(**prediction)
            else:
                prediction = await apply_function(step, prediction, _step_name(step))
            before = step
        return prediction

    def _title(self) -> str:
        return " → ".join(_step_name(step) for step in self.steps)

    def _fields(self, kind: str) -> Mapping[str, Field] | None:
        step = self.steps[0] if kind == "input" else self.steps[-1]
        return step._fields(kind) if isinstance(step, Module) else None


class Mapped(Module):
    """A program whose prediction is passed through a function; ``a.map(fn)`` creates one. The predictors keep their
    paths."""

    def __init__(self, module: Module, fn: Callable[[Prediction], Any]) -> None:
        if isinstance(fn, Module) or not callable(fn):
            raise ConfigurationError(f"map takes a function of the prediction, got {fn!r}; for a program use then(…)")
        self.module = module
        self.fn = fn

    async def forward(self, **inputs: Any) -> Prediction:
        """What the function makes of the program's prediction."""
        return await apply_function(self.fn, await self.module(**inputs), _step_name(self.fn))

    def submodules(self) -> Iterator[tuple[str, Any]]:
        """The program, whose predictors keep their paths."""
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
        self.module = module
        self.inputs = inputs

    async def __call__(self) -> Prediction:
        """The prediction, with its run as metadata."""
        run = current_scope().open_run
        prediction = await self._call()
        if isinstance(prediction, Prediction) and prediction.meta.run is None:
            prediction.meta.run = run
        return prediction

    def _call(self) -> Coroutine[Any, Any, Prediction]:
        return self.module._inside(self.inputs)

    def partial(self) -> Prediction | None:
        """The best result so far; None, since only searches have one."""
        return None

    def accepted_requests(self) -> AcceptedRequests:
        """The requests that the run accepts: hints, if there is a Refine in the program."""
        paths = hinted_paths(self.module)
        return AcceptedRequests() if paths is None else AcceptedRequests(frozenset({"hint"}), paths)


def _refuse_positional(module: Module, args: tuple[Any, ...]) -> None:
    if args:
        raise InputError(f"{type(module).__name__} takes its inputs by name, as in program(question='…')")
