"""What kind of type an annotation is: its text, what it holds, and where images and histories may stand."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from dspynb.conversation import History
from dspynb.media.values import Medium

__all__ = [
    "choices_of",
    "classes_in",
    "core_of",
    "holds",
    "is_history",
    "is_media",
    "members_of",
    "source_text",
    "type_text",
]


def members_of(annotation: Any) -> list[Any]:
    """The members of a union, else the type alone; without constraints."""
    if get_origin(annotation) is Annotated:
        return members_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for arg in get_args(annotation) for member in members_of(arg)]
    return [annotation]


def core_of(annotation: Any) -> Any:
    """The one type beside None; the annotation itself where there are several."""
    some = [member for member in members_of(annotation) if member not in (None, type(None))]
    return some[0] if len(some) == 1 else annotation


def choices_of(core: Any) -> tuple[tuple[Any, Any], ...]:
    """The choices of a Literal or Enum, each as it is written and as pydantic takes it; none for other types."""
    listed = core if isinstance(core, type) and issubclass(core, enum.Enum) else ()
    members = get_args(core) if get_origin(core) is Literal else listed
    return tuple((member.value if isinstance(member, enum.Enum) else member, member) for member in members)


def is_history(annotation: Any) -> bool:
    """Whether it is ``History`` or ``History | None``."""
    return core_of(annotation) is History


def is_media(annotation: Any) -> bool:
    """Whether it is images or files: one, a choice of them, or a list or tuple of them; or None."""
    some = [member for member in members_of(annotation) if member not in (None, type(None))]
    return bool(some) and all(_is_medium(member) or _is_medium_list(member) for member in some)


def _is_medium(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Medium)


def _is_medium_list(annotation: Any) -> bool:
    if get_origin(annotation) not in (list, tuple, Sequence):
        return False
    items = [arg for arg in get_args(annotation) if arg is not ...]
    return all(_is_medium(member) for arg in items for member in members_of(arg))


def holds(annotation: Any, wanted: type) -> bool:
    """Whether values of the type can hold an instance of the class ``wanted``, however deep."""
    return any(issubclass(found, wanted) for found in classes_in(annotation))


def classes_in(annotation: Any, seen: set[Any] | None = None) -> Iterator[type]:
    """The classes of which values of the type can hold instances, however deep. ``seen``: those already told."""
    seen = set() if seen is None else seen
    for arg in get_args(annotation) if get_origin(annotation) is not Literal else ():
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


def type_text(annotation: Any) -> str:
    """A type as a reader would write it: ``str``, ``list[int]``, ``one of: 'a', 'b'``."""
    if get_origin(annotation) is Literal:
        return "one of: " + ", ".join(repr(a.value if isinstance(a, enum.Enum) else a) for a in get_args(annotation))
    if isinstance(annotation, type) and hasattr(annotation, "__members__"):
        return "one of: " + ", ".join(repr(m.value) for m in annotation)  # type: ignore[attr-defined]
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return source_text(annotation)


def source_text(annotation: Any) -> str:
    """A type as Python shows it, as within another one: constraints and the modules of users' classes left out."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return source_text(args[0])
    if origin is None or origin is Literal or not args:
        return _class_text(annotation)
    if origin is Union:
        return _union(args)
    inner = [source_text(arg) for arg in args]
    return " | ".join(inner) if origin is types.UnionType else f"{_outer(annotation)}[{', '.join(inner)}]"


def _class_text(annotation: Any) -> str:
    if annotation is type(None):
        return "None"
    if not isinstance(annotation, type):
        return "..." if annotation is ... else str(annotation).replace("typing.", "")
    own = issubclass(annotation, BaseModel | enum.Enum | Medium | History) or is_dataclass(annotation)
    named = own or annotation.__module__ == "builtins" or hasattr(annotation, "__required_keys__")
    return annotation.__name__ if named else f"{annotation.__module__}.{annotation.__name__}"


def _union(args: Sequence[Any]) -> str:
    some = [source_text(arg) for arg in args if arg is not type(None)]
    if len(some) == 1:
        return f"Optional[{some[0]}]"
    return f"Union[{', '.join(some)}]" if len(some) == len(args) else f"Optional[Union[{', '.join(some)}]]"


def _outer(annotation: Any) -> str:
    origin: Any = typing.get_origin(annotation)
    shown = str(annotation).partition("[")[0].replace("typing.", "")
    return str(origin.__name__) if "." in shown and issubclass(origin, BaseModel) else shown
