"""Functions as programs: any function of the inputs, with the predictors that it uses."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any, Self, cast

from dspynb.errors import ConfigurationError, InputError, of_dspy
from dspynb.modules.copying import copy_value
from dspynb.modules.discovery import named_predictors
from dspynb.modules.module import Module
from dspynb.running.aio.threads import in_thread

__all__ = ["FunctionProgram", "as_program", "checked_program"]


class FunctionProgram(Module):
    """A function as a program; ``dn.as_program(fn)`` creates one.

    Its predictors are those in variables of the function: of the functions around it, of its module, and of functions
    of its module that it calls. A copy of the program has copies of these, and a function that uses them.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self.parts = dict(_parts_of(fn))

    async def forward(self, **inputs: Any) -> Any:
        """What the function returns; awaited if it can be. A sync function runs in a thread, where it may wait."""
        if _is_async(self.fn):
            return await self.fn(**inputs)
        value = await in_thread(functools.partial(self.fn, **inputs), f"dspynb {self._title()}")
        if inspect.isawaitable(value):
            value = await value
        return value

    def submodules(self) -> Iterator[tuple[str, Any]]:
        """The values of the function's variables that are or contain predictors."""
        yield from self.parts.items()

    def input_names(self) -> Mapping[str, bool] | None:
        """The parameters of the function, and whether each is required; None where they are unknown."""
        try:
            parameters = list(inspect.signature(self.fn).parameters.values())
        except (TypeError, ValueError):  # some builtins have no signature
            return None
        if any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters):
            return None
        return {p.name: p.default is p.empty for p in parameters}

    def _title(self) -> str:
        return _name_of(self.fn)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.parts = {name: copy_value(part, memo) for name, part in self.parts.items()}
        copies = {id(part): new.parts[name] for name, part in self.parts.items()}
        new.fn = _with_copies(self.fn, copies, memo)
        return new


def as_program(fn: Callable[..., Any] | Module) -> Module:
    """Make a program of a function: call it, run it over rows with ``batch``, or save what its predictors have learned.

    ``fn``: a function of the inputs, sync or async, which may return anything; a program is returned unchanged. Where
    a program is expected (``dn.evaluate``, ``dn.BestOfN``, optimizers …), a function may be passed as it is. The
    predictors in its variables are parts of the program. A sync function runs in a thread of its own, so it may wait,
    and call predictors with ``run_sync``. Raises InputError for a value that is no function.

    >>> ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> async def shout(question):
    ...     return (await ask(question=question)).answer + "!"
    >>> program = dn.as_program(shout)
    >>> dn.run_sync(lambda: program.batch([{"question": "2+2?"}])), program.named_predictors()[0][0]
    (['4!'], 'ask')
    """
    return checked_program(fn)


def checked_program(program: object) -> Module:
    """Return a value as a program. Raises InputError for one that is neither a program nor a function."""
    if isinstance(program, Module):
        return program
    dspy_advice = of_dspy(program)
    is_function = not isinstance(program, type) and not hasattr(program, "complete")
    if not callable(program) or not is_function or dspy_advice:
        raise InputError(
            f"the program must be a dn.Module such as dn.Predict(...), or a function, got {type(program).__name__}."
            f"{dspy_advice}"
        )
    if inspect.isasyncgenfunction(program) or inspect.isgeneratorfunction(program):
        raise ConfigurationError(f"the function {_name_of(program)} has a `yield`; return the result instead")
    return FunctionProgram(program)


def _name_of(fn: object) -> str:
    return str(getattr(fn, "__name__", type(fn).__name__))


def _is_async(fn: Any) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(type(fn), "__call__", None))  # noqa: B004  # not to test it


def _module_of(fn: Any) -> str | None:
    """The module in which a function is defined; of a partial or a method, that of its function."""
    while isinstance(fn, functools.partial | MethodType):
        fn = fn.func if isinstance(fn, functools.partial) else fn.__func__
    return getattr(fn, "__module__", None)


