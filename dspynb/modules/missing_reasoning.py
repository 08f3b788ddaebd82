"""Warning of a model whose own reasoning was to be an output, and which returns none."""

from __future__ import annotations

from weakref import WeakSet

from dspynb.errors import NoReasoningWarning
from dspynb.scope.core import warn_user

__all__ = ["warn_of_missing_reasoning"]

_models: WeakSet[object] = WeakSet()


def warn_of_missing_reasoning(lm: object, name: str) -> None:
    """Warn once for each model that it has returned no reasoning. ``name``: of the model."""
    try:
        if lm in _models:
            return
        _models.add(lm)
    except TypeError:  # a user's model that cannot be hashed or referenced weakly
        pass
    message = (
        f"{name} returned no reasoning of its own, so that the output reasoning is empty; "
        "dn.ChainOfThought(…, native=False), or dn.LM(…, profile={'returns_reasoning': 'never'}), asks for written "
        "reasoning instead"
    )
    warn_user(message, NoReasoningWarning)
