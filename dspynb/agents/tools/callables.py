"""What can be called: functions, methods, partials, callable objects and Modules, and what they say of themselves."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from dspynb.agents.tools.docstrings import read_docstring
from dspynb.errors import ConfigurationError

__all__ = ["checked_function", "described", "is_async", "module_of", "name_of"]


def name_of(fn: Any) -> str:
    """Its name, or that of its type."""
    inner = fn.func if isinstance(fn, functools.partial) else fn
    return str(getattr(inner, "__name__", type(inner).__name__))


def checked_function(fn: Any) -> None:
    """Raises ConfigurationError for what cannot be a tool."""
    if isinstance(fn, type) or not callable(fn):
        what = f"the class {fn.__name__}" if isinstance(fn, type) else type(fn).__name__
        raise ConfigurationError(f"a tool is a function, a method, a callable object or a Module, got {what}")
    inner = fn.func if isinstance(fn, functools.partial) else fn
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise ConfigurationError(f"the tool {name_of(fn)} is a generator function; a tool returns its result")


def described(fn: Any) -> tuple[Callable[..., Any], str, dict[str, str]]:
    """(the function whose parameters it has, its description, those of the parameters)."""
    inner: Any = fn.func if isinstance(fn, functools.partial) else fn
    if inspect.isroutine(inner):
        return fn, *read_docstring(inner.__doc__)
    method = inner.forward if _is_module(inner) else type(inner).__call__
    if fields := getattr(getattr(inner, "signature", None), "input_fields", None):  # a predictor tells its inputs
        told = {name: field.desc for name, field in fields.items() if field.desc}
        return _with_parameters(fields), inner.signature.instruction, told
    told_of_method, parameters = read_docstring(method.__doc__)
    told_of_class, _ = read_docstring(type(inner).__doc__)
    return (method if inner is fn and _is_module(inner) else fn), told_of_method or told_of_class, parameters


def _with_parameters(fields: Mapping[str, Any]) -> Callable[..., Any]:
    def call(**inputs: Any) -> None: ...

    empty, kind = inspect.Parameter.empty, inspect.Parameter.KEYWORD_ONLY
    defaults = {name: empty if f.info.is_required() else f.info.get_default() for name, f in fields.items()}
    parameters = [inspect.Parameter(name, kind, default=default) for name, default in defaults.items()]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {name: field.info.rebuild_annotation() for name, field in fields.items()}
    return call


def _is_module(value: Any) -> bool:
    return hasattr(value, "named_predictors") and not isinstance(value, type)


def module_of(fn: Any) -> Any:
    """The Module that is called with the function, or None."""
    inner = fn.func if isinstance(fn, functools.partial) else fn
    owner = getattr(inner, "__self__", inner)
    return owner if hasattr(owner, "submodules") and not isinstance(owner, type) else None


def is_async(fn: Any) -> bool:
    """Whether calling it gives a coroutine."""
    inner = fn.func if isinstance(fn, functools.partial) else fn
    return inspect.iscoroutinefunction(inner if inspect.isroutine(inner) else type(inner).__call__)
