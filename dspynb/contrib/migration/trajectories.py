"""Conversion of the trajectories in the demos of a dspy.ReAct, so that they read as those of dn.ReAct do."""

from __future__ import annotations

import re
from typing import Any

from dspynb.agents.react import trajectory_text

__all__ = ["convert_trajectory"]

_FIELD_HEADER = re.compile(r"^\[\[ ## (thought|tool_name|tool_args|observation)_(\d+) ## \]\]$", re.MULTILINE)
_STEP_FIELDS = {"thought": "thought", "tool_name": "tool", "tool_args": "args", "observation": "observation"}
"""For the fields of a step in DSPy: the names in dspynb."""


def convert_trajectory(trajectory: object) -> Any:
    """The text of a trajectory with DSPy's fields (``thought_0``, …), as dn.ReAct writes it.

    A text of another form, and a value that is not text, is returned unchanged.
    """
    if not isinstance(trajectory, str):
        return trajectory
    preface, *parts = _FIELD_HEADER.split(trajectory)
    if preface.strip():
        return trajectory
    steps: dict[str, dict[str, str]] = {}
    for name, number, value in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        step = steps.setdefault(number, dict.fromkeys(_STEP_FIELDS.values(), ""))
        step[_STEP_FIELDS[name]] = value.strip()
    return trajectory_text(list(steps.values()))
