"""Conversion of a dspy.Signature class to a dn.Signature class."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Collection
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic_core import PydanticUndefined

from dspynb.contrib.migration.names import dspy_class
from dspynb.conversation import History
from dspynb.errors import SignatureError
from dspynb.media.values import File, Image
from dspynb.signatures.fields import Input, Output
from dspynb.signatures.kinds import classes_in
from dspynb.signatures.signature import Signature, build

__all__ = ["comparison_fields", "convert_signature", "is_signature"]

_COUNTERPARTS: dict[str, Any] = {"Image": Image, "File": File, "History": History, "Reasoning": str}
"""For types of DSPy: the type to use."""


def is_signature(value: object) -> bool:
    """Whether a value is a dspy.Signature class."""
    if not isinstance(value, type):
        return False
    return any(base is dspy_class(base) and base.__name__ == "Signature" for base in value.__mro__)


def convert_signature(dspy_signature: Any, without: Collection[str] = ()) -> type[Signature]:
    """A dn.Signature with the same instruction and fields, which keep order, type, constraints, default, description.

    ``without``: names of fields to leave out. Raises SignatureError for a type of DSPy that has no counterpart.
    """
    inputs = {name: field for name, field in dspy_signature.input_fields.items() if name not in without}
    outputs = {name: field for name, field in dspy_signature.output_fields.items() if name not in without}
    aliases = _aliases({**inputs, **outputs})
    definitions = {}
    for fields, declare in ((inputs, Input), (outputs, Output)):
        for name, field in fields.items():
            definitions[name] = _definition(dspy_signature, name, field, declare, aliases.get(name))
    class_name = dspy_signature.__name__
    if class_name == "StringSignature":
        class_name = "Signature"
    signature = build(class_name, None, definitions)
    if signature.instruction == dspy_signature.instructions:
        return signature
    return build(class_name, dspy_signature.instructions, definitions)


def comparison_fields(comparison: Any) -> list[str]:
    """The fields that a dspy.MultiChainComparison adds to the signature of its task."""
    return ["rationale", *(f"reasoning_attempt_{number}" for number in range(1, comparison.M + 1))]


def _definition(dspy_signature: Any, name: str, field: Any, declare: Any, alias: str | None) -> tuple[Any, Any]:
    """The type of a field and its declaration by ``declare``: Input or Output."""
    annotation = _convert_type(field.annotation, f"{dspy_signature.__name__}: the field {name!r}")
    if field.metadata:
        annotation = Annotated[(annotation, *field.metadata)]
    options: dict[str, Any] = {}
    if alias is not None:
        options["alias"] = alias
    if field.default_factory is not None:
        options["default_factory"] = field.default_factory
    elif field.default is not PydanticUndefined:
        options["default"] = field.default
    desc = field.json_schema_extra.get("desc")
    if desc in ("", f"${{{name}}}"):  # what DSPy writes if the field has no description
        desc = None
    return annotation, declare(desc=desc, **options)


def _aliases(fields: dict[str, Any]) -> dict[str, str]:
    """The prefixes that the user wrote, as aliases of fields. DSPy compares saved programs by them.

    A prefix that is also the name or prefix of another field is left out.
    """
    prefixes = {}
    for name, field in fields.items():
        prefix = str(field.json_schema_extra.get("prefix") or "").partition(":")[0].strip()
        if _letters(prefix) != _letters(name):
            prefixes[name] = prefix
    labels = [*fields, *prefixes.values()]
    return {name: prefix for name, prefix in prefixes.items() if prefix and labels.count(prefix) == 1}


def _letters(text: str) -> str:
    return re.sub(r"\W|_", "", text).casefold()


def _convert_type(annotation: Any, owner: str) -> Any:
    """The type with dspynb's types in the place of DSPy's, at any depth. ``owner``: whose type it is, for errors.

    Raises SignatureError for a type of DSPy that has no counterpart.
    """
    origin = get_origin(annotation)
    args = get_args(annotation)
    if origin is Literal:
        return annotation
    if not args:
        return _convert_class(annotation, owner) if isinstance(annotation, type) else annotation
    if origin is Annotated:
        return Annotated[(_convert_type(args[0], owner), *args[1:])]
    converted_args = tuple(arg if arg is ... or isinstance(arg, list) else _convert_type(arg, owner) for arg in args)
    if converted_args == args:
        return annotation
    if origin in (Union, UnionType):
        return functools.reduce(operator.or_, converted_args)
    return origin[converted_args]


def _convert_class(cls: type, owner: str) -> Any:
    for inner in classes_in(cls):
        base = dspy_class(inner)
        if base is None:
            continue
        if inner is cls and base.__name__ in _COUNTERPARTS:
            return _COUNTERPARTS[base.__name__]
        place = "" if inner is cls else f" inside {cls.__name__}"
        known = ", ".join(f"dspy.{name}" for name in _COUNTERPARTS)
        raise SignatureError(
            f"{owner} has the type {inner.__name__} of DSPy{place}, which has no counterpart here. Use a type that "
            f"pydantic knows, or, for a field, its list or with None: {known}"
        )
    return cls
