"""Signature: a typed class whose docstring is the instruction; and the same from a string."""

from __future__ import annotations

import copyreg
import hashlib
import json
import operator
import sys
import warnings
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from types import EllipsisType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo

from dspynb.errors import InputError, SignatureError, nearest, of_dspy, shorten
from dspynb.signatures.checks import check_fields, check_types, instruction_of
from dspynb.signatures.fields import Field, Input, Output, changed, definition_of, field_of, kind_of
from dspynb.signatures.rules import rules_of
from dspynb.signatures.text import parse_signature

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

__all__ = ["Signature", "as_signature", "build", "rebuilt"]

T = TypeVar("T")
_rebuilding: ContextVar[bool] = ContextVar("dspynb_rebuilding", default=False)


class _SignatureType(ModelMetaclass):
    """A type of its own, so that pickling of derived classes can be told how."""


class Signature(BaseModel, metaclass=_SignatureType):
    """What a predictor takes and gives. The docstring is the instruction.

    >>> class Caption(dn.Signature):
    ...     '''Write one sentence about the subject.'''
    ...     subject: str = dn.Input()
    ...     sentence: str = dn.Output(desc="one sentence")
    >>> list(Caption.input_fields), list(Caption.output_fields), Caption.instruction
    (['subject'], ['sentence'], 'Write one sentence about the subject.')

    Class attributes: ``input_fields`` and ``output_fields`` (name → Field, in order), ``instruction`` (str). Fields of
    base classes come first. Pydantic's ``@field_validator`` holds for inputs and for what a model replies.

    Signatures do not change: ``with_instruction``, ``prepend``, ``append``, ``delete`` and ``with_field`` give new
    ones. Raises SignatureError when the class is made without an output, with a field that is neither Input nor Output,
    or with one of an unknown type.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, ignored_types=(property,), protected_namespaces=())

    input_fields: ClassVar[Mapping[str, Field]] = {}
    output_fields: ClassVar[Mapping[str, Field]] = {}
    instruction: ClassVar[str] = ""
    has_own_instruction: ClassVar[bool] = False
    inputs_model: ClassVar[type[BaseModel]]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        check_types(cls)
        kinds = {name: kind_of(name, info) for name, info in cls.model_fields.items()}
        rules = rules_of(cls, kinds)
        made = {name: field_of(name, info, rules[name]) for name, info in cls.model_fields.items()}
        cls.input_fields = {name: field for name, field in made.items() if field.kind == "input"}
        cls.output_fields = {name: field for name, field in made.items() if field.kind == "output"}
        if not _rebuilding.get():
            check_fields(cls)
        cls.instruction, cls.has_own_instruction = instruction_of(cls)
        cls.inputs_model = _inputs_model(cls)

    @classmethod
    def check_inputs(cls, values: Mapping[str, Any], who: str) -> dict[str, Any]:
        """Validated inputs, defaults filled in. Raises InputError naming what is missing, extra or mistyped."""
        try:
            model = cls.inputs_model.model_validate(values)
        except ValidationError as error:
            raise InputError(f"{who}: {_input_problems(cls, error)}") from None
        return {name: getattr(model, name) for name in cls.input_fields}

    @classmethod
    def by_name(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The values with aliases replaced by the fields' names; the same object where there are none."""
        fields = {**cls.input_fields, **cls.output_fields}
        names = {field.alias: name for name, field in fields.items() if field.alias is not None}
        return {names.get(k, k): v for k, v in values.items()} if any(k in names for k in values) else values

    # ── derivation: every method gives a new signature ────────────────────────────────────────────────────────────
    @classmethod
    def with_instruction(cls, instruction: str) -> type[Signature]:
        """The same signature with another instruction.

        >>> class Topic(dn.Signature):
        ...     '''Name the topic.'''
        ...     text: str = dn.Input()
        ...     topic: str = dn.Output()
        >>> Topic.with_instruction("Name the topic in one word.").instruction, Topic.instruction
        ('Name the topic in one word.', 'Name the topic.')
        """
        if not isinstance(instruction, str):
            raise SignatureError(f"an instruction is text, got {type(instruction).__name__}")
        return build(cls.__name__, instruction, _definitions(cls))

    @classmethod
    def prepend(cls, name: str, field: Any, type: Any = None) -> type[Signature]:  # noqa: A002  # the word of the field
        """With one more field, first among the inputs or outputs. ``field``: ``dn.Input(...)`` or ``dn.Output(...)``;
        ``type``: str where none is given. Raises SignatureError for a name that is taken.

        >>> class Topic(dn.Signature):
        ...     text: str = dn.Input()
        ...     topic: str = dn.Output()
        >>> Topic.prepend("reason", dn.Output(desc="in a few words")).describe()
        'text: str -> reason: str, topic: str'
        """
        return _derived(cls, {**_new(cls, name, field, type), **_definitions(cls)})

    @classmethod
    def append(cls, name: str, field: Any, type: Any = None) -> type[Signature]:  # noqa: A002
        """With one more field, last among the inputs or outputs. Raises SignatureError for a name that is taken.

        >>> class Topic(dn.Signature):
        ...     text: str = dn.Input()
        ...     topic: str = dn.Output()
        >>> Topic.append("tags", dn.Output(), list[str]).describe()
        'text: str -> topic: str, tags: list[str]'
        """
        return _derived(cls, {**_definitions(cls), **_new(cls, name, field, type)})

    @classmethod
    def delete(cls, name: str) -> type[Signature]:
        """Without a field. Raises SignatureError for an unknown one, and for the last output.

        >>> dn.Predict("text, date -> topic").signature.delete("date").describe()
        'text: str -> topic: str'
        """
        _known(cls, name)
        return _derived(cls, {n: d for n, d in _definitions(cls).items() if n != name})

    @classmethod
    def with_field(
        cls,
        name: str,
        field: Any = None,
        type: Any = ...,  # noqa: A002
        *,
        desc: str | EllipsisType | None = ...,
        **constraints: Any,
    ) -> type[Signature]:
        """With a field changed, in its place: its type, description, constraints; or replaced by a new ``field``.

        What is not named stays; a new type drops the old constraints and validators. Raises SignatureError for an
        unknown field.

        >>> class Topic(dn.Signature):
        ...     text: str = dn.Input()
        ...     topic: str = dn.Output()
        >>> Topic.with_field("topic", type=list[str], desc="one or two").describe()
        'text: str -> topic: list[str]'
        """
        old = _known(cls, name)
        if field is not None:
            if desc is not ... or constraints:
                raise SignatureError(
                    f"with_field({name!r}): give a new field, or what changes of the old one; not both"
                )
            definition: Any = (old.annotation if type is ... else type, field)
        else:
            definition = changed(old, type, desc, constraints)
        return _derived(cls, {**_definitions(cls), name: definition})

    # ── what it is ────────────────────────────────────────────────────────────────────────────────────────────────
    @classmethod
    @lru_cache(maxsize=1024)
    def describe(cls) -> str:
        """One line: ``subject: str -> sentence: str``."""
        sides = (cls.input_fields, cls.output_fields)
        return " -> ".join(", ".join(f"{n}: {f.type_text}" for n, f in side.items()) for side in sides)

    @classmethod
    def fingerprint(cls) -> str:
        """16 hex digits, the same in every process, that change with the instruction, and with a field's name, kind,
        type (with what is inside it), constraints, validators, default, description or alias. Holds no hint."""
        fields = [
            [f.name, f.kind, f.shape, f.desc, f.alias]
            for f in (*cls.input_fields.values(), *cls.output_fields.values())
        ]
        return hashlib.sha256(json.dumps([cls.instruction, fields]).encode()).hexdigest()[:16]

    @classmethod
    def same_as(cls, other: Any) -> bool:
        """Whether ``other`` is an equal signature: the same instruction and fields, however it was made.

        (``==`` of classes stays identity: caches and ``isinstance`` rely on it.)
        """
        return isinstance(other, type) and issubclass(other, Signature) and cls.fingerprint() == other.fingerprint()


