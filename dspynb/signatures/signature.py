"""Signature: a typed class whose docstring is the instruction. It can also be created from a string."""

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
from dspynb.missing import is_missing
from dspynb.signatures.caller_types import caller_names
from dspynb.signatures.checks import check_fields, check_types, instruction_of
from dspynb.signatures.fields import (
    Field,
    Input,
    Output,
    changed_definition,
    definition_of,
    field_of,
    input_definition,
    kind_of,
    untyped_input,
)
from dspynb.signatures.rules import validators_of
from dspynb.signatures.text import UNTYPED, UnknownType, parse_signature

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

__all__ = ["Signature", "as_signature", "build", "rebuild"]

T = TypeVar("T")
_rebuilding: ContextVar[bool] = ContextVar("dspynb_rebuilding", default=False)


_NAMES_OF_DSPY = {
    "instructions": "instruction",
    "with_instructions": "with_instruction",
    "with_updated_fields": "with_field",
    "equals": "same_as",
    "fields": "input_fields and output_fields",
}
"""What DSPy calls members of a signature."""


class _SignatureType(ModelMetaclass):
    """The metaclass of signatures. ``copyreg`` can register how such classes are pickled, a field needs no annotation,
    and names of DSPy's signatures work."""

    @classmethod
    def __prepare__(cls, *args: Any, **keywords: Any) -> dict[str, object]:
        return _Body(super().__prepare__(*args, **keywords))

    def __call__(cls, *args: Any, **values: Any) -> Any:  # noqa: N805  # a metaclass
        """``dn.Signature("question -> answer", "Be brief.")`` is the signature of the string."""
        if cls is Signature and args:
            return as_signature(*args, **values)
        return super().__call__(*args, **values)

    def __getattr__(cls, name: str) -> Any:  # noqa: N805
        if name not in _NAMES_OF_DSPY or sys._getframe(1).f_code.co_name == "collect_model_fields":
            # pydantic asks whether a field would hide the attribute of a base class.
            return super().__getattr__(name)  # type: ignore[misc]
        if name == "fields":
            return {**cls.input_fields, **cls.output_fields}
        return getattr(cls, _NAMES_OF_DSPY[name])


class _Body(dict[str, object]):
    """The body of a class while it runs. A field without an annotation is text; an annotation replaces that, since
    Python stores it after the value."""

    def __setitem__(self, name: str, value: object) -> None:
        super().__setitem__(name, value)
        if isinstance(value, FieldInfo):
            annotations: Any = self.setdefault("__annotations__", {})
            annotations.setdefault(name, str)


