"""Finding the predictors of a program, each under one dotted path."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspynb.modules.predict import Predict

__all__ = ["named_predictors"]


def named_predictors(root: Any) -> list[tuple[str, Predict]]:
    """(path, predictor) in the order of attributes; one that is shared stands once, under its first path.

    Paths: ``retrieve``, ``answer.predict``, ``steps[0]``, ``by['x']``; ``self`` for a bare predictor.
    """
    return [(path or "self", found) for path, found in _walk(root, "", set())]


def _walk(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Predict]]:
    parts = _parts(value)
    if parts is None or id(value) in seen:
        return
    seen.add(id(value))
    if getattr(value, "is_predictor", False):
        yield path, value
        return
    for step, part in parts:
        yield from _walk(part, _join(path, step), seen)


def _join(path: str, step: str) -> str:
    if not step or not path:
        return path + step
    return path + step if step.startswith("[") else f"{path}.{step}"


def _parts(value: Any) -> list[tuple[str, Any]] | None:
    """The places inside a value where predictors may be; None for a value that cannot hold any."""
    if hasattr(value, "submodules"):
        return list(value.submodules())
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", part) for key, part in value.items()]
    if isinstance(value, list | tuple):
        return [(f"[{i}]", part) for i, part in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value)]
    return None
