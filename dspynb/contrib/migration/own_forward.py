"""Conversion of a dspy.Module with a ``forward`` of its own: its class is rewritten, and its attributes converted."""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
from collections.abc import Callable, Mapping
from itertools import count
from types import FunctionType
from typing import Any

import dspynb
from dspynb.contrib.migration.await_rules import holds_programs, is_program, is_program_class, root_names
from dspynb.contrib.migration.names import dspy_class
from dspynb.contrib.migration.rewrite import Rewriter
from dspynb.contrib.migration.signature_source import signature_source
from dspynb.contrib.migration.signatures import is_signature
from dspynb.contrib.migration.source_edits import class_source, function_source
from dspynb.errors import InputError
from dspynb.modules.module import Module

__all__ = ["DSPY_ATTRIBUTES", "OwnForwards", "Source"]

DSPY_ATTRIBUTES = frozenset({"callbacks", "history", "_compiled", "_decision"})
"""Attributes that DSPy sets on every module."""
_numbers = count(1)


class Source(str):
    """The rewritten source of a program, to be edited. A notebook shows it as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class OwnForwards:
    """Rewrites the classes of one program, and the functions and signatures that they use.

    ``convert``: converts any object of DSPy. ``run_code``: whether a ProgramOfThought may run code.
    """

    def __init__(self, convert: Callable[[Any], Any], run_code: bool = False) -> None:
        self._convert = convert
        self._run_code = run_code
        self._classes: dict[type, type[Module]] = {}
        self._functions: dict[FunctionType, Callable[..., Any]] = {}
        self._objects: dict[int, tuple[Any, Any]] = {}  # original and converted object, by the id of the original
        self._parts: list[str] = []  # the sources, each after those that it uses
        self._problems: list[str] = []

    @property
    def has_source(self) -> bool:
        """Whether anything was rewritten."""
        return bool(self._parts)

    @property
    def source(self) -> Source:
        """The source of everything that was rewritten."""
        return Source("\n\n\n".join(["import dspynb as dn", *self._parts]))

    def program(self, dspy_module: Any) -> Module:
        """A module of the rewritten class, with the attributes of ``dspy_module``.

        Raises InputError, with the source as far as it is rewritten, if a part of it cannot be.
        """
        cls = self.module_class(type(dspy_module), dspy_module)
        self.check(type(dspy_module))
        program = cls.__new__(cls)
        self._objects[id(dspy_module)] = dspy_module, program
        for name, value in vars(dspy_module).items():
            if name not in DSPY_ATTRIBUTES:
                setattr(program, name, self.value(value))
        return program

    def check(self, cls: type) -> None:
        """Raise InputError if a part of the source cannot be rewritten."""
        if self._problems:
            problems = "\n".join(f"- {problem}" for problem in self._problems)
            raise InputError(
                f"{cls.__name__} cannot be converted as a whole:\n{problems}\nThe rest of it, for you to edit:\n\n"
                f'{self.source}\n\nThen load what it has learned: save it in DSPy with old.save("program.json"), and '
                f'here call new.load("program.json").'
            )

    def value(self, value: Any) -> Any:
        """A value with dspynb's objects in place of DSPy's. An object that is used twice is converted once."""
        if id(value) in self._objects:
            return self._objects[id(value)][1]
        if type(value) in (list, tuple, set):
            new = type(value)(self.value(item) for item in value)
        elif type(value) is dict:
            new = {key: self.value(item) for key, item in value.items()}
        elif is_program_class(value) and dspy_class(value) is not value:
            new = self.module_class(value)
        elif isinstance(value, FunctionType):
            new = self._function(value)
        elif is_signature(value) or (dspy_class(type(value)) is not None and not isinstance(value, type)):
            new = self._convert(value)
        else:
            return value
        self._objects[id(value)] = value, new
        return new

    def module_class(self, cls: type, instance: Any = None) -> type[Module]:
        """The rewritten class. ``instance``: a module of it, by which programs in its attributes are known."""
        if cls in self._classes:
            return self._classes[cls]
        self._classes[cls] = Module  # so that a class that uses itself ends
        methods = [value for value in vars(cls).values() if isinstance(value, FunctionType)]
        namespace = _namespace(methods)
        source = class_source(cls)
        namespace.update(_bases(source, cls))
        for base in cls.__bases__:
            if is_program_class(base) and dspy_class(base) is not base:
                self.module_class(base, instance)
        new = self._run(source, cls.__name__, namespace, methods, instance)
        if new is not None:
            self._classes[cls] = new
        return self._classes[cls]

    def _function(self, function: FunctionType) -> Callable[..., Any]:
        """The rewritten function; the function itself if it uses nothing of DSPy."""
        if function in self._functions:
            return self._functions[function]
        self._functions[function] = function
        namespace = _namespace([function])
        uses_dspy = any(_is_of_dspy(namespace.get(name)) for name in _names_in(function))
        source = function_source(function) if uses_dspy else ""
        if source:
            new = self._run(source, function.__name__, namespace, [function])
            self._functions[function] = new or function
        return self._functions[function]

    def _run(
        self, source: str, name: str, namespace: dict[str, Any], functions: list[FunctionType], instance: Any = None
    ) -> Any:
        """Rewrite a source, run it, and return what it defines; None if a part of it cannot be rewritten."""
        used = {used for function in functions for used in _names_in(function)} | _names_of(source)
        converted = {}
        for key in sorted(used & set(namespace)):
            value = namespace[key]
            if key != name and not _is_dspy_itself(value):
                converted[key] = self._used_value(key, value)
        awaited = frozenset(key for key, value in converted.items() if inspect.iscoroutinefunction(value))
        rewriter = Rewriter(source, namespace, instance, awaited=awaited, run_code=self._run_code)
        text = rewriter.rewrite()
        self._parts.append(text)
        self._problems += [f"{name}, {problem}" for problem in rewriter.problems]
        if rewriter.problems:
            return None
        filename = f"<from_dspy {next(_numbers)}: {name}>"
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
        scope = {**namespace, **converted, "dn": dspynb}
        scope.pop(name, None)
        exec(compile(text, filename, "exec", dont_inherit=True, flags=_future_flags(functions)), scope)  # noqa: S102
        return scope[name]

    def _used_value(self, name: str, value: Any) -> Any:
        """The value that a rewritten source gets for a global name."""
        new = self.value(value)
        if is_signature(value) and new is not value:
            self._add_part(signature_source(name, new))
        elif is_program(value):
            self._add_part(f"{name} = ...  # the converted {type(value).__name__}: dn.from_dspy({name})")
        return new

    def _add_part(self, text: str) -> None:
        if text not in self._parts:
            self._parts.append(text)


def _future_flags(functions: list[FunctionType]) -> int:
    """The compiler flag of ``from __future__ import annotations`` if the functions' module has it."""
    import __future__

    flag = __future__.annotations.compiler_flag
    return flag if any(function.__code__.co_flags & flag for function in functions) else 0


