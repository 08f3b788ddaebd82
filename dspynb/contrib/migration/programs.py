"""The modules of DSPy that have a counterpart, with what they have learned: demos, instructions, models, settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import create_model

from dspynb.agents.program_of_thought import ProgramOfThought
from dspynb.agents.react import ReAct
from dspynb.contrib.migration.metrics import failures_of, metric_of, written_reward
from dspynb.contrib.migration.models import model_of, sampling_of
from dspynb.contrib.migration.names import dspy_class, kind_of, overrides, shown
from dspynb.contrib.migration.signatures import signature_of
from dspynb.contrib.migration.skeleton import cannot_be_translated
from dspynb.contrib.migration.tools import tool_of
from dspynb.contrib.migration.trajectories import trajectory_of
from dspynb.contrib.migration.values import value_of
from dspynb.errors import InputError
from dspynb.modules.chain_of_thought import ChainOfThought
from dspynb.modules.module import Module
from dspynb.modules.multi_chain_comparison import MultiChainComparison
from dspynb.modules.predict import Predict
from dspynb.refine.best_of_n import BestOfN
from dspynb.refine.refine import Refine
from dspynb.signatures.augment import Augmentation, Reasoning
from dspynb.signatures.fields import definition_of
from dspynb.signatures.signature import Signature

__all__ = ["PROGRAMS", "Translation"]


class Translation:
    """One translation of a program: a model that several predictors share stays one model.

    ``run_code``: whether a ProgramOfThought in it may run code that a model wrote.
    """

    def __init__(self, run_code: bool = False) -> None:
        self.run_code = run_code
        self._models: dict[int, Any] = {}

    def program(self, theirs: Any) -> Module:
        """The module that does the same. Raises InputError for one that has code of its own, or no counterpart."""
        if overrides(theirs, "forward", "aforward", "__call__", "acall") or kind_of(theirs) == "Module":
            raise cannot_be_translated(theirs)
        if kind_of(theirs) not in PROGRAMS:
            raise InputError(f"{shown(theirs)} has no counterpart here. Programs that have: {', '.join(PROGRAMS)}")
        return PROGRAMS[kind_of(theirs) or ""](self, theirs)

    def teach(self, ours: Predict, theirs: Any, instruction: str | None = None) -> None:
        """Hand on what a dspy.Predict holds beside its signature. ``instruction``: one that is not the signature's."""
        if getattr(theirs, "fields", None):
            raise InputError("a dspy.Predict with criteria for decisions (`fields`) has no counterpart here")
        fields = {**ours.signature.input_fields, **ours.signature.output_fields}
        ours.demos = [{n: value_of(v) for n, v in demo.items() if n in fields} for demo in theirs.demos]
        ours.settings = {**ours.settings, **Predict(ours.signature, **sampling_of(theirs.config)).settings}
        ours.lm, ours.instruction = self.model(theirs.lm), instruction

    def model(self, theirs: Any) -> Any:
        """The model of a predictor; None where it has none of its own."""
        if theirs is None:
            return None
        if id(theirs) not in self._models:
            self._models[id(theirs)] = model_of(theirs)
        return self._models[id(theirs)]


def _predict(how: Translation, theirs: Any) -> Module:
    ours = Predict(signature_of(theirs.signature))
    how.teach(ours, theirs)
    return ours


def _chain_of_thought(how: Translation, theirs: Any) -> Module:
    whole = signature_of(theirs.predict.signature)
    if "reasoning" not in whole.output_fields:
        raise InputError("the dspy.ChainOfThought has no `reasoning` any more; translate its predictor: `….predict`")
    ours = ChainOfThought(signature_of(theirs.predict.signature, without=["reasoning"]), reasoning=_reasoning(whole))
    how.teach(ours.predict, theirs.predict)
    return ours


def _reasoning(whole: type[Signature]) -> type[Augmentation]:
    """Ours, unless somebody gave it a type or description."""
    field = whole.output_fields["reasoning"]
    if field.is_text and not field.desc and not field.info.metadata:
        return Reasoning
    return create_model("Reasoning", __base__=Augmentation, reasoning=definition_of(field))


def _react(how: Translation, theirs: Any) -> Module:
    tools = {name: tool for name, tool in theirs.tools.items() if name != "finish"}
    task = signature_of(theirs.signature)
    ours = ReAct(task, [tool_of(tool) for tool in tools.values()], max_iterations=theirs.max_iters)
    # DSPy's own text, with the list of its tools, is of no use here; one that an optimizer wrote is.
    fresh: Any = dspy_class(type(theirs))
    untaught = fresh(theirs.signature, list(tools.values()), theirs.max_iters)
    how.teach(ours.react, theirs.react, _changed(theirs.react, untaught.react))
    how.teach(ours.extract, theirs.extract.predict, _changed(theirs.extract.predict, untaught.extract.predict))
    for predictor in (ours.react, ours.extract):
        predictor.demos = [
            {name: trajectory_of(value) if name == "trajectory" else value for name, value in demo.items()}
            for demo in predictor.demos
        ]
    return ours


def _changed(theirs: Any, untaught: Any) -> str | None:
    text = theirs.signature.instructions
    return None if text == untaught.signature.instructions else str(text)


_MODES = {"code_generate": "generate", "code_regenerate": "regenerate"}


def _program_of_thought(how: Translation, theirs: Any) -> Module:
    ours = ProgramOfThought(signature_of(theirs.signature), run_code=how.run_code, max_iterations=theirs.max_iters)
    read = "generate_output" if hasattr(theirs, "generate_output") else "generate_answer"  # in DSPy 3.0
    parts = {"code_generate": ours.generate, "code_regenerate": ours.regenerate, read: ours.answer}
    for part, predictor in parts.items():
        predict, mode = getattr(theirs, part).predict, _MODES.get(part, "answer")
        if predict.demos or predict.signature.instructions != theirs._generate_instruction(mode):
            raise InputError(
                f"what the dspy.ProgramOfThought has learned ({part}) is about code for DSPy's interpreter, and code "
                "is written otherwise here: translate one that is not compiled, and compile it with an optimizer of dn"
            )
        how.teach(predictor, predict)
    return ours


def _comparison(how: Translation, theirs: Any) -> Module:
    own = ("rationale", *(f"reasoning_attempt_{i + 1}" for i in range(theirs.M)))
    temperature = theirs.predict.config.get("temperature")
    ours = MultiChainComparison(
        signature_of(theirs.predict.signature, without=own), theirs.M, temperature, sampler=None
    )
    how.teach(ours.predict, theirs.predict)
    return ours


def _search(kind: type[BestOfN | Refine]) -> Callable[[Translation, Any], Module]:
    def made(how: Translation, theirs: Any) -> Module:
        return kind(
            how.program(theirs.module),
            metric_of(written_reward(theirs.reward_fn)),
            theirs.N,
            theirs.threshold,
            max_failures=failures_of(theirs),
        )

    return made


PROGRAMS: dict[str, Callable[[Translation, Any], Module]] = {
    "Predict": _predict,
    "ChainOfThought": _chain_of_thought,
    "ReAct": _react,
    "ProgramOfThought": _program_of_thought,
    "MultiChainComparison": _comparison,
    "BestOfN": _search(BestOfN),
    "Refine": _search(Refine),
}
