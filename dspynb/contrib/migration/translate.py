"""from_dspy: recognises an object of DSPy and converts it."""

from __future__ import annotations

from typing import Any

from dspynb.contrib.migration.await_rules import is_program_class
from dspynb.contrib.migration.metrics import convert_metric
from dspynb.contrib.migration.models import convert_model
from dspynb.contrib.migration.names import describe_type, dspy_class, kind_of
from dspynb.contrib.migration.programs import PROGRAM_CONVERTERS, ProgramConverter
from dspynb.contrib.migration.signatures import convert_signature, is_signature
from dspynb.contrib.migration.tools import convert_tool
from dspynb.contrib.migration.values import convert_example, convert_prediction, convert_value
from dspynb.errors import InputError

__all__ = ["from_dspy"]

_CONVERTERS = {
    "Example": convert_example,
    "Prediction": convert_prediction,
    "LM": convert_model,
    "BaseLM": convert_model,
    "Tool": convert_tool,
    "Image": convert_value,
    "File": convert_value,
    "History": convert_value,
}
"""For the classes of DSPy other than programs and signatures: the function that converts an object."""


def from_dspy(thing: object, *, run_code: bool = False, show: bool = True) -> Any:
    """Convert an object of DSPy to the one of dspynb that does the same: ``program = dn.from_dspy(compiled)``.

    The object of DSPy is not changed.

    ``thing``: a program of Predict, ChainOfThought, ReAct, ProgramOfThought, MultiChainComparison, BestOfN, Refine and
    modules with a ``forward`` of their own, with its demos, instructions, models and settings; a class of such modules,
    for which the rewritten source is returned; a dspy.Signature class; an Example or Prediction; an LM, with its
    key; a Tool, Image, File or History; a metric or reward, which is a function of (example, prediction) or of the five
    arguments that GEPA passes; or a list of these. ``run_code``: whether a ProgramOfThought may run the code that a
    model writes, False by default. ``show``: whether rewritten source is printed, True by default.

    The class of a module with a ``forward`` of its own is rewritten: ``async def``, ``await`` before calls of programs,
    ``dn.X`` in place of ``dspy.X``. Comments and names are kept, and the module's attributes are converted. The source
    is printed, for you to check and to put in place of the old class. Functions and signatures that it uses are
    converted too.

    Callbacks, ``rollout_id`` and ``prompt_cache`` are left out. Raises InputError for an object without a counterpart;
    if a part of a ``forward`` cannot be rewritten, the error has its line and the rest of the source. Raises
    SignatureError for a type, and ConfigurationError for a model, without a counterpart.

    >>> import dspy
    >>> old = dspy.ChainOfThought("question -> answer: int")
    >>> old.predict.demos = [dspy.Example(question="2+2?", reasoning="Two and two.", answer=4)]
    >>> new = dn.from_dspy(old)
    >>> new.predict.demos[0]["answer"], new.predict.signature.describe()
    (4, 'question: str -> reasoning: str, answer: int')
    """
    if isinstance(thing, list | tuple):
        return [from_dspy(item, run_code=run_code, show=show) for item in thing]
    if is_signature(thing):
        return convert_signature(thing)
    if isinstance(thing, type) and is_program_class(thing) and dspy_class(thing) is not thing:
        return ProgramConverter(run_code, from_dspy).convert_class(thing)
    if isinstance(thing, type):
        raise _not_convertible(thing)
    kind = kind_of(thing)
    if kind in _CONVERTERS:
        return _CONVERTERS[kind](thing)
    if kind in PROGRAM_CONVERTERS or _is_program(thing):
        return _convert_program(thing, run_code, show)
    is_own_object = type(thing).__module__.startswith("dspynb.")
    if kind is None and callable(thing) and not is_own_object:
        return convert_metric(thing)
    raise _not_convertible(thing)


def _convert_program(dspy_module: Any, run_code: bool, show: bool) -> Any:
    converter = ProgramConverter(run_code, from_dspy)
    program = converter.convert(dspy_module)
    if show and converter.has_source:
        print(converter.source)  # noqa: T201  # for the user to read and edit
    return program


def _is_program(value: object) -> bool:
    return dspy_class(type(value)) is not None and hasattr(type(value), "named_predictors")


def _not_convertible(value: object) -> InputError:
    return InputError(
        "from_dspy takes a dspy.Signature class, a program, an Example or Prediction, an LM, a Tool, an Image, File or "
        f"History, a metric, or a list of these; got {describe_type(value)}"
    )
