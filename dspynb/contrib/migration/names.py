"""Recognition of DSPy's objects by the names of their classes. DSPy itself is never imported."""

from __future__ import annotations

__all__ = ["describe_type", "dspy_class", "kind_of", "overrides"]


def dspy_class(cls: type) -> type | None:
    """The first class in the MRO of ``cls`` that is defined in DSPy; None if there is none."""
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] == "dspy":
            return base
    return None


def kind_of(value: object) -> str | None:
    """The name of a value's first DSPy class, such as ``Predict``; None if the value is not DSPy's."""
    base = dspy_class(type(value))
    return None if base is None else base.__name__


def overrides(value: object, *methods: str) -> bool:
    """Whether a user's subclass of a DSPy class defines one of these methods. ``value``: an object of the subclass."""
    classes = type(value).__mro__
    user_classes = classes[: classes.index(dspy_class(type(value)) or object)]
    return any(method in vars(cls) for cls in user_classes for method in methods)


def describe_type(value: object) -> str:
    """The type of a value, for errors: ``dspy.LM``, ``function``, ``Program (a dspy.Module)``, ``the class int``."""
    if isinstance(value, type):
        return f"the class {_class_text(value)}"
    return _class_text(type(value))


def _class_text(cls: type) -> str:
    base = dspy_class(cls)
    if base is None:
        return cls.__qualname__
    if cls is base:
        return f"dspy.{base.__name__}"
    return f"{cls.__qualname__} (a dspy.{base.__name__})"
