"""Edits of Python source by position, which keep its comments, names and layout."""

from __future__ import annotations

import ast
import inspect
import linecache
import re
import textwrap
from types import FunctionType
from typing import Any

from dspynb.errors import InputError

__all__ = ["SourceEdits", "class_source", "function_source"]


class SourceEdits:
    """Replacements in a source, each at the position of a node of its syntax tree."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._edits: set[tuple[int, int, int, str]] = set()  # (start, order, end, text)
        self._lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    def start(self, node: ast.AST) -> int:
        """The position in the source at which a node starts."""
        return self._position(node.lineno, node.col_offset)  # type: ignore[attr-defined]

    def end(self, node: ast.AST) -> int:
        """The position in the source after a node."""
        return self._position(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def text(self, node: ast.AST) -> str:
        """The source of a node."""
        return self.source[self.start(node) : self.end(node)]

    def replace(self, start: int, end: int, text: str) -> None:
        """Replace the source between two positions."""
        self._edits.add((start, 1, end, text))

    def insert(self, position: int, text: str, *, outside: bool = False) -> None:
        """Insert text at a position. ``outside``: before what else is inserted there."""
        self._edits.add((position, -1 if outside else 0, position, text))

    def wrap(self, node: ast.AST, before: str, after: str) -> None:
        """Insert text before and after a node."""
        self._edits.add((self.start(node), 0, self.start(node), before))
        if after:
            self._edits.add((self.end(node), -2, self.end(node), after))

    def result(self) -> str:
        """The edited source."""
        parts = []
        position = 0
        for start, _, end, text in sorted(self._edits):
            parts += [self.source[position:start], text]
            position = end
        return "".join([*parts, self.source[position:]])

    def _position(self, line: int, column: int) -> int:
        """A position from a line and a column in UTF-8 bytes, as nodes have them."""
        text = self._lines[line - 1]
        characters = column if text.isascii() else len(text.encode()[:column].decode())
        return self._starts[line - 1] + characters


def class_source(cls: type) -> str:
    """The source of a class, found by one of its methods, so that classes of notebook cells have one too.

    Raises InputError if the source is not available.
    """
    for value in vars(cls).values():
        function = inspect.unwrap(value) if callable(value) else None
        if isinstance(function, FunctionType) and function.__qualname__.startswith(f"{cls.__qualname__}."):
            source = _definition(function, ast.ClassDef, cls.__name__)
            if source:
                return source
    try:
        return textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        raise InputError(
            f"the source of {cls.__qualname__} is not available, so its forward cannot be rewritten: define the class "
            "in a file or in a notebook cell"
        ) from None


def function_source(function: FunctionType) -> str:
    """The source of a function; empty if it is not available or the function is a lambda."""
    return _definition(function, (ast.FunctionDef, ast.AsyncFunctionDef), function.__name__)


def _definition(function: FunctionType, kinds: Any, name: str) -> str:
    """The innermost definition with this name that contains the first line of a function; empty if there is none."""
    code = function.__code__
    lines = linecache.getlines(code.co_filename, function.__globals__)
    try:
        tree = ast.parse("".join(lines))
    except SyntaxError:  # the file is not Python, as a page of documentation or a saved notebook
        return _block(lines[: code.co_firstlineno], lines, name)
    source = ""
    for node in ast.walk(tree):
        if isinstance(node, kinds) and node.name == name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first <= code.co_firstlineno <= (node.end_lineno or 0):
                source = textwrap.dedent("".join(lines[first - 1 : node.end_lineno]))
    return source


def _block(before: list[str], lines: list[str], name: str) -> str:
    """The block of the last ``class name`` or ``def name`` in ``before``; empty if there is none."""
    for number in range(len(before) - 1, -1, -1):
        if re.match(rf"\s*(class|def|async def)\s+{re.escape(name)}\b", before[number]):
            return textwrap.dedent("".join(inspect.getblock(lines[number:])))
    return ""