def _namespace(functions: list[FunctionType]) -> dict[str, Any]:
    """The global and enclosing names that functions see."""
    names: dict[str, Any] = {}
    for function in functions:
        names.update(function.__globals__)
    for function in functions:
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                names[name] = cell.cell_contents
            except ValueError:  # not yet set
                continue
    names.pop("__class__", None)
    return names


def _bases(source: str, cls: type) -> dict[str, Any]:
    """The names of the bases in a class statement, which none of its methods may use."""
    statement = ast.parse(source).body[0]
    names: dict[str, Any] = {}
    for expression, base in zip(getattr(statement, "bases", ()), cls.__bases__, strict=False):
        path = root_names(expression)
        if path is not None:
            names[path[0]] = base if len(path) == 1 else sys.modules[base.__module__.partition(".")[0]]
    return names


def _names_in(function: FunctionType) -> set[str]:
    code = function.__code__
    return {*code.co_names, *code.co_freevars}


def _names_of(source: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


def _is_dspy_itself(value: object) -> bool:
    """Whether a value is DSPy, one of its modules, or a class or function that is defined in it."""
    if inspect.ismodule(value):
        return True
    home = getattr(value, "__module__", None)
    is_definition = isinstance(value, type | FunctionType)
    return is_definition and isinstance(home, str) and home.partition(".")[0] == "dspy"


def _is_of_dspy(value: object) -> bool:
    """Whether a value is DSPy or one of its modules, classes, functions or objects."""
    if inspect.ismodule(value):
        return value.__name__.partition(".")[0] == "dspy"
    if isinstance(value, Mapping | list | tuple):
        return holds_programs(value)
    return _is_dspy_itself(value) or is_signature(value) or is_program_class(value) or is_program(value)