class Signature(BaseModel, metaclass=_SignatureType):
    """Base class of signatures: the typed inputs and outputs of a predictor. The docstring is the instruction.

    >>> class Caption(dn.Signature):
    ...     '''Write one sentence about the subject.'''
    ...     subject: str = dn.Input()
    ...     sentence: str = dn.Output(desc="one sentence")
    >>> list(Caption.input_fields), list(Caption.output_fields), Caption.instruction
    (['subject'], ['sentence'], 'Write one sentence about the subject.')

    Class attributes: ``input_fields`` and ``output_fields`` (name → Field, in order), ``instruction`` (str). Fields of
    base classes come first. Pydantic's ``@field_validator`` applies to inputs and to the replies of a model.

    Signatures are immutable: ``with_instruction``, ``prepend``, ``append``, ``delete`` and ``with_field`` return new
    classes. Raises SignatureError when the class is created without an output, with a field that is neither Input nor
    Output, or with a field of an unknown type.
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
        validators = validators_of(cls, kinds)
        fields = {name: field_of(name, info, validators[name]) for name, info in cls.model_fields.items()}
        cls.input_fields = {name: field for name, field in fields.items() if field.kind == "input"}
        cls.output_fields = {name: field for name, field in fields.items() if field.kind == "output"}
        if not _rebuilding.get():
            check_fields(cls)
        cls.instruction, cls.has_own_instruction = instruction_of(cls)
        cls.inputs_model = _inputs_model(cls)

    @classmethod
    def check_inputs(cls, values: Mapping[str, Any], who: str) -> dict[str, Any]:
        """Validate the inputs and add defaults. Raises InputError, which names missing, extra and mistyped inputs."""
        try:
            model = cls.inputs_model.model_validate(_without_missing(cls, values, who))
        except ValidationError as error:
            raise InputError(f"{who}: {_input_problems(cls, error)}") from None
        return {name: getattr(model, name) for name in cls.input_fields}

    @classmethod
    def by_name(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Replace aliases by the names of the fields. Returns the same object if there are no aliases in it."""
        fields = {**cls.input_fields, **cls.output_fields}
        names = {field.alias: name for name, field in fields.items() if field.alias is not None}
        if not any(key in names for key in values):
            return values
        return {names.get(key, key): value for key, value in values.items()}

    # ── derivation: every method returns a new signature ──────────────────────────────────────────────────────────
    @classmethod
    def with_instruction(cls, instruction: str) -> type[Signature]:
        """Return a copy of the signature with another instruction.

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
    def prepend(cls, name: str, field: FieldInfo, type: object = None) -> type[Signature]:  # noqa: A002  # the usual word
        """Return a copy with one more field, first among the inputs or outputs.

        ``field`` is ``dn.Input(...)`` or ``dn.Output(...)``; ``type`` is ``str`` by default. Raises SignatureError if
        there is a field of that name already.

        >>> class Topic(dn.Signature):
        ...     text: str = dn.Input()
        ...     topic: str = dn.Output()
        >>> Topic.prepend("reason", dn.Output(desc="in a few words")).describe()
        'text: str -> reason: str, topic: str'
        """
        return _derived(cls, {**_new_definition(cls, name, field, type), **_definitions(cls)})

    @classmethod
    def append(cls, name: str, field: FieldInfo, type: object = None) -> type[Signature]:  # noqa: A002
        """Return a copy with one more field, last among the inputs or outputs.

        ``field`` is ``dn.Input(...)`` or ``dn.Output(...)``; ``type`` is ``str`` by default. Raises SignatureError if
        there is a field of that name already.

        >>> class Topic(dn.Signature):
        ...     text: str = dn.Input()
        ...     topic: str = dn.Output()
        >>> Topic.append("tags", dn.Output(), list[str]).describe()
        'text: str -> topic: str, tags: list[str]'
        """
        return _derived(cls, {**_definitions(cls), **_new_definition(cls, name, field, type)})

    @classmethod
    def delete(cls, name: str) -> type[Signature]:
        """Return a copy without a field. Raises SignatureError for an unknown field, and for the last output.

        >>> dn.Predict("text, date -> topic").signature.delete("date").describe()
        'text: str -> topic: str'
        """
        _require_field(cls, name)
        definitions = _definitions(cls)
        del definitions[name]
        return _derived(cls, definitions)

    @classmethod
    def with_field(
        cls,
        name: str,
        field: FieldInfo | None = None,
        type: object = ...,  # noqa: A002
        *,
        desc: str | EllipsisType | None = ...,
        **constraints: Any,
    ) -> type[Signature]:
        """Return a copy in which one field has another type, description or constraints, or is replaced by ``field``.

        The position of the field stays, and so does everything that is not an argument; but a new type drops the old
        constraints and validators. Raises SignatureError for an unknown field.

        >>> class Topic(dn.Signature):
        ...     text: str = dn.Input()
        ...     topic: str = dn.Output()
        >>> Topic.with_field("topic", type=list[str], desc="one or two").describe()
        'text: str -> topic: list[str]'
        """
        old = _require_field(cls, name)
        if field is not None:
            if desc is not ... or constraints:
                raise SignatureError(
                    f"with_field({name!r}): pass either a new field, or the changes of the old one; not both"
                )
            definition: Any = (old.annotation if type is ... else type, field)
        else:
            definition = changed_definition(old, type, desc, constraints)
        return _derived(cls, {**_definitions(cls), name: definition})

    # ── description ───────────────────────────────────────────────────────────────────────────────────────────────
    @classmethod
    @lru_cache(maxsize=1024)
    def describe(cls) -> str:
        """Return the fields as one line, such as ``subject: str -> sentence: str``."""
        inputs = ", ".join(f"{name}: {field.type_text}" for name, field in cls.input_fields.items())
        outputs = ", ".join(f"{name}: {field.type_text}" for name, field in cls.output_fields.items())
        return f"{inputs} -> {outputs}"

    @classmethod
    def fingerprint(cls) -> str:
        """Return 16 hex digits that identify the signature, the same in every process.

        They depend on the instruction and on each field's name, kind, type with its nested types, constraints,
        validators, default, description and alias. They do not depend on hints.
        """
        fields = [
            [f.name, f.kind, f.shape, f.desc, f.alias]
            for f in (*cls.input_fields.values(), *cls.output_fields.values())
        ]
        return hashlib.sha256(json.dumps([cls.instruction, fields]).encode()).hexdigest()[:16]

    @classmethod
    def same_as(cls, other: object) -> bool:
        """Whether ``other`` is a signature with the same instruction and fields.

        ``==`` compares classes by identity, which caches and ``isinstance`` need.
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
    definitions: dict[str, Any] = {name: input_definition(field) for name, field in cls.input_fields.items()}
    return _create_model(f"{cls.__name__}Inputs", definitions, __config__=config)  # type: ignore[no-any-return]


