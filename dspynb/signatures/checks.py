"""What a class must be to be a signature, and its instruction."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, ForwardRef, Literal, get_args, get_origin

from dspynb.conversation import History
from dspynb.errors import SignatureError
from dspynb.media.values import Medium
from dspynb.signatures.fields import Field
from dspynb.signatures.kinds import holds, is_history, is_media

__all__ = ["check_fields", "check_types", "instruction_of"]

_RESERVED = frozenset({"meta", "items", "keys", "values", "get", "to_dict", "with_meta", "self"})


def check_types(cls: Any) -> None:
    """Raise SignatureError for a type that is a name nobody knows."""
    for name, info in cls.model_fields.items():
        unknown = next(iter(_forward(info.annotation)), None)
        if unknown is not None:
            raise SignatureError(
                f"{cls.__name__}: the type {unknown!r} of the field {name!r} is not known here. Define or "
                "import it above the signature; a type that is only imported under TYPE_CHECKING cannot be used"
            )


def _forward(annotation: Any) -> list[str]:
    """The names in a type that could not be resolved."""
    if isinstance(annotation, ForwardRef | str):
        return [annotation if isinstance(annotation, str) else annotation.__forward_arg__]
    if get_origin(annotation) is Literal:
        return []
    parts = get_args(annotation)
    return [name for part in (parts[:1] if get_origin(annotation) is Annotated else parts) for name in _forward(part)]


def check_fields(cls: Any) -> None:
    """Raise SignatureError for a signature without outputs, and for names that clash."""
    if not cls.output_fields and not cls.__dict__.get("_is_base"):
        raise SignatureError(f"{cls.__name__} has no output field; declare one with dn.Output()")
    fields = [*cls.input_fields.values(), *cls.output_fields.values()]
    for field in fields:
        if field.name in _RESERVED:
            raise SignatureError(
                f"{cls.__name__}: a field cannot be named {field.name!r}; it is a member of Prediction or Example"
            )
    for field in fields:
        _check_place(cls.__name__, field)
    named = [name for f in fields for name in {f.name, f.alias} - {None}]
    for name in named:
        if named.count(name) > 1:
            raise SignatureError(f"{cls.__name__}: {name!r} names two fields; aliases differ from other fields' names")


def _check_place(who: str, field: Field) -> None:
    """Images, files and histories are inputs, and stand where a message has a place for them."""
    media, turns = holds(field.annotation, Medium), holds(field.annotation, History)
    if field.kind == "output" and (media or turns):
        what = "an Image or File" if media else "a History"
        raise SignatureError(f"{who}: {field.name!r} cannot be an output: {what} is given to a model, never by it")
    if media and not is_media(field.annotation):
        raise SignatureError(
            f"{who}: {field.name!r} is {field.type_text}; an Image or File stands alone, in a list or with None"
        )
    if turns and not is_history(field.annotation):
        raise SignatureError(f"{who}: {field.name!r} is {field.type_text}; a History stands alone or with None")


def instruction_of(cls: Any) -> tuple[str, bool]:
    """The instruction, and whether somebody wrote it."""
    if cls.__doc__:
        return inspect.cleandoc(cls.__doc__), True
    for base in cls.__mro__[1:]:
        if getattr(base, "has_own_instruction", False):
            return str(base.instruction), True
    return _generated(cls), False


def _generated(cls: Any) -> str:
    given = ", ".join(f"`{n}`" for n, f in cls.input_fields.items() if not f.is_history)
    wanted = ", ".join(f"`{n}`" for n in cls.output_fields)
    return f"Given the fields {given}, produce the fields {wanted}." if given else f"Produce the fields {wanted}."
