"""Types as texts that are the same in every process: what fingerprints are made of and saved states compare."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Iterable
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import BaseModel

__all__ = ["constraint_texts", "shape", "still"]

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def shape(annotation: Any, above: tuple[Any, ...] = ()) -> str:
    """A type with all that is inside it: the fields of models and dataclasses, the members of enums, constraints."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return ", ".join([shape(args[0], above), *constraint_texts(args[1:])])
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, args))}]"
    if origin is not None:
        name = "Union" if origin in (Union, types.UnionType) else getattr(origin, "__name__", str(origin))
        return f"{name}[{', '.join('...' if a is ... else shape(a, above) for a in args)}]"
    if annotation is None or annotation is types.NoneType:
        return "None"
    if not isinstance(annotation, type):
        return still(annotation).removeprefix("typing.")
    inner = "" if annotation in above else _inside(annotation, (*above, annotation))
    return annotation.__name__ + inner


def _inside(kind: type, above: tuple[Any, ...]) -> str:
    if issubclass(kind, Enum):
        return f"({', '.join(f'{m.name}={still(m.value)}' for m in kind)})"
    if issubclass(kind, BaseModel):
        fields = kind.model_fields.items()
        return "{" + ", ".join(f"{n}: {shape(_whole(i.annotation, i.metadata), above)}" for n, i in fields) + "}"
    if dataclasses.is_dataclass(kind) or is_typeddict(kind):
        try:
            hints = get_type_hints(kind, include_extras=True)
        except Exception:  # a name that cannot be resolved: as it is written
            hints = dict(kind.__annotations__)
        return "{" + ", ".join(f"{name}: {shape(hint, above)}" for name, hint in hints.items()) + "}"
    return ""


def _whole(annotation: Any, metadata: list[Any]) -> Any:
    return Annotated[(annotation, *metadata)] if metadata else annotation


def constraint_texts(metadata: Iterable[Any]) -> list[str]:
    """Constraints and validators as sorted texts: ``ge=1``, ``pattern='a'``, ``after module.function``."""
    return sorted(_constraint(item) for item in metadata)


def _constraint(item: Any) -> str:
    function = getattr(item, "func", None)
    if callable(function):
        return f"{type(item).__name__.removesuffix('Validator').lower()} {_function(function)}"
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        values: dict[str, Any] = {f.name: getattr(item, f.name) for f in dataclasses.fields(item)}
    else:
        values = dict(getattr(item, "__dict__", {}))
    known = {name: value for name, value in values.items() if value is not None}
    return ", ".join(f"{name}={still(value)}" for name, value in known.items()) or still(item)


def _function(function: Any) -> str:
    inner = getattr(function, "__wrapped__", function)
    path = f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', type(inner).__name__)}"
    return str(getattr(inner, "saved_as", path))  # a validator of ours that was moved keeps its name in saved states


def still(value: Any) -> str:
    """``repr`` without the addresses that differ between processes; sets in order."""
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(still, value))) + "}"
    return _ADDRESS.sub("", repr(value))
