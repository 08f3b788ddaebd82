"""Conversion of DSPy's modules that have a counterpart, with their demos, instructions, models and settings."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

from pydantic import create_model

from dspynb.agents.program_of_thought import ProgramOfThought
from dspynb.agents.react import ReAct
from dspynb.contrib.migration.metrics import convert_metric, max_failures_of, user_reward
from dspynb.contrib.migration.models import convert_model, sampling_settings
from dspynb.contrib.migration.names import describe_type, dspy_class, kind_of, overrides
from dspynb.contrib.migration.own_forward import OwnForwards, Source
from dspynb.contrib.migration.signatures import comparison_fields, convert_signature
from dspynb.contrib.migration.tools import convert_tool
from dspynb.contrib.migration.trajectories import convert_trajectory
from dspynb.contrib.migration.values import convert_value
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

__all__ = ["PROGRAM_CONVERTERS", "ProgramConverter"]


class ProgramConverter:
    """Converts one program. A model that several predictors share is converted to one model.

    ``run_code``: whether a ProgramOfThought in it may run code that a model wrote. ``convert``: converts objects in it
    that are no programs.
    """

    def __init__(self, run_code: bool = False, convert: Callable[[Any], Any] | None = None) -> None:
        self.run_code = run_code
        self._own_forwards = OwnForwards(self._convert_inside(convert), run_code)
        self._models: dict[int, Any] = {}  # by the id of the dspy.LM

    def convert(self, dspy_module: object) -> Module:
        """Convert a module. Raises InputError if it has no counterpart, or a part of it cannot be rewritten."""
        kind = kind_of(dspy_module) or ""
        if kind in ("Module", "BaseModule") or overrides(dspy_module, "forward", "aforward"):
            return self._own_forwards.program(dspy_module)
        if kind not in PROGRAM_CONVERTERS:
            raise InputError(
                f"{describe_type(dspy_module)} has no counterpart here. Programs that have: "
                f"{', '.join(PROGRAM_CONVERTERS)}"
            )
        return PROGRAM_CONVERTERS[kind](self, dspy_module)

    @property
    def has_source(self) -> bool:
        """Whether a class was rewritten."""
        return self._own_forwards.has_source

    @property
    def source(self) -> Source:
        """The source of the classes and functions that were rewritten."""
        return self._own_forwards.source

    def convert_class(self, cls: type) -> Source:
        """The rewritten source of a class of modules. Raises InputError if a part of it cannot be rewritten."""
        self._own_forwards.module_class(cls)
        self._own_forwards.check(cls)
        return self.source

    def _convert_inside(self, convert: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
        def convert_inside(value: Any) -> Any:
            if hasattr(type(value), "named_predictors") or convert is None:
                return self.convert(value)
            if kind_of(value) == "LM":
                return self._model(value)
            return convert(value)

        return convert_inside

    def copy_state(self, predictor: Predict, dspy_predict: Any, instruction: str | None = None) -> None:
        """Copy demos, settings and model of a dspy.Predict. ``instruction``: to set in place of the signature's."""
        if getattr(dspy_predict, "fields", None):
            raise InputError("a dspy.Predict with criteria for decisions (`fields`) has no counterpart here")
        signature = predictor.signature
        fields = {**signature.input_fields, **signature.output_fields}
        predictor.demos = [_convert_demo(demo, fields) for demo in dspy_predict.demos]
        own_settings = Predict(signature, **sampling_settings(dspy_predict.config)).settings
        predictor.settings = {**predictor.settings, **own_settings}
        predictor.lm = self._model(dspy_predict.lm)
        predictor.instruction = instruction

    def _model(self, dspy_lm: object) -> Any:
        """The model of a predictor; None if it has none of its own."""
        if dspy_lm is None:
            return None
        if id(dspy_lm) not in self._models:
            self._models[id(dspy_lm)] = convert_model(dspy_lm)
        return self._models[id(dspy_lm)]


def _convert_demo(demo: Any, fields: Container[str]) -> dict[str, Any]:
    return {name: convert_value(value) for name, value in demo.items() if name in fields}


def _convert_predict(converter: ProgramConverter, dspy_predict: Any) -> Module:
    predictor = Predict(convert_signature(dspy_predict.signature))
    converter.copy_state(predictor, dspy_predict)
    return predictor


