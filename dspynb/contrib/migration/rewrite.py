"""Rewriting of the source of a DSPy module: ``await`` before calls of programs, ``dn.X`` in place of ``dspy.X``."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from dspynb.contrib.migration.await_rules import MISSING, FunctionNode, ProgramNames, parents_of, root_names
from dspynb.contrib.migration.dspy_names import DSPY_NAMES
from dspynb.contrib.migration.names import dspy_class, kind_of
from dspynb.contrib.migration.source_edits import SourceEdits

__all__ = ["Rewriter"]

_KEYWORDS = {
    "ReAct": {"max_iters": "max_iterations"},
    "ProgramOfThought": {"max_iters": "max_iterations"},
    "BestOfN": {"N": "n", "reward_fn": "reward", "fail_count": "max_failures"},
    "Refine": {"N": "n", "reward_fn": "reward", "fail_count": "max_failures"},
    "MultiChainComparison": {"M": "m"},
    "Ensemble": {"reduce_fn": "reduce"},
    "InputField": {"prefix": "alias"},
    "OutputField": {"prefix": "alias"},
    "LM": {"num_retries": "retries"},
    "History": {"messages": "turns"},
}
"""Keyword arguments that have another name in dspynb, by the class of DSPy."""
_METHODS = {"toDict": "to_dict", "with_instructions": "with_instruction"}
_WAITING = ("gather", "create_task", "ensure_future", "wait_for", "as_completed", "wait", "run", "shield")
"""Functions that take coroutines, so that a call among their arguments is not awaited."""
_CALLS = frozenset({"acall", "aforward", "forward"})
"""Methods of a DSPy module that call it."""


class Rewriter:
    """Rewrites one class or function.

    ``namespace``: its global names. ``instance``: the module whose class it is; None for a class or function.
    ``awaited``: global functions and modules' names that are rewritten too, so that calls of them are awaited.
    ``run_code``: whether a ProgramOfThought may run code. ``problems`` has a sentence for each part that cannot be
    rewritten, with its line.
    """

    def __init__(
        self,
        source: str,
        namespace: Mapping[str, Any],
        instance: object = None,
        *,
        awaited: frozenset[str] = frozenset(),
        run_code: bool = False,
    ) -> None:
        self.problems: list[str] = []
        self._edits = SourceEdits(source)
        self._tree = ast.parse(source).body[0]
        self._parents = parents_of(self._tree)
        self._namespace = namespace
        self._names = ProgramNames(self._tree, namespace, instance)
        self._awaited = awaited
        self._run_code = run_code
        self._async: set[ast.AST] = set()  # the functions in it that are, or become, `async def`
        self._methods = _methods_of(self._tree)

    @property
    def global_names(self) -> set[str]:
        """The global names that the source reads."""
        return {node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name) and node.id in self._namespace}

    @property
    def is_async(self) -> bool:
        """Whether the source is of a function that becomes ``async def``."""
        return self._tree in self._async

    def rewrite(self) -> str:
        """The rewritten source."""
        self._find_async_functions()
        for function in self._async:
            if isinstance(function, ast.FunctionDef):
                self._make_async(function)
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call):
                self._edit_call(node)
            elif isinstance(node, ast.Name | ast.Attribute):
                self._edit_name(node)
            elif isinstance(node, ast.GeneratorExp) and self._has_await(node):
                self._make_list(node)
            elif isinstance(node, ast.Constant):
                self._edit_signature(node)
            elif isinstance(node, ast.Expr):
                self._edit_append(node)
        self._rename_only_aforward()
        return self._edits.result()

    def _find_async_functions(self) -> None:
        """The functions that await, and those that call them, until no more are found."""
        for node in ast.walk(self._tree):
            is_forward = isinstance(node, ast.FunctionDef) and node in self._methods.values() and node.name == "forward"
            if is_forward or isinstance(node, ast.AsyncFunctionDef):
                self._async.add(node)
        size = -1
        while size != len(self._async):
            size = len(self._async)
            for node in ast.walk(self._tree):
                function = self._names.function_of(node)
                if function is not None and isinstance(node, ast.Call) and self._is_awaited(node):
                    self._async.add(function)

    def _is_awaited(self, call: ast.Call) -> bool:
        """Whether ``await`` belongs before a call, or is there."""
        if isinstance(self._parents.get(call), ast.Await):
            return True
        function = call.func
        if isinstance(function, ast.Attribute) and function.attr == "acall":
            return False  # a coroutine that DSPy's user awaits elsewhere
        return self._calls_program(call) and not self._is_passed_to_waiting(call)

    def _calls_program(self, call: ast.Call) -> bool:
        function = call.func
        if self._names.is_program(function) or self._is_model(function):
            return True
        if isinstance(function, ast.Name):
            return function.id in self._awaited or self._local_function(function) in self._async
        if not isinstance(function, ast.Attribute):
            return False
        if function.attr in (*_CALLS, "batch") and self._names.is_program(function.value):
            return True
        is_own = root_names(function) == ["self", function.attr] or _is_super(function.value)
        if is_own and function.attr == "forward":
            return True
        return is_own and self._methods.get(function.attr) in self._async

    def _is_model(self, node: ast.AST) -> bool:
        return kind_of(self._names.value_of(node)) in ("LM", "BaseLM")

    def _local_function(self, name: ast.Name) -> ast.AST | None:
        """The function inside this source that a name stands for."""
        for node in ast.walk(self._tree):
            if isinstance(node, FunctionNode) and node.name == name.id and node not in self._methods.values():
                return node
        return None

    def _is_passed_to_waiting(self, call: ast.AST) -> bool:
        node = self._parents.get(call)
        while isinstance(
            node, ast.Starred | ast.ListComp | ast.GeneratorExp | ast.List | ast.Tuple | ast.comprehension
        ):
            node = self._parents.get(node)
        if not isinstance(node, ast.Call):
            return False
        names = root_names(node.func) or [""]
        return names[-1] in _WAITING and names[0] in ("asyncio", "anyio", *_WAITING)

    def _make_async(self, function: ast.FunctionDef) -> None:
        if function.name == "__init__":
            self._problem(function, "calls a program in __init__, which cannot await: call it in forward")
        elif any(_last_name(decorator) in ("property", "cached_property") for decorator in function.decorator_list):
            self._problem(function, f"{function.name} is a property that calls a program: make it a method")
        elif any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ast.walk(function)):
            self._problem(function, f"{function.name} yields: return the Prediction or a dict instead")
        self._edits.insert(self._edits.start(function), "async ")

    def _edit_call(self, call: ast.Call) -> None:
        self._rename_keywords(call)
        program_of_method = self._program_of_method(call.func)
        if program_of_method is not None and isinstance(call.func, ast.Attribute):
            self._edits.replace(self._edits.end(program_of_method), self._edits.end(call.func), "")
        if self._calls_program(call):
            self._name_arguments(call)
        if self._is_awaited(call) and not isinstance(self._parents.get(call), ast.Await):
            self._add_await(call)

    def _program_of_method(self, function: ast.AST) -> ast.AST | None:
        """The program that ``program.acall``, ``program.aforward`` and ``program.forward`` call."""
        if isinstance(function, ast.Attribute) and function.attr in _CALLS and not _is_super(function.value):
            is_self = root_names(function.value) == ["self"]
            if function.attr == "acall" or (self._names.is_program(function.value) and not is_self):
                return function.value
        return None

    def _add_await(self, call: ast.Call) -> None:
        if self._names.function_of(call) is None or self._is_in_lambda(call):
            self._problem(
                call, "a program is called in a lambda or outside of a function, where nothing can be awaited"
            )
            return
        parent = self._parents.get(call)
        first_text = isinstance(parent, ast.Subscript) and parent.value is call and self._is_model(call.func)
        if first_text and isinstance(parent, ast.Subscript):  # DSPy's models return a list of texts
            self._edits.wrap(call, "(await ", ").text")
            self._edits.replace(self._edits.end(call), self._edits.end(parent), "")
        elif isinstance(parent, ast.Attribute | ast.Subscript | ast.Call) and _is_head(parent, call):
            self._edits.wrap(call, "(await ", ")")
        else:
            self._edits.wrap(call, "await ", "")

    def _is_in_lambda(self, node: ast.AST) -> bool:
        parent = self._parents.get(node)
        while parent is not None and not isinstance(parent, FunctionNode):
            if isinstance(parent, ast.Lambda):
                return True
            parent = self._parents.get(parent)
        return False

    def _has_await(self, node: ast.AST) -> bool:
        return any(isinstance(part, ast.Call) and self._is_awaited(part) for part in ast.walk(node))

    def _make_list(self, generator: ast.GeneratorExp) -> None:
        """A generator that awaits cannot be passed to sum, max and so on, and a list can."""
        self._edits.insert(self._edits.start(generator) + 1, "[", outside=True)
        self._edits.insert(self._edits.end(generator) - 1, "]")

    def _name_arguments(self, call: ast.Call) -> None:
        """Programs take keyword arguments only."""
        if not call.args or self._is_model(call.func):
            return
        owner = self._program_of_method(call.func) or call.func
        program = self._names.value_of(owner)
        if isinstance(call.func, ast.Attribute) and not self._names.is_program(owner):
            return  # a method
        if isinstance(call.func, ast.Name) and call.func.id in self._awaited:
            return  # a function
        if isinstance(call.func, ast.Name) and self._local_function(call.func) is not None:
            return
        if program is MISSING or dspy_class(type(program)) is type(program) or not hasattr(program, "forward"):
            self._problem(call, "a program is called with positional arguments: name them")
            return
        names = list(inspect.signature(program.forward).parameters)
        for name, argument in zip(names, call.args, strict=False):
            if not isinstance(argument, ast.Starred):
                self._edits.insert(self._edits.start(argument), f"{name}=", outside=True)

    def _rename_keywords(self, call: ast.Call) -> None:
        value = self._names.value_of(call.func)
        name = getattr(value, "__name__", "")
        if not getattr(value, "__module__", "").startswith("dspy."):
            return
        for keyword in call.keywords:
            new = _KEYWORDS.get(name, {}).get(keyword.arg or "")
            if new is not None:
                start = self._edits.start(keyword)
                self._edits.replace(start, start + len(keyword.arg or ""), new)
        if name == "ProgramOfThought" and self._run_code:
            self._edits.insert(self._edits.end(call) - 1, ", run_code=True")

    def _edit_name(self, node: ast.Name | ast.Attribute) -> None:
        if isinstance(node, ast.Attribute) and node.attr in _METHODS and not self._names.is_program(node):
            end = self._edits.end(node)
            self._edits.replace(end - len(node.attr), end, _METHODS[node.attr])
            return
        if isinstance(self._parents.get(node), ast.Attribute) and self._is_dspy(node):
            return  # a part of a longer name
        name = self._dspy_name(node)
        if name is None:
            return
        ours, reason = DSPY_NAMES.get(name, (None, "it is not a public name of DSPy 3.4.1"))
        if ours is None:
            self._problem(node, f"dspy.{name} has no counterpart: {reason}")
            return
        self._edits.replace(self._edits.start(node), self._edits.end(node), f"dn.{ours}")

    def _edit_signature(self, node: ast.Constant) -> None:
        """``"history: dspy.History, question -> answer"`` has dspynb's types."""
        if isinstance(node.value, str) and "->" in node.value and "dspy." in node.value:
            self._edits.replace(
                self._edits.start(node), self._edits.end(node), self._edits.text(node).replace("dspy.", "")
            )

    def _edit_append(self, statement: ast.Expr) -> None:
        """``history.messages.append(turn)`` becomes ``history = history.append(turn)``: a History is immutable."""
        call = statement.value
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            return
        names = root_names(call.func)
        if names is not None and names[-2:] == ["messages", "append"] and len(call.args) == 1:
            history = ".".join(names[:-2])
            self._edits.replace(self._edits.start(call), self._edits.end(call.func), f"{history} = {history}.append")

    def _is_dspy(self, node: ast.AST) -> bool:
        value = self._names.value_of(node)
        return isinstance(value, ModuleType) and value.__name__.partition(".")[0] == "dspy"

    def _dspy_name(self, node: ast.Name | ast.Attribute) -> str | None:
        """The name in DSPY_NAMES of what an expression refers to; None if that is not DSPy's."""
        value = self._names.value_of(node)
        if isinstance(node, ast.Attribute):
            return node.attr if self._is_dspy(node.value) and not isinstance(value, ModuleType) else None
        if isinstance(node.ctx, ast.Store) or isinstance(value, ModuleType):
            return None
        is_definition = isinstance(value, type) or inspect.isfunction(value)
        if is_definition and value.__module__.partition(".")[0] == "dspy":
            return str(value.__name__)
        return None

    def _rename_only_aforward(self) -> None:
        method = self._methods.get("aforward")
        if method is not None and "forward" not in self._methods:
            start = self._edits.source.index("aforward", self._edits.start(method))
            self._edits.replace(start, start + len("aforward"), "forward")

    def _problem(self, node: Any, text: str) -> None:
        self.problems.append(f"line {node.lineno}: {text}")


def _methods_of(tree: ast.AST) -> dict[str, ast.AST]:
    if not isinstance(tree, ast.ClassDef):
        return {}
    return {node.name: node for node in tree.body if isinstance(node, FunctionNode)}


def _is_super(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


def _is_head(parent: ast.AST, call: ast.Call) -> bool:
    return (parent.func if isinstance(parent, ast.Call) else parent.value) is call  # type: ignore[attr-defined]


def _last_name(node: ast.AST) -> str:
    return (root_names(node) or [""])[-1]
