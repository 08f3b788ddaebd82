"""Which expressions of a DSPy module are programs, so that calls of them are awaited."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from dspynb.contrib.migration.names import dspy_class

__all__ = ["MISSING", "ProgramNames", "holds_programs", "is_program", "is_program_class", "parents_of", "root_names"]

MISSING = object()
"""The value of an expression that is not known before the program runs."""
_ITERATORS = frozenset({"enumerate", "zip", "reversed", "list", "tuple", "iter", "next", "sorted", "getattr", "dict"})
_VIEWS = frozenset({"values", "items", "get", "named_sub_modules", "predictors", "named_predictors", "deepcopy"})
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def is_program_class(value: object) -> bool:
    """Whether a value is dspy.Module, or a class derived from it."""
    return isinstance(value, type) and dspy_class(value) is not None and hasattr(value, "named_predictors")


def is_program(value: object) -> bool:
    """Whether a value is a module of DSPy."""
    return is_program_class(type(value))


def holds_programs(value: object) -> bool:
    """Whether a value is a module of DSPy, or a container with one."""
    if isinstance(value, list | tuple | set):
        return any(holds_programs(item) for item in value)
    if isinstance(value, Mapping) and dspy_class(type(value)) is None:
        return any(holds_programs(item) for item in value.values())
    return is_program(value)


def parents_of(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    """The parent of every node below ``tree``."""
    return {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}


def root_names(node: ast.AST) -> list[str] | None:
    """``["self", "answer", "predict"]`` for ``self.answer.predict``; None for other expressions."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        head = root_names(node.value)
        return None if head is None else [*head, node.attr]
    return None