def _create_model(name: str, definitions: dict[str, Any], **keywords: Any) -> Any:
    with warnings.catch_warnings():  # a field may hide a member of pydantic's, such as json or copy
        warnings.filterwarnings("ignore", "Field name", UserWarning)
        return create_model(name, **keywords, **definitions)


def _input_problems(cls: type[Signature], error: ValidationError) -> str:
    problems = []
    for item in error.errors(include_url=False):
        name = ".".join(map(str, item["loc"]))
        if item["type"] == "missing":
            problems.append(f"input {name!r} is missing")
        elif item["type"] == "extra_forbidden":
            field = cls.input_fields.get(name)
            if field:
                problems.append(f"input {name!r} is passed twice, by its name and by its alias {field.alias!r}")
            else:
                problems.append(f"there is no input {name!r}{_bracketed(nearest(name, cls.input_fields))}")
        else:
            problems.append(f"input {name!r}: {item['msg']}, got {shorten(repr(item['input']), 80)}")
    return f"{'; '.join(problems)}. The signature is {cls.describe()}"


def _without_missing(cls: type[Signature], values: Mapping[str, Any], who: str) -> Mapping[str, Any]:
    """The values with None for missing values of pandas, numpy and Arrow. Returns the same object if there are none.
    Raises InputError for a missing value of a field that does not take None."""
    missing: list[str] = []
    for name, value in values.items():
        if type(value) is not str and value is not None and is_missing(value):
            missing.append(name)
    if not missing:
        return values
    by_name = cls.by_name(dict.fromkeys(missing))
    for name in by_name:
        field = cls.input_fields.get(name)
        if field is not None and not field.takes_none:
            raise InputError(
                f"{who}: the value of input {name!r} is missing (NaN, NaT or NA); it takes {field.type_text}. "
                f"Leave such rows out, or declare it as {field.type_text} | None"
            )
    return {**values, **dict.fromkeys(missing)}


def _bracketed(text: str) -> str:
    return f" ({text.strip()})" if text else ""


def _definitions(cls: type[Signature]) -> dict[str, Any]:
    fields = {**cls.input_fields, **cls.output_fields}
    return {name: definition_of(field) for name, field in fields.items()}


def build(name: str, instruction: str | None, definitions: dict[str, Any]) -> type[Signature]:
    """Create a signature. ``definitions``: field name → (type, Input or Output). Raises SignatureError."""
    try:
        return _create_model(name, definitions, __base__=Signature, __doc__=instruction, __module__=__name__)  # type: ignore[no-any-return]
    except SignatureError:
        raise
    except Exception as error:
        raise SignatureError(f"{name}: {shorten(error, 300)}") from error


