"""Fields of a signature: the declarations Input and Output, and the class Field that adapters and checks read."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic import Field as PydanticField
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind
from pydantic_core import PydanticUndefined

from dspynb.errors import InputError, SignatureError, nearest, shorten
from dspynb.media.values import Medium
from dspynb.signatures.kinds import choices_of, contains_class, core_of, is_history, is_media, members_of, type_text
from dspynb.signatures.shapes import constraint_texts, shape, stable_repr

__all__ = [
    "Field",
    "Input",
    "Output",
    "changed_definition",
    "definition_of",
    "field_of",
    "input_definition",
    "kind_of",
    "untyped_input",
]

_KIND = "dspynb"
_PLACE = "dspynb_place"
_UNTYPED = "dspynb_untyped"
_COPIED_SETTINGS = ("default_factory", "title", "examples", "discriminator", "deprecated", "validate_default")
_KEYWORDS = frozenset(inspect.signature(PydanticField).parameters) - {"extra"} | {"desc"}


class _QuietSchema(GenerateJsonSchema):
    """Leaves out defaults that JSON cannot represent, without a warning."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012


def Input(*, desc: str | None = None, **constraints: Any) -> Any:  # noqa: N802  # a declaration, like pydantic's Field
    """Declare an input field.

    ``desc`` describes the field to the model; other arguments are those of pydantic's ``Field``. ``alias`` is another
    name for the value in calls and rows, such as the column of a table, and the label in prompts that have labels. Code
    and prompts that name fields use the name of the field.

    >>> class Topic(dn.Signature):
    ...     text: str = dn.Input(desc="a sentence of news", alias="headline")
    ...     topic: str = dn.Output()
    >>> ask = dn.Predict(Topic, lm=dn.ScriptedLM(["topic: sports"]))
    >>> ask.run_sync(headline="They won.").topic  # or text="They won."
    'sports'
    """
    return _declare("input", desc, constraints)


def Output(*, desc: str | None = None, **constraints: Any) -> Any:  # noqa: N802
    """Declare an output field.

    ``desc`` describes the field to the model; other arguments are those of pydantic's ``Field``. ``alias`` is the label
    in prompts that have labels, and can replace the name in demos.

    >>> class Rate(dn.Signature):
    ...     review: str = dn.Input()
    ...     stars: int = dn.Output(desc="how good it is", ge=1, le=5)
    >>> rate = dn.Predict(Rate, lm=dn.ScriptedLM(["stars: 9", "stars: 5"]))
    >>> rate.run_sync(review="Great!").stars  # 9 is rejected, and the model tries again
    5
    """
    return _declare("output", desc, constraints)


def untyped_input() -> Any:
    """Declare an input that is text and takes any value, which is then written as text."""
    return _declare("input", None, {"json_schema_extra": {_UNTYPED: True}})


def _declare(kind: str, desc: str | None, constraints: dict[str, Any]) -> Any:
    _check_keywords(constraints)
    description = constraints.pop("description", None)
    if desc is None:
        desc = description
    extra = {**(constraints.pop("json_schema_extra", None) or {}), _KIND: kind}
    return PydanticField(description=desc, json_schema_extra=extra, **constraints)


def _check_keywords(names: Iterable[str]) -> None:
    for name in names:
        if name not in _KEYWORDS:
            raise SignatureError(f"a field has no setting {name!r}.{nearest(name, _KEYWORDS)}")


def kind_of(name: str, info: FieldInfo) -> str:
    """Return ``input`` or ``output``. Raises SignatureError for a field that is declared as neither."""
    extra = info.json_schema_extra
    kind = extra.get(_KIND) if isinstance(extra, dict) else None
    if kind not in ("input", "output"):
        raise SignatureError(f"field {name!r} must be declared with dn.Input(...) or dn.Output(...)")
    return str(kind)


