"""from_dspy: what it is that was given, and who translates it."""

from __future__ import annotations

from typing import Any

from dspynb.contrib.migration.metrics import metric_of
from dspynb.contrib.migration.models import model_of
from dspynb.contrib.migration.names import dspy_class, kind_of, shown
from dspynb.contrib.migration.programs import PROGRAMS, Translation
from dspynb.contrib.migration.signatures import is_signature, signature_of
from dspynb.contrib.migration.tools import tool_of
from dspynb.contrib.migration.values import example_of, prediction_of, value_of
from dspynb.errors import InputError

__all__ = ["from_dspy"]

_OTHERS = {
    "Example": example_of,
    "Prediction": prediction_of,
    "LM": model_of,
    "BaseLM": model_of,
    "Tool": tool_of,
    "Image": value_of,
    "File": value_of,
    "History": value_of,
}


def from_dspy(thing: Any, *, run_code: bool = False) -> Any:
    """A live object of DSPy's as dspynb's own; the object stays as it is: ``program = dn.from_dspy(compiled)``.

    ``thing``: a dspy.Signature class; a program made of Predict, ChainOfThought, ReAct, ProgramOfThought,
    MultiChainComparison, BestOfN and Refine, whose demos, instructions, models and settings come along; an Example or
    Prediction; an LM, whose key is handed on; a Tool, Image, File or History; a metric or reward, a function of
    (example, prediction) or of the five arguments that GEPA passes; or a list of such.
    ``run_code``: allows a ProgramOfThought to run the code that a model writes.

    Callbacks, ``rollout_id`` and ``prompt_cache`` are left out. Raises InputError for what cannot be translated (for a
    module with a ``forward`` of its own, with the class that is to be written), SignatureError for a type without
    counterpart, ConfigurationError for a model without one.

    >>> import dspy
    >>> theirs = dspy.ChainOfThought("question -> answer: int")
    >>> theirs.predict.demos = [dspy.Example(question="2+2?", reasoning="Two and two.", answer=4)]
    >>> ours = dn.from_dspy(theirs)
    >>> ours.predict.demos[0]["answer"], ours.predict.signature.describe()
    (4, 'question: str -> reasoning: str, answer: int')
    """
    if isinstance(thing, list | tuple):
        return [from_dspy(item, run_code=run_code) for item in thing]
    if is_signature(thing):
        return signature_of(thing)
    if isinstance(thing, type):
        raise _refusal(thing)
    kind = kind_of(thing)
    if kind in _OTHERS:
        return _OTHERS[kind](thing)
    if kind in PROGRAMS or _is_program(thing):
        return Translation(run_code).program(thing)
    if kind is None and callable(thing) and not type(thing).__module__.startswith("dspynb."):
        return metric_of(thing)
    raise _refusal(thing)


def _is_program(thing: Any) -> bool:
    return dspy_class(type(thing)) is not None and hasattr(type(thing), "named_predictors")


def _refusal(thing: Any) -> InputError:
    return InputError(
        "from_dspy takes a dspy.Signature class, a program, an Example or Prediction, an LM, a Tool, an Image, File or "
        f"History, a metric, or a list of these; got {shown(thing)}"
    )