def _inputs_model(cls: type[Signature]) -> type[BaseModel]:
    config = ConfigDict(
        arbitrary_types_allowed=True,
        extra="forbid",
        protected_namespaces=(),
        populate_by_name=True,
        loc_by_alias=False,
    )
    definitions: dict[str, Any] = {name: definition_of(field) for name, field in cls.input_fields.items()}
    return _made(f"{cls.__name__}Inputs", definitions, __config__=config)  # type: ignore[no-any-return]


def _made(name: str, definitions: dict[str, Any], **keywords: Any) -> Any:
    with warnings.catch_warnings():  # a field may be called json or copy: that it hides a member of pydantic's is meant
        warnings.filterwarnings("ignore", "Field name", UserWarning)
        return create_model(name, **keywords, **definitions)


def _input_problems(cls: type[Signature], error: ValidationError) -> str:
    problems = []
    for item in error.errors(include_url=False):
        name = ".".join(map(str, item["loc"]))
        if item["type"] == "missing":
            problems.append(f"input {name!r} is missing")
        elif item["type"] == "extra_forbidden":
            twice = cls.input_fields.get(name)
            problems.append(
                f"input {name!r} is given twice, by its name and by its alias {twice.alias!r}"
                if twice
                else f"there is no input {name!r}{_bracketed(nearest(name, cls.input_fields))}"
            )
        else:
            problems.append(f"input {name!r}: {item['msg']}, got {shorten(repr(item['input']), 80)}")
    return f"{'; '.join(problems)}. The signature is {cls.describe()}"