@dataclass(frozen=True)
class Field:
    """One field of a signature: name, kind (input or output), type, constraints, validators and description."""

    name: str
    kind: str
    info: FieldInfo
    alias: str | None = None

    @property
    def place(self) -> str | None:
        """``before`` or ``after`` the signature's own outputs if an augmentation added the field, else None."""
        extra = self.info.json_schema_extra
        if isinstance(extra, dict) and _PLACE in extra:
            return str(extra[_PLACE])
        return None

    @property
    def is_untyped(self) -> bool:
        """Whether the field is an input of a signature string that names no type for it: it takes any value."""
        extra = self.info.json_schema_extra
        return isinstance(extra, dict) and bool(extra.get(_UNTYPED))

    @cached_property
    def may_be_left_out(self) -> bool:
        """Whether the field needs no value: it has a default, or ``None`` is written in its type."""
        return not self.info.is_required() or type(None) in members_of(self.annotation)

    def default(self) -> Any:
        """The value of a field that was left out: its default, or None."""
        return None if self.info.is_required() else self.info.get_default(call_default_factory=True)

    @property
    def desc(self) -> str | None:
        """The description of the field, for the model."""
        return self.info.description

    @property
    def annotation(self) -> Any:
        """The Python type, without constraints."""
        return self.info.annotation

    @cached_property
    def label(self) -> str:
        """The alias, or the name in words, capitalised: ``final_answer`` → ``Final answer``."""
        if self.alias is not None:
            return self.alias.strip().rstrip(":")
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", self.name).replace("_", " ").strip()
        return words[:1].upper() + words[1:]

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Validates and serializes values of the field, with its constraints.

        A type that pydantic does not know is checked with ``isinstance``.
        """
        annotation: Any = self.annotation
        if self.info.metadata:
            annotation = Annotated[(annotation, *self.info.metadata)]
        try:
            return TypeAdapter(annotation)
        except Exception:
            return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))

    @cached_property
    def shape(self) -> str:
        """The type with all nested types, constraints and default as a text. Equal fields have it in every process."""
        parts = [shape(self.annotation), *constraint_texts(self.info.metadata)]
        if not self.info.is_required():
            factory = self.info.default_factory
            default = self.info.default if factory is None else factory
            parts.append(f"default={stable_repr(default)}")
        return ", ".join(parts)

    @cached_property
    def is_text(self) -> bool:
        """Whether the type is ``str``."""
        return self.annotation is str

    @cached_property
    def type_text(self) -> str:
        """The type as a reader would write it: ``str``, ``list[int]``, ``one of: 'a', 'b'``."""
        return type_text(self.annotation)

    @cached_property
    def schema(self) -> Mapping[str, Any]:
        """The JSON schema with the constraints. Empty if the type has none."""
        try:
            return self.adapter.json_schema(schema_generator=_QuietSchema)
        except Exception:
            return {}

    @cached_property
    def core(self) -> Any:
        """The type without ``None`` and constraints: ``int`` for ``int | None``. Other unions are unchanged."""
        return core_of(self.annotation)

    @cached_property
    def choices(self) -> tuple[tuple[Any, Any], ...]:
        """The choices of a Literal or Enum as pairs (value as written, value of the field). Empty for other types."""
        return choices_of(self.core)

    @cached_property
    def is_optional_text(self) -> bool:
        """Whether the type is ``str | None``."""
        return self.core is str and self.takes_none

    @cached_property
    def takes_none(self) -> bool:
        """Whether None is a valid value of the field."""
        try:
            self.adapter.validate_python(None)
        except ValidationError:
            return False
        return True

    def checked(self, value: object, where: str) -> Any:
        """Validate a value and return it. Raises InputError, whose text begins with ``where``."""
        try:
            return self.adapter.validate_python(value)
        except ValidationError as error:
            item = error.errors(include_url=False, include_context=False)[0]
            got = shorten(repr(item["input"])[:2000], 80)
            raise InputError(f"{where}: {self.name!r}: {item['msg']}, got {got}") from None

    @cached_property
    def holds_media(self) -> bool:
        """Whether values of the field are other than media, and can contain an Image or File."""
        return contains_class(self.annotation, Medium) and not is_media(self.annotation)

    @cached_property
    def is_history(self) -> bool:
        """Whether the field is a History, whose turns become messages of their own."""
        return is_history(self.annotation)


def field_of(name: str, info: FieldInfo, validators: Iterable[Any] = ()) -> Field:
    """Create a field from its declaration. Raises SignatureError for an alias that is not simple."""
    kind = kind_of(name, info)
    alias = info.alias
    if (info.validation_alias, info.serialization_alias) != (alias, alias):
        raise SignatureError(f"field {name!r}: write the alias as alias='…'; other kinds of alias are not supported")
    annotation = _annotated(info.annotation, [*info.metadata, *validators])
    return Field(name, kind, FieldInfo.from_annotated_attribute(annotation, _declaration(info)), alias)


def definition_of(field: Field, *, place: str | None = None) -> tuple[Any, Any]:
    """Return (annotation, declaration) of a field, from which pydantic can create it again.

    ``place``: where an augmentation adds the field.
    """
    extra = field.info.json_schema_extra
    if not isinstance(extra, dict):
        extra = {}
    if place:
        extra = {**extra, _PLACE: place}
    declaration = _declaration(field.info, alias=field.alias, json_schema_extra=extra)
    return _annotated(field.annotation, field.info.metadata), declaration


def input_definition(field: Field) -> tuple[Any, Any]:
    """Return (annotation, declaration) of an input for the model that checks inputs: an optional input may be left out,
    and an untyped one takes any value."""
    annotation, declaration = definition_of(field)
    if field.is_untyped:
        annotation = Any
    if field.may_be_left_out and field.info.is_required():
        declaration = _declaration(field.info, alias=field.alias, default=None)
    return annotation, declaration


def changed_definition(field: Field, annotation: object, desc: object, constraints: dict[str, Any]) -> tuple[Any, Any]:
    """Return the definition of a field with another type, description or constraints; other constraints stay.

    ``annotation`` and ``desc`` are ``...`` if they do not change. A new type drops the old constraints and validators.
    """
    _check_keywords(constraints)
    new = PydanticField(**constraints)
    new_kinds = {type(item) for item in new.metadata}
    metadata: list[Any] = []
    if annotation is ...:
        annotation = field.annotation
        metadata += [item for item in field.info.metadata if type(item) not in new_kinds]
    metadata += new.metadata
    changes: dict[str, Any] = {"alias": field.alias}
    for name in (*_COPIED_SETTINGS, "default", "alias", "json_schema_extra"):
        if name in constraints:
            changes[name] = constraints[name]
    if desc is not ...:
        changes["description"] = desc
    return _annotated(annotation, metadata), _declaration(field.info, **changes)


def _annotated(annotation: object, metadata: Iterable[Any]) -> Any:
    items = tuple(metadata)
    return Annotated[(annotation, *items)] if items else annotation


def _declaration(info: FieldInfo, **changes: Any) -> Any:
    """Create a declaration like ``info``, with changes. The type and its constraints are not part of a declaration."""
    settings: dict[str, Any] = {}
    for name in _COPIED_SETTINGS:
        value = getattr(info, name, None)
        if value is not None:
            settings[name] = value
    if info.default is not PydanticUndefined:
        settings["default"] = info.default
    settings["description"] = info.description
    settings["json_schema_extra"] = info.json_schema_extra
    return PydanticField(**{**settings, **changes})
