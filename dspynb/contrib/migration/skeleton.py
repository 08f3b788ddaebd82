"""What to write for a dspy.Module with a ``forward`` of its own: its class for dspynb, but for that method's body."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from dspynb.agents.tools.callables import name_of
from dspynb.contrib.migration.metrics import failures_of, written_reward
from dspynb.contrib.migration.models import sampling_of
from dspynb.contrib.migration.names import kind_of, overrides
from dspynb.contrib.migration.signatures import signature_of
from dspynb.conversation import History
from dspynb.errors import InputError, SignatureError
from dspynb.media.values import Medium
from dspynb.redact import is_secret_name
from dspynb.signatures.fields import Field
from dspynb.signatures.kinds import classes_in, source_text
from dspynb.signatures.shapes import constraint_texts
from dspynb.signatures.signature import Signature, as_signature

__all__ = ["cannot_be_translated"]

_OWN = frozenset({"callbacks", "history", "_compiled"})
_WRITTEN_TYPE = re.compile(r"^    \w+: (.*) = dn\.(?:Input|Output)\(", re.MULTILINE)


def cannot_be_translated(theirs: Any) -> InputError:
    """The error for such a module: its predictors, the class to write, and how to load what it has learned."""
    name = type(theirs).__name__
    parts = theirs.named_predictors()
    listed = "\n".join(f"- {path}: {_described(p.signature)} ({type(p).__name__})" for path, p in parts)
    return InputError(
        f"{name} has a forward of its own, which cannot be translated. Its predictors:\n{listed or '- none'}\n"
        f"Write it anew, with `await` before every call of a predictor:\n\n{_Skeleton(theirs)}\n\n"
        'Then load what it has learned: save it in DSPy with old.save("program.json"), and here call '
        f'new = {name}(); new.load("program.json").'
    )


def _described(theirs: Any) -> str:
    try:
        return signature_of(theirs).describe()
    except SignatureError:  # a type that has no counterpart
        return str(theirs.signature)


class _Skeleton:
    """The source of the classes: signatures that no string can say, modules inside, and the module itself."""

    def __init__(self, theirs: Any) -> None:
        self._signatures: dict[str, type[Signature]] = {}
        self._modules: dict[str, str] = {}
        self._lacking: list[str] = []
        self._write(theirs)

    def __str__(self) -> str:
        signatures = [_class_text(name, kept) for name, kept in self._signatures.items()]
        types = " ".join(written for text in signatures for written in _WRITTEN_TYPE.findall(text))
        used = [name for name in ("Any", "Literal", "Optional", "Union") if re.search(rf"\b{name}\b", types)]
        imports = [f"from typing import {', '.join(used)}"] if used else []
        return "\n\n".join([*imports, *signatures, *self._modules.values()])

    def _write(self, theirs: Any) -> str:
        """Write the class of a module, after those inside it; what makes one."""
        name = type(theirs).__name__
        if name not in self._modules:
            self._modules[name] = ""  # a module may hold others of its own class
            head = [
                f"class {name}(dn.Module):",
                "    def __init__(self):",
                *(list(self._fields(theirs)) or ["        pass"]),
            ]
            body = [f"    async def forward({_parameters(theirs)}):", "        ...  # as it was, with `await`"]
            del self._modules[name]  # it stands after those inside it
            self._modules[name] = "\n".join([*head, "", *body])
        return f"{name}()"

    def _fields(self, theirs: Any) -> Iterator[str]:
        """The lines of ``__init__``."""
        others = []
        for name, value in vars(theirs).items():
            if name in _OWN:
                continue
            if text := self._made(name, value):
                yield f"        self.{name} = {text}"
            else:
                others.append(name)
            yield from (f"        # {lacking}" for lacking in self._lacking)
            self._lacking.clear()
        if others:
            yield f"        # and what else it holds: {', '.join(others)}"

    def _made(self, path: str, value: Any) -> str:
        """The expression that makes the value; empty for what holds no module."""
        if isinstance(value, list | tuple):
            items = [self._made(f"{path}_{i}", item) for i, item in enumerate(value)]
            return f"[{', '.join(items)}]" if items and all(items) else ""
        if isinstance(value, Mapping):
            named = {key: self._made(f"{path}_{key}", item) for key, item in value.items()}
            return "{" + ", ".join(f"{k!r}: {v}" for k, v in named.items()) + "}" if all(named.values()) else ""
        if not hasattr(type(value), "named_predictors") or kind_of(value) is None:
            return ""
        if kind_of(value) == "Module" or overrides(value, "forward", "aforward"):
            return self._write(value)
        make = _EXPRESSIONS.get(kind_of(value) or "")
        try:
            if make:
                return make(self, path, value)
            self._lacking.append(f"dspy.{kind_of(value)} has no counterpart")
        except SignatureError as error:
            self._lacking.append(str(error))
        return "..."

    def signature(self, path: str, theirs: Any, without: Collection[str] = ()) -> str:
        """The signature as a string, where that says all of it; else the name of its class, which is written too."""
        ours = signature_of(theirs, without)
        text = ours.describe().replace(": str,", ",").replace(": str ->", " ->").removesuffix(": str")
        try:
            if as_signature(text).same_as(ours):
                return f'"{text}"'
        except SignatureError:
            pass
        named = "".join(part.capitalize() for part in re.findall(r"[A-Za-z0-9]+", path))
        name = named if ours.__name__ == "Signature" else ours.__name__
        while name in self._signatures and not self._signatures[name].same_as(ours):
            name += "_"
        self._signatures[name] = ours
        return name


def _search(made: _Skeleton, path: str, search: Any) -> str:
    named = name_of(written_reward(search.reward_fn))
    name = named if named.isidentifier() else "reward"  # of a lambda
    threshold = search.threshold if math.isfinite(search.threshold) else f'float("{search.threshold}")'
    allowed = failures_of(search)
    limits = f"n={search.N}, threshold={threshold}" + ("" if allowed is None else f", max_failures={allowed}")
    return f"dn.{kind_of(search)}({made._made(path, search.module)}, {name}, {limits})"


def _settings(predict: Any) -> str:
    """The settings of a predictor, which no saved program has; a key is not spelled out."""
    kept = {name: value for name, value in sampling_of(predict.config).items() if not is_secret_name(name)}
    return "".join(f", {name}={value!r}" for name, value in kept.items())


def _react(made: _Skeleton, path: str, agent: Any) -> str:
    tools = ", ".join(name for name in agent.tools if name != "finish")
    return f"dn.ReAct({made.signature(path, agent.signature)}, [{tools}], max_iterations={agent.max_iters})"


def _comparison(made: _Skeleton, path: str, compare: Any) -> str:
    own = ["rationale", *(f"reasoning_attempt_{i + 1}" for i in range(compare.M))]
    task = made.signature(path, compare.predict.signature, own)
    return f"dn.MultiChainComparison({task}, m={compare.M}, sampler=None)"


_EXPRESSIONS: dict[str, Callable[[_Skeleton, str, Any], str]] = {
    "Predict": lambda made, path, it: f"dn.Predict({made.signature(path, it.signature)}{_settings(it)})",
    "ChainOfThought": lambda made, path, it: (
        f"dn.ChainOfThought({made.signature(path, it.predict.signature, ['reasoning'])}{_settings(it.predict)})"
    ),
    "ReAct": _react,
    "ProgramOfThought": lambda made, path, it: (
        f"dn.ProgramOfThought({made.signature(path, it.signature)}, run_code=True, max_iterations={it.max_iters})"
    ),
    "MultiChainComparison": _comparison,
    "BestOfN": _search,
    "Refine": _search,
}


def _parameters(theirs: Any) -> str:
    method = inspect.getattr_static(type(theirs), "forward", None) or inspect.getattr_static(
        type(theirs), "aforward", None
    )
    if not inspect.isfunction(method):
        return "self, **inputs"
    found = inspect.signature(method)
    written = [
        p.replace(annotation=_AsWritten(p.annotation)) if isinstance(p.annotation, str) else p
        for p in found.parameters.values()
    ]
    return str(found.replace(parameters=written, return_annotation=found.empty))[1:-1]


class _AsWritten(str):
    """An annotation that is text, which ``inspect`` would put into quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _class_text(name: str, signature: type[Signature]) -> str:
    task = signature.instruction.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').replace("\n", "\n    ")
    task = f'{task[:-1]}\\"' if task.endswith('"') else task
    doc = [f'    """{task}"""', ""] if signature.has_own_instruction else []
    fields = [*signature.input_fields.values(), *signature.output_fields.values()]
    return "\n".join([f"class {name}(dn.Signature):", *doc, *(f"    {_field_text(field)}" for field in fields)])


def _field_text(field: Field) -> str:
    declare = "dn.Input" if field.kind == "input" else "dn.Output"
    text = source_text(field.annotation).replace("typing.", "")
    if any(issubclass(kind, Medium | History) for kind in classes_in(field.annotation)):
        text = re.sub(r"\b(Image|File|History)\b", r"dn.\1", text)
    return f"{field.name}: {text} = {declare}({', '.join(_declared(field))})"


def _declared(field: Field) -> Iterator[str]:
    for name, value in (("desc", field.desc), ("alias", field.alias)):
        if value is not None:
            yield f"{name}={value!r}"
    yield from (text for text in constraint_texts(field.info.metadata) if "=" in text)
    if not field.info.is_required():
        yield f"default={field.info.get_default(call_default_factory=True)!r}"
