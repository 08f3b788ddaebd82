"""Questions about types: their text, their members and choices, the classes inside them, media and histories."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from dspynb.conversation import History
from dspynb.media.values import Medium

__all__ = [
    "choices_of",
    "classes_in",
    "contains_class",
    "core_of",
    "is_history",
    "is_media",
    "members_of",
    "source_text",
    "type_text",
]


def members_of(annotation: object) -> list[Any]:
    """Return the members of a union, or a list of the type itself. Constraints are removed."""
    if get_origin(annotation) is Annotated:
        return members_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        members = []
        for arg in get_args(annotation):
            members += members_of(arg)
        return members
    return [annotation]


def _members_without_none(annotation: object) -> list[Any]:
    return [member for member in members_of(annotation) if member not in (None, type(None))]


def core_of(annotation: object) -> Any:
    """Return the only type beside None, or the annotation itself if there are several."""
    members = _members_without_none(annotation)
    return members[0] if len(members) == 1 else annotation


def choices_of(core: object) -> tuple[tuple[Any, Any], ...]:
    """Return the choices of a Literal or Enum as pairs (value as written, value of the field); () for other types."""
    members: Iterable[Any] = ()
    if get_origin(core) is Literal:
        members = get_args(core)
    elif isinstance(core, type) and issubclass(core, enum.Enum):
        members = core
    return tuple((_written(member), member) for member in members)


def _written(choice: object) -> Any:
    """Return the value of an enum member, and any other choice unchanged."""
    return choice.value if isinstance(choice, enum.Enum) else choice


def is_history(annotation: object) -> bool:
    """Whether the type is ``History`` or ``History | None``."""
    return core_of(annotation) is History


def is_media(annotation: object) -> bool:
    """Whether values of the type are an image or file, a list or tuple of them, or None, and nothing else."""
    members = _members_without_none(annotation)
    return bool(members) and all(_is_medium(member) or _is_medium_list(member) for member in members)


def _is_medium(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Medium)


def _is_medium_list(annotation: object) -> bool:
    if get_origin(annotation) not in (list, tuple, Sequence):
        return False
    for item in get_args(annotation):
        if item is not ... and not all(_is_medium(member) for member in members_of(item)):
            return False
    return True


def contains_class(annotation: object, base: type) -> bool:
    """Whether values of the type can contain an instance of ``base``, at any depth."""
    return any(issubclass(cls, base) for cls in classes_in(annotation))


def classes_in(annotation: object, seen: set[Any] | None = None) -> Iterator[type]:
    """Yield the classes of which values of the type can contain instances, at any depth.

    ``seen``: the classes already yielded, which are skipped.
    """
    if seen is None:
        seen = set()
    if get_origin(annotation) is not Literal:
        for arg in get_args(annotation):
            yield from classes_in(arg, seen)
    if not isinstance(annotation, type) or get_args(annotation) or annotation in seen:
        return
    seen.add(annotation)
    yield annotation
    if issubclass(annotation, BaseModel):
        for info in annotation.model_fields.values():
            yield from classes_in(info.annotation, seen)
    elif is_dataclass(annotation) or hasattr(annotation, "__required_keys__"):
        for hint in vars(annotation).get("__annotations__", {}).values():
            yield from classes_in(hint, seen)


def type_text(annotation: object) -> str:
    """Return a type as text for prompts and messages: ``str``, ``list[int]``, ``one of: 'a', 'b'``."""
    if get_origin(annotation) is Literal:
        return "one of: " + ", ".join(repr(_written(choice)) for choice in get_args(annotation))
    if isinstance(annotation, type) and hasattr(annotation, "__members__"):
        return "one of: " + ", ".join(repr(member.value) for member in annotation)  # type: ignore[attr-defined]
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return source_text(annotation)


def source_text(annotation: object) -> str:
    """Return a type as Python writes it, without constraints and without the modules of users' classes."""
    origin = get_origin(annotation)
    args = get_args(annotation)
    if origin is Annotated:
        return source_text(args[0])
    if origin is None or origin is Literal or not args:
        return _class_text(annotation)
    if origin is Union:
        return _union_text(args)
    texts = [source_text(arg) for arg in args]
    if origin is types.UnionType:
        return " | ".join(texts)
    return f"{_generic_name(annotation)}[{', '.join(texts)}]"


def _class_text(annotation: object) -> str:
    if annotation is type(None):
        return "None"
    if annotation is ...:
        return "..."
    if not isinstance(annotation, type):
        return str(annotation).replace("typing.", "")
    is_model = issubclass(annotation, BaseModel | enum.Enum | Medium | History) or is_dataclass(annotation)
    is_typed_dict = hasattr(annotation, "__required_keys__")
    if is_model or is_typed_dict or annotation.__module__ == "builtins":
        return annotation.__name__
    return f"{annotation.__module__}.{annotation.__name__}"


def _union_text(args: Sequence[Any]) -> str:
    texts = [source_text(arg) for arg in args if arg is not type(None)]
    if len(texts) == 1:
        return f"Optional[{texts[0]}]"
    union = f"Union[{', '.join(texts)}]"
    if len(texts) < len(args):
        return f"Optional[{union}]"
    return union


def _generic_name(annotation: object) -> str:
    origin: Any = typing.get_origin(annotation)
    name = str(annotation).partition("[")[0].replace("typing.", "")
    if "." in name and issubclass(origin, BaseModel):
        return str(origin.__name__)
    return name
