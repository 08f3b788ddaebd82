"""Signature: a typed class whose docstring is the instruction; and the same from a string."""

from __future__ import annotations

import copyreg
import hashlib
import inspect
import json
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from dspynb.errors import InputError, SignatureError, nearest, shorten
from dspynb.signatures.fields import Field, Input, Output, kind_of
from dspynb.signatures.text import parse_signature

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

__all__ = ["Signature", "as_signature"]

_RESERVED = frozenset({"meta", "items", "keys", "values", "get", "to_dict", "with_meta", "self"})


class _SignatureType(ModelMetaclass):
    """A type of its own, so that pickling of derived classes can be told how."""


class Signature(BaseModel, metaclass=_SignatureType):
    """What a predictor takes and gives. The docstring is the instruction.

    >>> class Caption(Signature):
    ...     '''Write one sentence about the subject.'''
    ...     subject: str = Input()
    ...     sentence: str = Output(desc="one sentence")
    >>> list(Caption.input_fields), list(Caption.output_fields), Caption.instruction
    (['subject'], ['sentence'], 'Write one sentence about the subject.')

    Class attributes: ``input_fields`` and ``output_fields`` (name → Field, in order), ``instruction`` (str). Raises
    SignatureError when the class is made with a field that is neither Input nor Output, or without an output.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, ignored_types=(property,))

    input_fields: ClassVar[Mapping[str, Field]] = {}
    output_fields: ClassVar[Mapping[str, Field]] = {}
    instruction: ClassVar[str] = ""
    inputs_model: ClassVar[type[BaseModel]]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        made = {name: Field(name, kind_of(name, info), info) for name, info in cls.model_fields.items()}
        cls.input_fields = {name: field for name, field in made.items() if field.kind == "input"}
        cls.output_fields = {name: field for name, field in made.items() if field.kind == "output"}
        _check(cls)
        cls.instruction = _instruction(cls)
        definitions: dict[str, Any] = {n: (f.info.rebuild_annotation(), f.info) for n, f in cls.input_fields.items()}
        cls.inputs_model = create_model(
            f"{cls.__name__}Inputs",
            __config__=ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=()),
            **definitions,
        )

    @classmethod
    def check_inputs(cls, values: Mapping[str, Any], who: str) -> dict[str, Any]:
        """Validated inputs, defaults filled in. Raises InputError naming what is missing, extra or mistyped."""
        try:
            model = cls.inputs_model.model_validate(values)
        except ValidationError as error:
            raise InputError(f"{who}: {_input_problems(cls, error)}") from None
        return {name: getattr(model, name) for name in cls.input_fields}

    @classmethod
    def with_instruction(cls, instruction: str) -> type[Signature]:
        """The same signature with another instruction."""
        return _build(cls.__name__, instruction, _definitions(cls))

    @classmethod
    def describe(cls) -> str:
        """One line: ``subject: str -> sentence: str``."""
        sides = (cls.input_fields, cls.output_fields)
        return " -> ".join(", ".join(f"{n}: {f.type_text}" for n, f in side.items()) for side in sides)

    @classmethod
    def fingerprint(cls) -> str:
        """16 hex digits that change when a field, a type, a description or the instruction does. Holds no hint."""
        fields = [[n, f.kind, f.type_text, f.desc] for n, f in {**cls.input_fields, **cls.output_fields}.items()]
        return hashlib.sha256(json.dumps([cls.instruction, fields]).encode()).hexdigest()[:16]


def _check(cls: type[Signature]) -> None:
    if not cls.output_fields:
        raise SignatureError(f"{cls.__name__} has no output field; declare one with dn.Output()")
    for name in (*cls.input_fields, *cls.output_fields):
        if name in _RESERVED:
            raise SignatureError(
                f"{cls.__name__}: a field cannot be named {name!r}; it is a member of Prediction or Example"
            )


def _instruction(cls: type[Signature]) -> str:
    if cls.__doc__:
        return inspect.cleandoc(cls.__doc__)
    inherited = next((text for base in cls.__mro__[1:] if (text := getattr(base, "instruction", ""))), "")
    if inherited:
        return str(inherited)
    given = ", ".join(f"`{n}`" for n in cls.input_fields)
    wanted = ", ".join(f"`{n}`" for n in cls.output_fields)
    return f"Given the fields {given}, produce the fields {wanted}." if given else f"Produce the fields {wanted}."


def _input_problems(cls: type[Signature], error: ValidationError) -> str:
    problems = []
    for item in error.errors(include_url=False):
        name = ".".join(map(str, item["loc"]))
        if item["type"] == "missing":
            problems.append(f"input {name!r} is missing")
        elif item["type"] == "extra_forbidden":
            problems.append(f"there is no input {name!r}{nearest(name, cls.input_fields)}")
        else:
            problems.append(f"input {name!r}: {item['msg']}, got {shorten(repr(item['input']), 80)}")
    return f"{'; '.join(problems)}. The signature is {cls.describe()}"


def _definitions(cls: type[Signature]) -> dict[str, Any]:
    return {n: (i.rebuild_annotation(), i) for n, i in cls.model_fields.items()}


def _build(name: str, instruction: str | None, definitions: dict[str, Any]) -> type[Signature]:
    return create_model(name, __base__=Signature, __doc__=instruction, __module__=__name__, **definitions)


def _reduce(cls: type[Signature]) -> str | tuple[Any, ...]:
    """Pickle a class by name where it can be found under its name, else by its parts."""
    found: Any = sys.modules.get(cls.__module__)
    for step in cls.__qualname__.split("."):
        found = getattr(found, step, None)
    return cls.__qualname__ if found is cls else (_build, (cls.__name__, cls.instruction, _definitions(cls)))


copyreg.pickle(_SignatureType, _reduce)  # type: ignore[arg-type]  # typeshed forgets that a name may be returned


@lru_cache(maxsize=512)
def _from_string(text: str, instruction: str | None) -> type[Signature]:
    inputs, outputs = parse_signature(text)
    definitions: dict[str, Any] = {n: (t, Input()) for n, t in inputs.items()}
    definitions |= {n: (t, Output()) for n, t in outputs.items()}
    return _build("Signature", instruction, definitions)


def as_signature(spec: Any, instruction: str | None = None) -> type[Signature]:
    """A signature from a class or from a string such as ``"question, context: list[str] -> answer: float"``.

    Raises SignatureError.
    """
    if isinstance(spec, str):
        return _from_string(spec, instruction)
    if isinstance(spec, type) and issubclass(spec, Signature):
        return spec.with_instruction(instruction) if instruction is not None else spec
    raise SignatureError(f"a signature is a dn.Signature class or a string 'input -> output', got {spec!r}")