def _bracketed(text: str) -> str:
    return f" ({text.strip()})" if text else ""


def _definitions(cls: type[Signature]) -> dict[str, Any]:
    return {n: definition_of(f) for n, f in {**cls.input_fields, **cls.output_fields}.items()}


def build(name: str, instruction: str | None, definitions: dict[str, Any]) -> type[Signature]:
    """A signature from field name → (type, Input or Output). Raises SignatureError."""
    try:
        return _made(name, definitions, __base__=Signature, __doc__=instruction, __module__=__name__)  # type: ignore[no-any-return]
    except SignatureError:
        raise
    except Exception as error:
        raise SignatureError(f"{name}: {shorten(error, 300)}") from error


def _derived(cls: type[Signature], definitions: dict[str, Any]) -> type[Signature]:
    return build(cls.__name__, cls.instruction if cls.has_own_instruction else None, definitions)


def _known(cls: type[Signature], name: str) -> Field:
    fields = {**cls.input_fields, **cls.output_fields}
    if name not in fields:
        raise SignatureError(f"{cls.__name__} has no field {name!r}.{nearest(str(name), fields)} {cls.describe()}")
    return fields[name]


def _new(cls: type[Signature], name: str, field: Any, annotation: Any) -> dict[str, Any]:
    if name in {**cls.input_fields, **cls.output_fields}:
        raise SignatureError(f"{cls.__name__} has a field {name!r} already; change it with with_field({name!r}, …)")
    if not isinstance(field, FieldInfo):
        raise SignatureError(f"the field {name!r} must be dn.Input(...) or dn.Output(...), got {field!r}")
    return {name: (str if annotation is None else annotation, field)}


def _reduce(cls: type[Signature]) -> str | tuple[Any, ...]:
    """Pickle a class by name where it can be found under its name, else by its parts."""
    generic = cls.__pydantic_generic_metadata__
    if generic["origin"] is not None:
        return operator.getitem, (generic["origin"], generic["args"])
    found: Any = sys.modules.get(cls.__module__)
    for step in cls.__qualname__.split("."):
        found = getattr(found, step, None)
    told = cls.instruction if cls.has_own_instruction else None
    return cls.__qualname__ if found is cls else (build, (cls.__name__, told, _definitions(cls)))


def rebuilt(make: Callable[..., T], args: tuple[Any, ...]) -> T:
    """``make(*args)``, where what is made is a class that arrives from another process, its fields after itself: not
    checked before they are there."""
    token = _rebuilding.set(True)
    try:
        return make(*args)
    finally:
        _rebuilding.reset(token)


copyreg.pickle(_SignatureType, _reduce)  # type: ignore[arg-type]  # typeshed forgets that a name may be returned


@lru_cache(maxsize=512)
def _from_string(text: str, instruction: str | None) -> type[Signature]:
    inputs, outputs = parse_signature(text)
    definitions: dict[str, Any] = {n: (t, Input()) for n, t in inputs.items()}
    definitions |= {n: (t, Output()) for n, t in outputs.items()}
    return build("Signature", instruction, definitions)


def as_signature(spec: Any, instruction: str | None = None) -> type[Signature]:
    """A signature from a class or from a string such as ``"question, context: list[str] -> answer: float"``.

    Raises SignatureError.
    """
    if isinstance(spec, str):
        return _from_string(spec, instruction)
    if isinstance(spec, type) and issubclass(spec, Signature):
        if parameters := spec.__pydantic_generic_metadata__["parameters"]:
            which = ", ".join(str(p) for p in parameters)
            raise SignatureError(f"{spec.__name__} is generic in {which}; say which type: {spec.__name__}[str]")
        return spec.with_instruction(instruction) if instruction is not None else spec
    got = f"{shorten(repr(spec), 200)}.{of_dspy(spec)}"
    raise SignatureError(f"a signature is a dn.Signature class or a string 'input -> output', got {got}")