def _derived(cls: type[Signature], definitions: dict[str, Any]) -> type[Signature]:
    return build(cls.__name__, _own_instruction(cls), definitions)


def _own_instruction(cls: type[Signature]) -> str | None:
    return cls.instruction if cls.has_own_instruction else None


def _require_field(cls: type[Signature], name: str) -> Field:
    fields = {**cls.input_fields, **cls.output_fields}
    if name not in fields:
        raise SignatureError(f"{cls.__name__} has no field {name!r}.{nearest(str(name), fields)} {cls.describe()}")
    return fields[name]


def _new_definition(cls: type[Signature], name: str, field: object, annotation: object) -> dict[str, Any]:
    if name in cls.input_fields or name in cls.output_fields:
        raise SignatureError(f"{cls.__name__} has a field {name!r} already; change it with with_field({name!r}, …)")
    if not isinstance(field, FieldInfo):
        raise SignatureError(f"the field {name!r} must be dn.Input(...) or dn.Output(...), got {field!r}")
    return {name: (str if annotation is None else annotation, field)}


def _reduce(cls: type[Signature]) -> str | tuple[Any, ...]:
    """Pickle a class by its qualified name if it can be imported, else by its parts."""
    generic = cls.__pydantic_generic_metadata__
    if generic["origin"] is not None:
        return operator.getitem, (generic["origin"], generic["args"])
    imported: Any = sys.modules.get(cls.__module__)
    for attribute in cls.__qualname__.split("."):
        imported = getattr(imported, attribute, None)
    if imported is cls:
        return str(cls.__qualname__)
    return build, (cls.__name__, _own_instruction(cls), _definitions(cls))


def rebuild(make: Callable[..., T], args: tuple[Any, ...]) -> T:
    """Return ``make(*args)`` for a class from another process, whose fields are set later.

    The check that a signature has outputs is skipped for it.
    """
    token = _rebuilding.set(True)
    try:
        return make(*args)
    finally:
        _rebuilding.reset(token)


copyreg.pickle(_SignatureType, _reduce)  # type: ignore[arg-type]  # typeshed does not know that a name may be returned


@lru_cache(maxsize=512)
def _from_string(text: str, instruction: str | None) -> type[Signature]:
    return _from_types(*parse_signature(text), instruction)


def _from_callers_types(text: str, names: Mapping[str, Any], instruction: str | None) -> type[Signature]:
    try:
        return _from_types(*parse_signature(text, names), instruction)
    except UnknownType as error:
        raise SignatureError(str(error)) from None


def _from_types(inputs: Mapping[str, Any], outputs: Mapping[str, Any], instruction: str | None) -> type[Signature]:
    definitions: dict[str, Any] = {}
    for name, kind in inputs.items():
        definitions[name] = (str, untyped_input()) if kind is UNTYPED else (kind, Input())
    for name, kind in outputs.items():
        definitions[name] = (str if kind is UNTYPED else kind, Output())
    return build("Signature", instruction, definitions)


def as_signature(spec: object, instruction: str | None = None) -> type[Signature]:
    """Return a signature from a class, or from a string such as ``"question, context: list[str] -> answer: float"``.

    ``instruction`` replaces the instruction of the class. Raises SignatureError.
    """
    if isinstance(spec, str):
        try:
            return _from_string(spec, instruction)
        except UnknownType:
            return _from_callers_types(spec, caller_names(), instruction)
    if isinstance(spec, type) and issubclass(spec, Signature):
        parameters = spec.__pydantic_generic_metadata__["parameters"]
        if parameters:
            names = ", ".join(str(parameter) for parameter in parameters)
            raise SignatureError(f"{spec.__name__} is generic in {names}; choose a type, as in {spec.__name__}[str]")
        return spec if instruction is None else spec.with_instruction(instruction)
    received = f"{shorten(repr(spec), 200)}.{of_dspy(spec)}"
    raise SignatureError(f"a signature is a dn.Signature class or a string 'input -> output', got {received}")
