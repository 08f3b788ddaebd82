"""Checks of a signature class, and its instruction."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Annotated, Any, ForwardRef, Literal, get_args, get_origin

from dspynb.conversation import History
from dspynb.errors import SignatureError
from dspynb.media.values import Medium
from dspynb.signatures.fields import Field
from dspynb.signatures.kinds import contains_class, is_history

if TYPE_CHECKING:
    from dspynb.signatures.signature import Signature

__all__ = ["check_fields", "check_types", "instruction_of"]

_RESERVED = frozenset({"to_dict", "with_meta", "self"})


def check_types(cls: type[Signature]) -> None:
    """Raise SignatureError for a field whose type is an unknown name."""
    for name, info in cls.model_fields.items():
        unknown = _unresolved_names(info.annotation)
        if unknown:
            raise SignatureError(
                f"{cls.__name__}: the type {unknown[0]!r} of the field {name!r} is not known here. Define or "
                "import it above the signature; a type that is only imported under TYPE_CHECKING cannot be used"
            )


def _unresolved_names(annotation: object) -> list[str]:
    """Return the names in a type that could not be resolved."""
    if isinstance(annotation, str):
        return [annotation]
    if isinstance(annotation, ForwardRef):
        return [annotation.__forward_arg__]
    origin = get_origin(annotation)
    if origin is Literal:
        return []
    parts = get_args(annotation)
    if origin is Annotated:
        parts = parts[:1]
    names = []
    for part in parts:
        names += _unresolved_names(part)
    return names


def check_fields(cls: type[Signature]) -> None:
    """Raise SignatureError for a signature without outputs, a reserved or repeated name, or a misplaced type."""
    if not cls.output_fields and not cls.__dict__.get("_is_base") and not _is_being_unpickled():
        raise SignatureError(f"{cls.__name__} has no output field; declare one with dn.Output()")
    fields = [*cls.input_fields.values(), *cls.output_fields.values()]
    for field in fields:
        if field.name in _RESERVED:
            raise SignatureError(
                f"{cls.__name__}: a field cannot be named {field.name!r}; it is a member of Prediction or Example"
            )
    for field in fields:
        _check_placement(cls.__name__, field)
    names: list[str] = []
    for field in fields:
        names.append(field.name)
        if field.alias not in (None, field.name):
            names.append(str(field.alias))
    for name in names:
        if names.count(name) > 1:
            raise SignatureError(
                f"{cls.__name__}: {name!r} names two fields; an alias must differ from the names of all other fields"
            )


def _is_being_unpickled() -> bool:
    """Whether cloudpickle is creating the class. It creates a class of a notebook without its fields, and sets these
    afterwards. Its function is looked for among the callers, since a class has no mark of it."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_name == "_make_skeleton_class":
            return True
    return False


def _check_placement(who: str, field: Field) -> None:
    """Raise SignatureError for an image, file or history that is an output, and for a history inside another type."""
    has_media = contains_class(field.annotation, Medium)
    has_history = contains_class(field.annotation, History)
    if field.kind == "output" and (has_media or has_history):
        what = "an Image or File" if has_media else "a History"
        raise SignatureError(f"{who}: {field.name!r} cannot be an output: {what} is given to a model, never by it")
    if has_history and not is_history(field.annotation):
        raise SignatureError(f"{who}: {field.name!r} is {field.type_text}; a History stands alone or with None")


def instruction_of(cls: Any) -> tuple[str, bool]:
    """Return the instruction of a signature class, and whether it was written by a person."""
    if cls.__doc__:
        return inspect.cleandoc(cls.__doc__), True
    for base in cls.__mro__[1:]:
        if getattr(base, "has_own_instruction", False):
            return str(base.instruction), True
    return _default_instruction(cls), False


def _default_instruction(cls: type[Signature]) -> str:
    inputs = ", ".join(f"`{name}`" for name, field in cls.input_fields.items() if not field.is_history)
    outputs = ", ".join(f"`{name}`" for name in cls.output_fields)
    if inputs:
        return f"Given the fields {inputs}, produce the fields {outputs}."
    return f"Produce the fields {outputs}."
