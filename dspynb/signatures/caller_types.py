"""Types that a signature in a string may name because the code that wrote the string knows them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

__all__ = ["caller_names"]


def caller_names() -> Mapping[str, Any]:
    """The names that the calling code knows: its local and global ones, at the time of the call.

    The caller is the innermost function outside of dspynb.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "dspynb":
        frame = frame.f_back
    names: dict[str, Any] = {}
    if frame is None:
        return names
    names.update(frame.f_globals)
    outer: FrameType | None = frame
    functions: list[FrameType] = []
    while outer is not None and outer.f_globals is frame.f_globals:  # a function may be defined inside another one
        functions.append(outer)
        outer = outer.f_back
    for function in reversed(functions):
        names.update(function.f_locals)
    return names
