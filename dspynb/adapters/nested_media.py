"""Images and files inside other values: the text of such a value, with each medium in its place."""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from dspynb.media.values import Medium
from dspynb.whole_text import whole_text

__all__ = ["text_and_media"]


def text_and_media(value: object) -> list[Any]:
    """The value as JSON, in pieces: texts, and the media that stand between them.

    Raises ValueError for a value that contains itself.
    """
    media: list[Medium] = []
    mark = secrets.token_hex(16)  # which no text of the value contains
    text = to_json(_with_places(value, media, mark), fallback=whole_text, inf_nan_mode="constants").decode()
    pieces: list[Any] = []
    end = 0
    for place in re.finditer(rf'"{mark} (\d+)"', text):
        pieces += [text[end : place.start()], media[int(place[1])]]
        end = place.end()
    return [*pieces, text[end:]]


def _with_places(value: Any, media: list[Medium], mark: str) -> Any:
    """The value as JSON types, with a mark in place of each medium, which is added to ``media``."""
    if isinstance(value, Medium):
        media.append(value)
        return f"{mark} {len(media) - 1}"
    if isinstance(value, BaseModel):
        return {name: _with_places(getattr(value, name), media, mark) for name in type(value).model_fields}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _with_places(getattr(value, field.name), media, mark) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(name): _with_places(item, media, mark) for name, item in value.items()}
    if isinstance(value, set | frozenset):
        value = sorted(value, key=repr)  # the same order in every process
    if isinstance(value, list | tuple):
        return [_with_places(item, media, mark) for item in value]
    return value
