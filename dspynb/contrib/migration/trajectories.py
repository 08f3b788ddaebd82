"""The trajectories in the demos of a dspy.ReAct, written as ours are: a demo shows what stands in its place later."""

from __future__ import annotations

import re
from typing import Any

from dspynb.agents.react import trajectory_text

__all__ = ["trajectory_of"]

_FIELD = re.compile(r"^\[\[ ## (thought|tool_name|tool_args|observation)_(\d+) ## \]\]$", re.MULTILINE)
_OURS = {"thought": "thought", "tool_name": "tool", "tool_args": "args", "observation": "observation"}


def trajectory_of(theirs: Any) -> Any:
    """DSPy's fields (``thought_0``, …) as our steps; a text of another form as it is."""
    if not isinstance(theirs, str):
        return theirs
    before, *found = _FIELD.split(theirs)
    if before.strip():
        return theirs
    steps: dict[str, dict[str, str]] = {}
    for name, number, value in zip(found[::3], found[1::3], found[2::3], strict=True):
        steps.setdefault(number, dict.fromkeys(_OURS.values(), ""))[_OURS[name]] = value.strip()
    return trajectory_text(list(steps.values()))
