"""Which class of DSPy an object is of, told by the names of classes: DSPy itself is never imported."""

from __future__ import annotations

from typing import Any

__all__ = ["dspy_class", "kind_of", "overrides", "shown"]


def dspy_class(kind: type) -> type | None:
    """The class, or the nearest of its bases, that is DSPy's own; None for a class that has none."""
    return next((base for base in kind.__mro__ if base.__module__.partition(".")[0] == "dspy"), None)


def kind_of(thing: Any) -> str | None:
    """The name of an object's nearest DSPy class, as ``Predict``; None for what is not DSPy's."""
    found = dspy_class(type(thing))
    return None if found is None else found.__name__


def overrides(thing: Any, *names: str) -> bool:
    """Whether a class of the user's, between the object and DSPy's class, has one of these methods of its own."""
    classes = type(thing).__mro__
    own = classes[: classes.index(dspy_class(type(thing)) or object)]
    return any(name in vars(cls) for cls in own for name in names)


def shown(thing: Any) -> str:
    """What an object is, for an error: ``dspy.LM``, ``a function``, ``Program (a dspy.Module)``."""
    kind = thing if isinstance(thing, type) else type(thing)
    what = "the class " if isinstance(thing, type) else ""
    found = dspy_class(kind)
    if found is None:
        return what + kind.__qualname__
    own = f"dspy.{found.__name__}"
    return what + (own if kind is found else f"{kind.__qualname__} (a {own})")