class ProgramNames:
    """The names in one source that stand for programs.

    ``namespace``: the global names of the source. ``instance``: the object whose class it is; None if there is none.
    ``tree``: its syntax tree; attributes of ``self`` and local names to which it assigns programs are found there.
    """

    def __init__(self, tree: ast.AST, namespace: Mapping[str, Any], instance: object = None) -> None:
        self.namespace = namespace
        self.instance = instance
        self.attributes: set[str] = set()  # of self, with programs in them
        self.locals: dict[ast.AST, set[str]] = {}  # by the function that has them
        self._parents = parents_of(tree)
        if instance is not None:
            self.attributes |= {name for name, value in vars(instance).items() if holds_programs(value)}
        self._collect(tree)

    def function_of(self, node: ast.AST) -> FunctionNode | None:
        """The innermost function around a node."""
        parent = self._parents.get(node)
        while parent is not None and not isinstance(parent, FunctionNode):
            parent = self._parents.get(parent)
        return parent

    def value_of(self, node: ast.AST) -> Any:
        """The object that a chain of names stands for; MISSING where that is not known."""
        names = root_names(node)
        if names is None:
            return self._item(node) if isinstance(node, ast.Subscript) else MISSING
        if names[0] == "self" and self.instance is not None:
            value = self.instance
        elif self._is_local(node, names[0]):
            return MISSING
        else:
            value = self.namespace.get(names[0], MISSING)
        for name in names[1:]:
            value = _attribute(value, name)
        return value

    def is_program(self, node: ast.AST) -> bool:
        """Whether an expression is a program, or a container of programs."""
        value = self.value_of(node)
        if value is not MISSING and holds_programs(value):
            return True
        if isinstance(node, ast.Name):
            return self._is_program_name(node)
        if isinstance(node, ast.Attribute):
            return isinstance(node.value, ast.Name) and node.value.id == "self" and node.attr in self.attributes
        if isinstance(node, ast.Call):
            return is_program_class(self.value_of(node.func))
        return any(self.is_program(choice) for choice in _choices(node))

    def contains_programs(self, node: ast.AST) -> bool:
        """Whether what an expression gives can have programs in it: ``enumerate(self.steps)``, ``[Predict(…)]``."""
        if self.is_program(node):
            return True
        if isinstance(node, ast.Call):
            return self._call_gives_programs(node)
        return any(self.contains_programs(item) for item in _items(node))

    def _call_gives_programs(self, call: ast.Call) -> bool:
        if isinstance(call.func, ast.Name) and call.func.id in _ITERATORS:
            return any(self.contains_programs(argument) for argument in call.args)
        if isinstance(call.func, ast.Attribute) and call.func.attr in _VIEWS:
            return self.contains_programs(call.func.value)
        return False

    def _item(self, node: ast.Subscript) -> Any:
        container = self.value_of(node.value)
        if container is MISSING or not isinstance(node.slice, ast.Constant):
            return MISSING
        try:
            return container[node.slice.value]
        except (LookupError, TypeError):
            return MISSING

    def _is_local(self, node: ast.AST, name: str) -> bool:
        function = self.function_of(node)
        while function is not None:
            if name in self.locals.get(function, ()) or name in _parameters(function):
                return True
            function = self.function_of(function)
        return False

    def _is_program_name(self, node: ast.Name) -> bool:
        function = self.function_of(node)
        while function is not None:
            if node.id in self.locals.get(function, ()):
                return True
            function = self.function_of(function)
        return False

    def _collect(self, tree: ast.AST) -> None:
        """Find the names to which programs are assigned. Repeated, since one name can be assigned to another."""
        before = -1
        while before != self._count():
            before = self._count()
            for node in ast.walk(tree):
                for target, value in _bindings(node):
                    if self.contains_programs(value):
                        self._bind(target)
                if isinstance(node, ast.Call):
                    self._bind_parameters(tree, node)

    def _count(self) -> int:
        return len(self.attributes) + sum(map(len, self.locals.values()))

    def _bind(self, target: ast.AST) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                function = self.function_of(node)
                if function is not None:
                    self.locals.setdefault(function, set()).add(node.id)
            elif isinstance(node, ast.Attribute) and root_names(node) == ["self", node.attr]:
                self.attributes.add(node.attr)
            elif isinstance(node, ast.Subscript):
                self._bind_container(node.value)

    def _bind_container(self, node: ast.AST) -> None:
        names = root_names(node)
        if names is not None and names[0] == "self" and len(names) > 1:
            self.attributes.add(names[1])

    def _bind_parameters(self, tree: ast.AST, call: ast.Call) -> None:
        """Parameters of the methods to which programs are passed; and lists to which programs are appended."""
        if not isinstance(call.func, ast.Attribute):
            return
        if call.func.attr in ("append", "extend", "insert") and any(map(self.contains_programs, call.args)):
            self._bind_container(call.func.value)
        if root_names(call.func) != ["self", call.func.attr]:
            return
        for method in ast.walk(tree):
            if isinstance(method, FunctionNode) and method.name == call.func.attr:
                names = [argument.arg for argument in method.args.args[1:]]
                passed = [*zip(names, call.args, strict=False)]
                passed += [(keyword.arg or "", keyword.value) for keyword in call.keywords]
                for name, value in passed:
                    if self.contains_programs(value):
                        self.locals.setdefault(method, set()).add(name)


def _choices(node: ast.AST) -> list[ast.expr]:
    """The expressions of which one is the value of ``node``, or contains it."""
    if isinstance(node, ast.NamedExpr | ast.Starred | ast.Subscript):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return [node.body, node.orelse]
    return node.values if isinstance(node, ast.BoolOp) else []


def _items(node: ast.AST) -> list[ast.expr]:
    """The expressions whose values are in the container that ``node`` makes."""
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return node.elts
    if isinstance(node, ast.Dict):
        return node.values
    if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp):
        return [node.elt]
    if isinstance(node, ast.DictComp):
        return [node.value]
    return [node.left, node.right] if isinstance(node, ast.BinOp) else []


def _attribute(value: Any, name: str) -> Any:
    if value is MISSING:
        return MISSING
    try:
        return getattr(value, name, MISSING)
    except Exception:  # a property of the user's class
        return MISSING


def _parameters(function: FunctionNode) -> set[str]:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {argument.arg for argument in every if argument is not None}


def _bindings(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """The targets that a statement or comprehension binds, each with the expression that it takes values from."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield target, node.value
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
        yield node.target, node.value
    elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
        yield node.target, node.iter
