"""The class to write for a dspy.Module with a ``forward`` of its own, without the body of that method."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from dspynb.agents.tools.callables import name_of
from dspynb.contrib.migration.metrics import max_failures_of, user_reward
from dspynb.contrib.migration.models import sampling_settings
from dspynb.contrib.migration.names import kind_of, overrides
from dspynb.contrib.migration.signatures import comparison_fields, convert_signature
from dspynb.conversation import History
from dspynb.errors import InputError, SignatureError
from dspynb.media.values import Medium
from dspynb.redact import is_secret_name
from dspynb.signatures.fields import Field
from dspynb.signatures.kinds import classes_in, source_text
from dspynb.signatures.shapes import constraint_texts
from dspynb.signatures.signature import Signature, as_signature

__all__ = ["own_forward_error"]

_DSPY_ATTRIBUTES = frozenset({"callbacks", "history", "_compiled"})
"""Attributes that DSPy sets on every module."""
_FIELD_TYPE = re.compile(r"^    \w+: (.*) = dn\.(?:Input|Output)\(", re.MULTILINE)
"""Finds the types of the fields in the source of a signature class."""


def own_forward_error(dspy_module: Any) -> InputError:
    """The error for a module with a forward of its own.

    It lists the predictors of the module, and shows the class to write and how to load the saved state.
    """
    name = type(dspy_module).__name__
    lines = []
    for path, predict in dspy_module.named_predictors():
        lines.append(f"- {path}: {_signature_text(predict.signature)} ({type(predict).__name__})")
    predictors = "\n".join(lines) or "- none"
    return InputError(
        f"{name} has a forward of its own, which cannot be translated. Its predictors:\n{predictors}\n"
        f"Write it anew, with `await` before every call of a predictor:\n\n{_SourceWriter(dspy_module)}\n\n"
        'Then load what it has learned: save it in DSPy with old.save("program.json"), and here call '
        f'new = {name}(); new.load("program.json").'
    )


def _signature_text(dspy_signature: Any) -> str:
    try:
        return convert_signature(dspy_signature).describe()
    except SignatureError:  # it has a type without a counterpart
        return str(dspy_signature.signature)


class _SourceWriter:
    """Writes the source of a module: its class, those of the modules in it, and those of their signatures.

    A signature that can be written as a string has no class. ``str(writer)`` is the source.
    """

    def __init__(self, dspy_module: object) -> None:
        self._signatures: dict[str, type[Signature]] = {}  # by the name of the class to write
        self._modules: dict[str, str] = {}  # the source of a class by its name, in the order of writing
        self._problems: list[str] = []  # why parts of the current attribute cannot be written
        self._write_class(dspy_module)

    def __str__(self) -> str:
        signatures = [_class_source(name, signature) for name, signature in self._signatures.items()]
        types = " ".join(_FIELD_TYPE.findall("\n".join(signatures)))
        typing_names = [name for name in ("Any", "Literal", "Optional", "Union") if re.search(rf"\b{name}\b", types)]
        sections = [*signatures, *self._modules.values()]
        if typing_names:
            sections.insert(0, f"from typing import {', '.join(typing_names)}")
        return "\n\n".join(sections)

    def _write_class(self, dspy_module: object) -> str:
        """Write the class of a module, after the classes of the modules in it. Returns a call of the class."""
        name = type(dspy_module).__name__
        if name not in self._modules:
            self._modules[name] = ""  # so that a module inside of the same class does not write it again
            init_lines = list(self._init_lines(dspy_module)) or ["        pass"]
            lines = [
                f"class {name}(dn.Module):",
                "    def __init__(self):",
                *init_lines,
                "",
                f"    async def forward({_forward_parameters(dspy_module)}):",
                "        ...  # as it was, with `await`",
            ]
            del self._modules[name]  # to add it at the end, after the classes of the modules in it
            self._modules[name] = "\n".join(lines)
        return f"{name}()"

    def _init_lines(self, dspy_module: object) -> Iterator[str]:
        """The lines of ``__init__``: an assignment for each attribute with modules, and comments on the others."""
        others = []
        for name, value in vars(dspy_module).items():
            if name in _DSPY_ATTRIBUTES:
                continue
            source = self.expression(name, value)
            if source:
                yield f"        self.{name} = {source}"
            else:
                others.append(name)
            for problem in self._problems:
                yield f"        # {problem}"
            self._problems.clear()
        if others:
            yield f"        # and what else it holds: {', '.join(others)}"

    def expression(self, path: str, value: object) -> str:
        """The expression for a value; empty if the value contains no module, or something besides modules."""
        if isinstance(value, list | tuple):
            items = [self.expression(f"{path}_{index}", item) for index, item in enumerate(value)]
            return f"[{', '.join(items)}]" if items and all(items) else ""
        if isinstance(value, Mapping):
            sources = {key: self.expression(f"{path}_{key}", item) for key, item in value.items()}
            members = ", ".join(f"{key!r}: {source}" for key, source in sources.items())
            return f"{{{members}}}" if all(sources.values()) else ""
        kind = kind_of(value)
        if kind is None or not hasattr(type(value), "named_predictors"):
            return ""
        return self._module_expression(path, value, kind)

    def _module_expression(self, path: str, dspy_module: object, kind: str) -> str:
        """The expression for a module; ``...`` if it cannot be written, for a reason that is added to the problems."""
        if kind == "Module" or overrides(dspy_module, "forward", "aforward"):
            return self._write_class(dspy_module)
        if kind not in _EXPRESSIONS:
            self._problems.append(f"dspy.{kind} has no counterpart")
            return "..."
        try:
            return _EXPRESSIONS[kind](self, path, dspy_module)
        except SignatureError as error:
            self._problems.append(str(error))
            return "..."

    def signature(self, path: str, dspy_signature: object, without: Collection[str] = ()) -> str:
        """The expression for a signature: a string if it says all, else the name of a class that is written too.

        ``path``: where the signature is in the module, to name the class. ``without``: fields to leave out.
        """
        signature = convert_signature(dspy_signature, without)
        text = signature.describe().replace(": str,", ",").replace(": str ->", " ->").removesuffix(": str")
        try:
            if as_signature(text).same_as(signature):
                return f'"{text}"'
        except SignatureError:
            pass
        name = signature.__name__
        if name == "Signature":
            name = "".join(part.capitalize() for part in re.findall(r"[A-Za-z0-9]+", path))
        while name in self._signatures and not self._signatures[name].same_as(signature):
            name += "_"
        self._signatures[name] = signature
        return name


def _search_expression(writer: _SourceWriter, path: str, search: Any) -> str:
    reward = name_of(user_reward(search.reward_fn))
    if not reward.isidentifier():  # a lambda
        reward = "reward"
    threshold = search.threshold if math.isfinite(search.threshold) else f'float("{search.threshold}")'
    arguments = f"{writer.expression(path, search.module)}, {reward}, n={search.N}, threshold={threshold}"
    max_failures = max_failures_of(search)
    if max_failures is not None:
        arguments += f", max_failures={max_failures}"
    return f"dn.{kind_of(search)}({arguments})"


def _settings_arguments(predict: Any) -> str:
    """The settings of a predictor as further arguments, since a saved program lacks them. Secrets are left out."""
    settings = sampling_settings(predict.config)
    return "".join(f", {name}={value!r}" for name, value in settings.items() if not is_secret_name(name))


def _predict_expression(writer: _SourceWriter, path: str, predict: Any) -> str:
    return f"dn.Predict({writer.signature(path, predict.signature)}{_settings_arguments(predict)})"


def _chain_of_thought_expression(writer: _SourceWriter, path: str, dspy_module: Any) -> str:
    task = writer.signature(path, dspy_module.predict.signature, ["reasoning"])
    return f"dn.ChainOfThought({task}{_settings_arguments(dspy_module.predict)})"


def _react_expression(writer: _SourceWriter, path: str, agent: Any) -> str:
    tools = ", ".join(name for name in agent.tools if name != "finish")
    return f"dn.ReAct({writer.signature(path, agent.signature)}, [{tools}], max_iterations={agent.max_iters})"


def _program_of_thought_expression(writer: _SourceWriter, path: str, agent: Any) -> str:
    task = writer.signature(path, agent.signature)
    return f"dn.ProgramOfThought({task}, run_code=True, max_iterations={agent.max_iters})"


def _comparison_expression(writer: _SourceWriter, path: str, comparison: Any) -> str:
    task = writer.signature(path, comparison.predict.signature, comparison_fields(comparison))
    return f"dn.MultiChainComparison({task}, m={comparison.M}, sampler=None)"


_EXPRESSIONS: dict[str, Callable[[_SourceWriter, str, Any], str]] = {
    "Predict": _predict_expression,
    "ChainOfThought": _chain_of_thought_expression,
    "ReAct": _react_expression,
    "ProgramOfThought": _program_of_thought_expression,
    "MultiChainComparison": _comparison_expression,
    "BestOfN": _search_expression,
    "Refine": _search_expression,
}
"""For each class of DSPy that has a counterpart: the function that writes the expression for a module."""


def _forward_parameters(dspy_module: object) -> str:
    """The parameters of the forward method, as its source has them."""
    cls = type(dspy_module)
    method = inspect.getattr_static(cls, "forward", None) or inspect.getattr_static(cls, "aforward", None)
    if not inspect.isfunction(method):
        return "self, **inputs"
    signature = inspect.signature(method)
    parameters = []
    for parameter in signature.parameters.values():
        annotation = parameter.annotation
        if isinstance(annotation, str):
            annotation = _UnquotedAnnotation(annotation)
        parameters.append(parameter.replace(annotation=annotation))
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))[1:-1]


class _UnquotedAnnotation(str):
    """A text annotation whose repr has no quotes, so that ``inspect`` shows it as in the source."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _class_source(name: str, signature: type[Signature]) -> str:
    """The source of a signature class."""
    lines = [f"class {name}(dn.Signature):"]
    if signature.has_own_instruction:
        lines += [f'    """{_docstring(signature.instruction)}"""', ""]
    for field in (*signature.input_fields.values(), *signature.output_fields.values()):
        lines.append(f"    {_field_source(field)}")
    return "\n".join(lines)


def _docstring(instruction: str) -> str:
    """An instruction as it is written in an indented docstring."""
    text = instruction.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').replace("\n", "\n    ")
    if text.endswith('"'):
        text = f'{text[:-1]}\\"'
    return text


def _field_source(field: Field) -> str:
    declare = "dn.Input" if field.kind == "input" else "dn.Output"
    annotation = source_text(field.annotation).replace("typing.", "")
    if any(issubclass(cls, Medium | History) for cls in classes_in(field.annotation)):
        annotation = re.sub(r"\b(Image|File|History)\b", r"dn.\1", annotation)
    return f"{field.name}: {annotation} = {declare}({', '.join(_field_arguments(field))})"


def _field_arguments(field: Field) -> Iterator[str]:
    if field.desc is not None:
        yield f"desc={field.desc!r}"
    if field.alias is not None:
        yield f"alias={field.alias!r}"
    yield from (text for text in constraint_texts(field.info.metadata) if "=" in text)
    if not field.info.is_required():
        yield f"default={field.info.get_default(call_default_factory=True)!r}"
