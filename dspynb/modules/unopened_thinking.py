"""The models whose replies begin within their thinking, because their chat template writes the opening tag."""

from __future__ import annotations

import contextlib
from weakref import WeakSet

__all__ = ["begins_within_thinking", "note_unopened_thinking"]

_models: WeakSet[object] = WeakSet()


def note_unopened_thinking(lm: object) -> None:
    """Note that a reply of this model had thinking without an opening tag. A stream of it then waits for the end of the
    thinking."""
    with contextlib.suppress(TypeError):  # a user's model that cannot be hashed or referenced weakly
        _models.add(lm)


def begins_within_thinking(lm: object) -> bool:
    """Whether a reply of this model has had thinking without an opening tag."""
    try:
        return lm in _models
    except TypeError:
        return False
