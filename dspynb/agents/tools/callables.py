"""Inspects callables: functions, methods, partials, callable objects and Modules; their names and descriptions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from dspynb.agents.tools.docstrings import read_docstring
from dspynb.errors import ConfigurationError

__all__ = ["check_callable", "describe_callable", "is_async", "module_of", "name_of"]


def name_of(fn: object) -> str:
    """Return the name of a callable, or of its type."""
    inner = _without_partial(fn)
    return str(getattr(inner, "__name__", type(inner).__name__))


def check_callable(fn: object) -> None:
    """Raise ConfigurationError for an object that cannot be a tool."""
    if isinstance(fn, type):
        raise ConfigurationError(f"{_MUST_BE_CALLABLE}, got the class {fn.__name__}")
    if not callable(fn):
        raise ConfigurationError(f"{_MUST_BE_CALLABLE}, got {type(fn).__name__}")
    inner = _without_partial(fn)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise ConfigurationError(f"the tool {name_of(fn)} is a generator function; a tool returns its result")


_MUST_BE_CALLABLE = "a tool is a function, a method, a callable object or a Module"


def describe_callable(fn: Any) -> tuple[Callable[..., Any], str, dict[str, str]]:
    """Return (the function that has the parameters, the description, the descriptions of the parameters by name)."""
    inner: Any = _without_partial(fn)
    if inspect.isroutine(inner):
        return fn, *read_docstring(inner.__doc__)
    input_fields = getattr(getattr(inner, "signature", None), "input_fields", None)
    if input_fields:  # a predictor
        descriptions = {name: field.desc for name, field in input_fields.items() if field.desc}
        return _function_with(input_fields), inner.signature.instruction, descriptions
    is_module = _is_module(inner)
    method = inner.forward if is_module else type(inner).__call__
    method_description, parameters = read_docstring(method.__doc__)
    class_description, _ = read_docstring(type(inner).__doc__)
    function = method if is_module and inner is fn else fn
    return function, method_description or class_description, parameters


def _without_partial(fn: object) -> Any:
    return fn.func if isinstance(fn, functools.partial) else fn


def _function_with(fields: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a function whose keyword parameters are the fields. It is inspected only, never called."""

    def call(**inputs: Any) -> None: ...

    parameters = []
    for name, field in fields.items():
        default: Any = inspect.Parameter.empty
        if not field.info.is_required():
            default = field.info.get_default()
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default))
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {name: field.info.rebuild_annotation() for name, field in fields.items()}
    return call


def _is_module(value: object) -> bool:
    return hasattr(value, "named_predictors") and not isinstance(value, type)


def module_of(fn: object) -> Any:
    """Return the Module that the callable is or belongs to, or None."""
    inner = _without_partial(fn)
    owner = getattr(inner, "__self__", inner)
    if hasattr(owner, "submodules") and not isinstance(owner, type):
        return owner
    return None


def is_async(fn: object) -> bool:
    """Whether a call returns a coroutine."""
    inner = _without_partial(fn)
    if not inspect.isroutine(inner):
        inner = type(inner).__call__
    return inspect.iscoroutinefunction(inner)
