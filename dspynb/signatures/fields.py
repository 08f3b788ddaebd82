"""Fields of a signature: Input and Output declarations, and what the rest of the house reads of them."""

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
from dspynb.signatures.kinds import choices_of, core_of, is_history, type_text
from dspynb.signatures.shapes import constraint_texts, shape, still

__all__ = ["Field", "Input", "Output", "changed", "definition_of", "field_of", "kind_of"]

_KIND = "dspynb"
_PLACE = "dspynb_place"
_KEPT = ("default_factory", "title", "examples", "discriminator", "deprecated", "validate_default")
_KEYWORDS = frozenset(inspect.signature(PydanticField).parameters) - {"extra"} | {"desc"}


class _QuietSchema(GenerateJsonSchema):
    """Defaults that JSON does not know are left out without a word."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012


def Input(*, desc: str | None = None, **constraints: Any) -> Any:  # noqa: N802  # reads as a declaration, like pydantic's Field
    """Declare an input field. ``desc`` tells the model what it is; other arguments are pydantic's ``Field`` ones.

    ``alias``: another name under which the value may be given (a column of a table, say), and the label in prompts that
    have labels. Code, and prompts that name fields, keep the field's own name.

    >>> class Topic(dn.Signature):
    ...     text: str = dn.Input(desc="a sentence of news", alias="headline")
    ...     topic: str = dn.Output()
    >>> ask = dn.Predict(Topic, lm=dn.ScriptedLM(["topic: sports"]))
    >>> ask.run_sync(headline="They won.").topic  # or text="They won."
    'sports'
    """
    return _declare("input", desc, constraints)


def Output(*, desc: str | None = None, **constraints: Any) -> Any:  # noqa: N802
    """Declare an output field. ``desc`` tells the model what it is; other arguments are pydantic's ``Field`` ones.

    ``alias`` is the label in prompts that have labels, and may stand for the name in demos.

    >>> class Rate(dn.Signature):
    ...     review: str = dn.Input()
    ...     stars: int = dn.Output(desc="how good it is", ge=1, le=5)
    >>> rate = dn.Predict(Rate, lm=dn.ScriptedLM(["stars: 9", "stars: 5"]))
    >>> rate.run_sync(review="Great!").stars  # 9 is refused, and the model asked once more
    5
    """
    return _declare("output", desc, constraints)


def _declare(kind: str, desc: str | None, constraints: dict[str, Any]) -> Any:
    _check_keywords(constraints)
    extra = {**(constraints.pop("json_schema_extra", None) or {}), _KIND: kind}
    return PydanticField(description=desc, json_schema_extra=extra, **constraints)


def _check_keywords(given: Iterable[str]) -> None:
    for name in given:
        if name not in _KEYWORDS:
            raise SignatureError(f"a field has no setting {name!r}.{nearest(name, _KEYWORDS)}")


def kind_of(name: str, info: FieldInfo) -> str:
    """``input`` or ``output``. Raises SignatureError for a field declared as neither."""
    extra = info.json_schema_extra
    kind = extra.get(_KIND) if isinstance(extra, dict) else None
    if kind not in ("input", "output"):
        raise SignatureError(f"field {name!r} must be declared with dn.Input(...) or dn.Output(...)")
    return str(kind)


@dataclass(frozen=True)
class Field:
    """One field of a signature: name, kind (input or output), type with constraints and validators, description."""

    name: str
    kind: str
    info: FieldInfo
    alias: str | None = None

    @property
    def place(self) -> str | None:
        """Where an augmentation put the field: before or after the signature's own outputs; None for those."""
        extra = self.info.json_schema_extra
        return str(extra[_PLACE]) if isinstance(extra, dict) and _PLACE in extra else None

    @property
    def desc(self) -> str | None:
        """What the field is, for the model."""
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
        """Validates and serialises values of the field, constraints included. Raises SignatureError for a type that
        pydantic cannot handle."""
        annotation: Any = self.annotation
        if self.info.metadata:
            annotation = Annotated[(annotation, *self.info.metadata)]
        try:
            return TypeAdapter(annotation)
        except Exception:
            return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))

    @cached_property
    def shape(self) -> str:
        """The type with all that is inside it, constraints and default: equal in every process for equal fields."""
        parts = [shape(self.annotation), *constraint_texts(self.info.metadata)]
        if not self.info.is_required():
            made = self.info.default_factory
            parts.append(f"default={still(self.info.default) if made is None else still(made)}")
        return ", ".join(parts)

    @cached_property
    def is_text(self) -> bool:
        """Whether values are plain text."""
        return self.annotation is str

    @cached_property
    def type_text(self) -> str:
        """The type as a reader would write it: ``str``, ``list[int]``, ``one of: 'a', 'b'``."""
        return type_text(self.annotation)

    @cached_property
    def schema(self) -> Mapping[str, Any]:
        """The JSON schema, constraints included; empty for a type that has none."""
        try:
            return self.adapter.json_schema(schema_generator=_QuietSchema)
        except Exception:
            return {}

    @cached_property
    def core(self) -> Any:
        """The type without ``None`` and constraints: ``int`` of ``int | None``; the whole where several are left."""
        return core_of(self.annotation)

    @cached_property
    def choices(self) -> tuple[tuple[Any, Any], ...]:
        """The choices of a Literal or Enum, each as it is written and as pydantic takes it; none for other types."""
        return choices_of(self.core)

    @cached_property
    def is_optional_text(self) -> bool:
        """Whether it is ``str | None``."""
        return self.core is str and self.takes_none

    @cached_property
    def takes_none(self) -> bool:
        """Whether None is a value of the field."""
        try:
            self.adapter.validate_python(None)
        except ValidationError:
            return False
        return True

    def checked(self, value: Any, where: str) -> Any:
        """The value, validated. Raises InputError that begins with ``where``."""
        try:
            return self.adapter.validate_python(value)
        except ValidationError as error:
            item = error.errors(include_url=False, include_context=False)[0]
            got = shorten(repr(item["input"])[:2000], 80)
            raise InputError(f"{where}: {self.name!r}: {item['msg']}, got {got}") from None

    @cached_property
    def is_history(self) -> bool:
        """Whether values are turns of a conversation, which are no part of a message."""
        return is_history(self.annotation)