def _convert_chain_of_thought(converter: ProgramConverter, dspy_module: Any) -> Module:
    dspy_signature = dspy_module.predict.signature
    with_reasoning = convert_signature(dspy_signature)
    if "reasoning" not in with_reasoning.output_fields:
        raise InputError("the dspy.ChainOfThought has no `reasoning` any more; translate its predictor: `….predict`")
    task = convert_signature(dspy_signature, without=["reasoning"])
    module = ChainOfThought(task, reasoning=_reasoning(with_reasoning))
    converter.copy_state(module.predict, dspy_module.predict)
    return module


def _reasoning(signature: type[Signature]) -> type[Augmentation]:
    """The augmentation for the field ``reasoning``; dspynb's own if nobody changed its type or description."""
    field = signature.output_fields["reasoning"]
    if field.is_text and not field.desc and not field.info.metadata:
        return Reasoning
    return create_model("Reasoning", __base__=Augmentation, reasoning=definition_of(field))


def _convert_react(converter: ProgramConverter, dspy_react: Any) -> Module:
    dspy_tools = [tool for name, tool in dspy_react.tools.items() if name != "finish"]
    tools = [convert_tool(tool) for tool in dspy_tools]
    module = ReAct(convert_signature(dspy_react.signature), tools, max_iterations=dspy_react.max_iters)
    # An instruction that an optimizer wrote is copied. The default one lists tools as DSPy writes them, and is not.
    dspy_react_class: Any = dspy_class(type(dspy_react))
    default = dspy_react_class(dspy_react.signature, dspy_tools, dspy_react.max_iters)
    predictors = (
        (module.react, dspy_react.react, default.react),
        (module.extract, dspy_react.extract.predict, default.extract.predict),
    )
    for predictor, dspy_predict, default_predict in predictors:
        converter.copy_state(predictor, dspy_predict, _changed_instruction(dspy_predict, default_predict))
        predictor.demos = [_convert_trajectory_in(demo) for demo in predictor.demos]
    return module


def _convert_trajectory_in(demo: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(demo)
    if "trajectory" in fields:
        fields["trajectory"] = convert_trajectory(fields["trajectory"])
    return fields


def _changed_instruction(dspy_predict: Any, default_predict: Any) -> str | None:
    """The instruction of a predictor; None if it is the default."""
    instruction = dspy_predict.signature.instructions
    return None if instruction == default_predict.signature.instructions else str(instruction)


_INSTRUCTION_MODES = {"code_generate": "generate", "code_regenerate": "regenerate"}


def _convert_program_of_thought(converter: ProgramConverter, dspy_module: Any) -> Module:
    task = convert_signature(dspy_module.signature)
    module = ProgramOfThought(task, run_code=converter.run_code, max_iterations=dspy_module.max_iters)
    answer = "generate_output" if hasattr(dspy_module, "generate_output") else "generate_answer"  # DSPy 3.0
    predictors = {"code_generate": module.generate, "code_regenerate": module.regenerate, answer: module.answer}
    for name, predictor in predictors.items():
        dspy_predict = getattr(dspy_module, name).predict
        mode = _INSTRUCTION_MODES.get(name, "answer")
        if dspy_predict.demos or dspy_predict.signature.instructions != dspy_module._generate_instruction(mode):
            raise InputError(
                f"what the dspy.ProgramOfThought has learned ({name}) is about code for DSPy's interpreter, and code "
                "is written otherwise here: translate one that is not compiled, and compile it with an optimizer of dn"
            )
        converter.copy_state(predictor, dspy_predict)
    return module


def _convert_comparison(converter: ProgramConverter, dspy_module: Any) -> Module:
    task = convert_signature(dspy_module.predict.signature, without=comparison_fields(dspy_module))
    temperature = dspy_module.predict.config.get("temperature")
    module = MultiChainComparison(task, dspy_module.M, temperature, sampler=None)
    converter.copy_state(module.predict, dspy_module.predict)
    return module


def _search_converter(cls: type[BestOfN | Refine]) -> Callable[[ProgramConverter, Any], Module]:
    def convert(converter: ProgramConverter, search: Any) -> Module:
        return cls(
            converter.convert(search.module),
            convert_metric(user_reward(search.reward_fn)),
            search.N,
            search.threshold,
            max_failures=max_failures_of(search),
        )

    return convert


PROGRAM_CONVERTERS: dict[str, Callable[[ProgramConverter, Any], Module]] = {
    "Predict": _convert_predict,
    "ChainOfThought": _convert_chain_of_thought,
    "ReAct": _convert_react,
    "ProgramOfThought": _convert_program_of_thought,
    "MultiChainComparison": _convert_comparison,
    "BestOfN": _search_converter(BestOfN),
    "Refine": _search_converter(Refine),
}
"""For each class of DSPy that has a counterpart: the function that converts a module."""
