"""Texts of types that are the same in every process. Fingerprints are hashes of them; saved states compare them."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Iterable
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import BaseModel

__all__ = ["constraint_texts", "shape", "stable_repr"]

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def shape(annotation: object, above: tuple[Any, ...] = ()) -> str:
    """Return the text of a type with all nested types: fields of models, members of enums, constraints.

    ``above``: the classes that contain this type; a class inside itself is written as its name only.
    """
    origin = get_origin(annotation)
    args = get_args(annotation)
    if origin is Annotated:
        return ", ".join([shape(args[0], above), *constraint_texts(args[1:])])
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, args))}]"
    if origin is not None:
        is_union = origin in (Union, types.UnionType)
        name = "Union" if is_union else getattr(origin, "__name__", str(origin))
        texts = ["..." if arg is ... else shape(arg, above) for arg in args]
        return f"{name}[{', '.join(texts)}]"
    if annotation is None or annotation is types.NoneType:
        return "None"
    if not isinstance(annotation, type):
        return stable_repr(annotation).removeprefix("typing.")
    body = "" if annotation in above else _body(annotation, (*above, annotation))
    return annotation.__name__ + body


def _body(kind: type, above: tuple[Any, ...]) -> str:
    if issubclass(kind, Enum):
        members = [f"{member.name}={stable_repr(member.value)}" for member in kind]
        return f"({', '.join(members)})"
    if issubclass(kind, BaseModel):
        types_by_name = {name: _annotated(info.annotation, info.metadata) for name, info in kind.model_fields.items()}
    elif dataclasses.is_dataclass(kind) or is_typeddict(kind):
        try:
            types_by_name = get_type_hints(kind, include_extras=True)
        except Exception:  # a name cannot be resolved: use the annotations as they are written
            types_by_name = dict(kind.__annotations__)
    else:
        return ""
    fields = [f"{name}: {shape(annotation, above)}" for name, annotation in types_by_name.items()]
    return "{" + ", ".join(fields) + "}"


def _annotated(annotation: object, metadata: list[Any]) -> Any:
    return Annotated[(annotation, *metadata)] if metadata else annotation


def constraint_texts(metadata: Iterable[Any]) -> list[str]:
    """Return constraints and validators as sorted texts: ``ge=1``, ``pattern='a'``, ``after module.function``."""
    return sorted(_constraint(item) for item in metadata)


def _constraint(item: object) -> str:
    function = getattr(item, "func", None)
    if callable(function):
        return f"{type(item).__name__.removesuffix('Validator').lower()} {_function(function)}"
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        values: dict[str, Any] = {f.name: getattr(item, f.name) for f in dataclasses.fields(item)}
    else:
        values = dict(getattr(item, "__dict__", {}))
    settings = [f"{name}={stable_repr(value)}" for name, value in values.items() if value is not None]
    return ", ".join(settings) if settings else stable_repr(item)


def _function(function: object) -> str:
    inner = getattr(function, "__wrapped__", function)
    path = f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', type(inner).__name__)}"
    return str(getattr(inner, "saved_as", path))  # a moved validator keeps its old name in saved states


def stable_repr(value: object) -> str:
    """Return the ``repr`` without addresses, which differ between processes, and with sets sorted."""
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(stable_repr, value))) + "}"
    return _ADDRESS.sub("", repr(value))