def field_of(name: str, info: FieldInfo, rules: Iterable[Any] = ()) -> Field:
    """The field that a declaration makes. Raises SignatureError for what a signature cannot have."""
    kind = kind_of(name, info)
    alias = info.alias
    if (info.validation_alias, info.serialization_alias) != (alias, alias):
        raise SignatureError(f"field {name!r}: give the alias as alias='…'; other kinds of alias are not read")
    annotation = _annotated(info.annotation, [*info.metadata, *rules])
    return Field(name, kind, FieldInfo.from_annotated_attribute(annotation, _declaration(info)), alias)


def definition_of(field: Field, *, place: str | None = None) -> tuple[Any, Any]:
    """(annotation, declaration) of a field, from which pydantic makes it again, alias included."""
    extra = field.info.json_schema_extra if isinstance(field.info.json_schema_extra, dict) else {}
    marked = {**extra, _PLACE: place} if place else extra
    declared = _declaration(field.info, alias=field.alias, json_schema_extra=marked)
    return _annotated(field.annotation, field.info.metadata), declared


def changed(field: Field, annotation: Any, desc: Any, constraints: dict[str, Any]) -> tuple[Any, Any]:
    """The definition of a field with another type, description or constraints; those not named are kept.

    ``annotation`` and ``desc`` are ``...`` where they stay. A new type drops the old constraints and validators.
    """
    _check_keywords(constraints)
    given = PydanticField(**constraints)
    kinds = {type(item) for item in given.metadata}
    old = [m for m in field.info.metadata if type(m) not in kinds] if annotation is ... else []
    changes = {n: constraints[n] for n in (*_KEPT, "default", "alias", "json_schema_extra") if n in constraints}
    if desc is not ...:
        changes["description"] = desc
    whole = _annotated(field.annotation if annotation is ... else annotation, [*old, *given.metadata])
    return whole, _declaration(field.info, **{"alias": field.alias, **changes})


def _annotated(annotation: Any, metadata: Iterable[Any]) -> Any:
    items = tuple(metadata)
    return Annotated[(annotation, *items)] if items else annotation


def _declaration(info: FieldInfo, **changes: Any) -> Any:
    """A new declaration with what ``info`` declares, but for type, constraints and alias."""
    kept: dict[str, Any] = {name: value for name in _KEPT if (value := getattr(info, name, None)) is not None}
    if info.default is not PydanticUndefined:
        kept["default"] = info.default
    kept |= {"description": info.description, "json_schema_extra": info.json_schema_extra}
    return PydanticField(**{**kept, **changes})