# ── the variables of a function ───────────────────────────────────────────────────────────────────────────────────
def _parts_of(fn: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """The variables whose values are or contain predictors, by name. Of two with one name, the second has the name of
    its function before it."""
    names: dict[str, Any] = {}
    for function, name, value in _variables(fn, _module_of(fn), {}):
        if any(value is known for known in names.values()) or not named_predictors({"": value}):
            continue
        unique = f"{function}.{name}" if name in names else name
        names[unique] = value
        yield unique, value


def _variables(fn: Any, module: str | None, visited: dict[int, Any]) -> Iterator[tuple[str, str, Any]]:
    """(function, name, value) of the variables of a function, and of the functions that it uses from its module."""
    if id(fn) in visited:
        return
    visited[id(fn)] = fn
    title = _name_of(fn)
    for name, value in _own_variables(fn):
        if isinstance(value, FunctionType | MethodType | functools.partial):
            if _module_of(value) == module:
                yield from _variables(value, module, visited)
        elif not callable(value) or isinstance(value, Module):
            yield title, name, value


def _own_variables(fn: Any) -> list[tuple[str, Any]]:
    if isinstance(fn, functools.partial):
        return [("function", fn.func), ("args", fn.args), *fn.keywords.items()]
    if isinstance(fn, MethodType):
        return [("self", fn.__self__), ("function", fn.__func__)]
    if not isinstance(fn, FunctionType):  # an object with __call__
        return list(getattr(fn, "__dict__", {}).items())
    variables = [("function", fn.__wrapped__)] if hasattr(fn, "__wrapped__") else []
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        if not _is_empty(cell):
            variables.append((name, cell.cell_contents))
    variables += [(name, fn.__globals__[name]) for name in _global_names(fn.__code__) if name in fn.__globals__]
    variables += [("default", value) for value in fn.__defaults__ or ()]
    return variables + list((fn.__kwdefaults__ or {}).items())


def _global_names(code: CodeType) -> list[str]:
    """The names that a function and the functions inside it look up."""
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names += _global_names(constant)
    return list(dict.fromkeys(names))


def _is_empty(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  # raises for a variable that has no value yet
    except ValueError:
        return True
    return False


# ── copies ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _with_copies(fn: Any, copies: Mapping[int, Any], memo: dict[int, Any]) -> Any:
    """The function with the copies in the place of the values of its variables; itself where it uses none of them."""
    if id(fn) in copies:
        return copies[id(fn)]
    if id(fn) in memo:
        return memo[id(fn)]
    memo[id(fn)] = fn  # for functions that call each other
    if isinstance(fn, functools.partial):
        arguments = [_with_copies(value, copies, memo) for value in fn.args]
        keywords = {name: _with_copies(value, copies, memo) for name, value in fn.keywords.items()}
        new: Any = functools.partial(_with_copies(fn.func, copies, memo), *arguments, **keywords)
    elif isinstance(fn, MethodType):
        new = MethodType(_with_copies(fn.__func__, copies, memo), copies.get(id(fn.__self__), fn.__self__))
    elif isinstance(fn, FunctionType):
        new = _copied_function(fn, copies, memo)
    elif callable(fn) and any(id(value) in copies for _, value in _own_variables(fn)):
        new = copy_value(fn, memo)
    else:
        new = fn
    memo[id(fn)] = new
    return new


def _copied_function(fn: FunctionType, copies: Mapping[int, Any], memo: dict[int, Any]) -> FunctionType:
    """A function with other variables; itself where none of them differs. Variables of the module that the function
    looks up later are those of the time of the copy."""
    closure = [_copied_cell(cell, copies, memo) for cell in fn.__closure__ or ()]
    values = {name: fn.__globals__[name] for name in _global_names(fn.__code__) if name in fn.__globals__}
    changed = {name: _copied(value, copies, memo) for name, value in values.items()}
    changed = {name: value for name, value in changed.items() if value is not values[name]}
    defaults = tuple(_copied(value, copies, memo) for value in fn.__defaults__ or ())
    keywords = {name: _copied(value, copies, memo) for name, value in (fn.__kwdefaults__ or {}).items()}
    same_cells = all(new is old for new, old in zip(closure, fn.__closure__ or (), strict=True))
    same_defaults = all(new is old for new, old in zip(defaults, fn.__defaults__ or (), strict=True))
    same_keywords = all(value is (fn.__kwdefaults__ or {})[name] for name, value in keywords.items())
    if same_cells and same_defaults and same_keywords and not changed:
        return fn
    variables = {**fn.__globals__, **changed} if changed else fn.__globals__
    new: Any = FunctionType(fn.__code__, variables, fn.__name__, defaults or None, tuple(closure) or None)
    functools.update_wrapper(new, fn)
    new.__kwdefaults__ = keywords or None
    if hasattr(fn, "__wrapped__"):
        new.__wrapped__ = _copied(fn.__wrapped__, copies, memo)
    else:
        del new.__wrapped__
    return cast("FunctionType", new)


def _copied(value: Any, copies: Mapping[int, Any], memo: dict[int, Any]) -> Any:
    if id(value) in copies:
        return copies[id(value)]
    if isinstance(value, FunctionType | MethodType | functools.partial):
        return _with_copies(value, copies, memo)
    return value


def _copied_cell(cell: CellType, copies: Mapping[int, Any], memo: dict[int, Any]) -> CellType:
    if _is_empty(cell):
        return cell
    new = _copied(cell.cell_contents, copies, memo)
    return cell if new is cell.cell_contents else CellType(new)
