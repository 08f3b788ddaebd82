"""Fields of a signature: Input and Output declarations, and what the rest of the house reads of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter
from pydantic import Field as PydanticField
from pydantic.fields import FieldInfo

from dspynb.errors import SignatureError

__all__ = ["Field", "Input", "Output", "kind_of"]

_KIND = "dspynb"


def Input(*, desc: str | None = None, **constraints: Any) -> Any:  # noqa: N802  # reads as a declaration, like pydantic's Field
    """Declare an input field. ``desc`` tells the model what it is; other arguments are pydantic's ``Field`` ones."""
    return _declare("input", desc, constraints)


def Output(*, desc: str | None = None, **constraints: Any) -> Any:  # noqa: N802
    """Declare an output field. ``desc`` tells the model what it is; other arguments are pydantic's ``Field`` ones."""
    return _declare("output", desc, constraints)


def _declare(kind: str, desc: str | None, constraints: dict[str, Any]) -> Any:
    extra = {**(constraints.pop("json_schema_extra", None) or {}), _KIND: kind}
    return PydanticField(description=desc, json_schema_extra=extra, **constraints)


def kind_of(name: str, info: FieldInfo) -> str:
    """``input`` or ``output``. Raises SignatureError for a field declared as neither."""
    extra = info.json_schema_extra
    kind = extra.get(_KIND) if isinstance(extra, dict) else None
    if kind not in ("input", "output"):
        raise SignatureError(f"field {name!r} must be declared with dn.Input(...) or dn.Output(...)")
    return str(kind)


@dataclass(frozen=True)
class Field:
    """One field of a signature: name, kind (input or output), type with constraints, description."""

    name: str
    kind: str
    info: FieldInfo

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
        """The name in words, capitalised: ``final_answer`` → ``Final answer``."""
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
    def is_text(self) -> bool:
        """Whether values are plain text."""
        return self.annotation is str

    @cached_property
    def type_text(self) -> str:
        """The type as a reader would write it: ``str``, ``list[int]``, ``one of: 'a', 'b'``."""
        return type_text(self.annotation)


def type_text(annotation: Any) -> str:
    """A type as a reader would write it."""
    if get_origin(annotation) is Literal:
        return "one of: " + ", ".join(repr(a) for a in get_args(annotation))
    if isinstance(annotation, type) and hasattr(annotation, "__members__"):
        return "one of: " + ", ".join(repr(m.value) for m in annotation)  # type: ignore[attr-defined]
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "")
