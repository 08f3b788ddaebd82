"""Measure how hard the lines of a source tree are to read: one column per tree.

    python benchmarks/readability.py PATH [PATH …]
    python benchmarks/readability.py --save before=../old/dspynb after=dspynb

prints a Markdown table with one column for each path. ``LABEL=PATH`` sets the name of the column. Without a label, the
column has the name of the folder, and for an installed package also its version. ``--save`` also writes
readability.csv, its table and its plot.

Only the standard library's ``ast`` and ``tokenize`` are used; no code of the tree is imported or run. All ``*.py``
files below the path are read, except those in folders named ``tests``, ``test``, ``_vendor`` or ``_notebooks``. Each
measure is a function in this file, and its docstring says what it counts. The figures of other projects show where to
look; they are not limits.
"""

from __future__ import annotations

import argparse
import ast
import gc
import io
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SKIPPED_FOLDERS = {"tests", "test", "_vendor", "_notebooks"}
VAGUE_NAMES = ("told", "kept", "given", "found", "made", "asked", "heard")
NON_CODE_TOKENS = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class SourceFile:
    """One parsed file of a tree."""

    module: str
    """The dotted name, which begins with the name of the tree's folder: ``dspynb.lm.client``."""
    is_package: bool
    """Whether the file is an ``__init__.py``."""
    text: str
    tree: ast.Module
    nodes: list[ast.AST]
    """All nodes of the tree."""
    code_lines: int
    """See `code_lines`."""


def read_tree(path: Path) -> list[SourceFile]:
    """Parse all Python files below a folder, sorted by path.

    Raises:
        SystemExit: the path is not a folder, it has no Python file, or a file in it cannot be parsed.
    """
    path = path.resolve()
    if not path.is_dir():
        raise SystemExit(f"{path} is no folder; give the folder of a package, such as src/dspynb")
    files = []
    gc.disable()  # Python 3.11 raises SystemError if a finalizer runs while it builds a tree
    try:
        for file in sorted(path.rglob("*.py")):
            folders = file.relative_to(path).parts[:-1]
            if not SKIPPED_FOLDERS.intersection(folders):
                files.append(_parse(file, path))
    finally:
        gc.enable()
    if not files:
        raise SystemExit(f"no Python file in {path}")
    return files


def _parse(file: Path, root: Path) -> SourceFile:
    text = file.read_text(encoding="utf-8")
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise SystemExit(f"{file} cannot be parsed: {error}") from error
    parts = [root.name, *file.relative_to(root).with_suffix("").parts]
    is_package = parts[-1] == "__init__"
    if is_package:
        parts.pop()
    nodes = list(ast.walk(tree))
    return SourceFile(".".join(parts), is_package, text, tree, nodes, _count_code_lines(text, nodes))


def every_node(files: Iterable[SourceFile]) -> Iterator[ast.AST]:
    """All nodes of all files."""
    for file in files:
        yield from file.nodes


# ── size ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def count_files(files: list[SourceFile]) -> int:
    """Python files."""
    return len(files)


def code_lines(files: list[SourceFile]) -> int:
    """Lines of code: lines that have a token which is neither a comment nor part of a docstring.

    Blank lines and lines with only a comment are not counted. A string over several lines counts with each of its
    lines. Docstrings are those of modules, classes and functions; a string below an attribute counts as code.
    """
    return sum(file.code_lines for file in files)


def _count_code_lines(text: str, nodes: list[ast.AST]) -> int:
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NON_CODE_TOKENS:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in nodes:
        docstring = _docstring_node(node)
        if docstring is not None:
            lines.difference_update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return len(lines)


def _docstring_node(node: ast.AST) -> ast.Expr | None:
    if not isinstance(node, Documented) or not node.body:
        return None
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return first
    return None


def all_lines(files: list[SourceFile]) -> int:
    """Lines of all files: code, docstrings, comments and blank lines."""
    return sum(len(file.text.splitlines()) for file in files)


def longest_function(files: list[SourceFile]) -> int:
    """Lines of the longest function, from ``def`` to its last line; docstring, comments and inner functions count."""
    longest = 0
    for node in every_node(files):
        if isinstance(node, Function):
            longest = max(longest, (node.end_lineno or node.lineno) - node.lineno + 1)
    return longest


def longest_file(files: list[SourceFile]) -> int:
    """Lines of the longest file, blank ones and comments included."""
    return max(len(file.text.splitlines()) for file in files)


# ── packed lines ──────────────────────────────────────────────────────────────────────────────────────────────────────
def count_conditional_expressions(files: list[SourceFile]) -> int:
    """Expressions ``x if condition else y``. Nested ones are counted separately."""
    return sum(isinstance(node, ast.IfExp) for node in every_node(files))


def count_nested_conditionals(files: list[SourceFile]) -> int:
    """Conditional expressions that are somewhere inside another conditional expression."""
    return _count_inside(files, (ast.IfExp,))


COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def count_comprehensions(files: list[SourceFile]) -> int:
    """Comprehensions of lists, sets and dicts, and generator expressions. Nested ones are counted separately."""
    return sum(isinstance(node, COMPREHENSIONS) for node in every_node(files))


def count_chained_comprehensions(files: list[SourceFile]) -> int:
    """Comprehensions that have more than one ``for``, and those that are somewhere inside another one."""
    several = 0
    for node in every_node(files):
        if isinstance(node, COMPREHENSIONS) and len(node.generators) > 1:
            several += 1
    return several + _count_inside(files, COMPREHENSIONS)


def _count_inside(files: list[SourceFile], kinds: tuple[type[ast.AST], ...]) -> int:
    """Nodes of these kinds that have an ancestor of these kinds."""
    inside: set[ast.AST] = set()
    for node in every_node(files):
        if isinstance(node, kinds):
            inside.update(child for child in ast.walk(node) if child is not node and isinstance(child, kinds))
    return len(inside)


def count_packed_assignments(files: list[SourceFile]) -> int:
    """Assignments of several values to several targets in one statement: ``a, b = x, y``; also a swap ``a, b = b, a``.

    Unpacking one value (``a, b = pair``) is not counted.
    """
    count = 0
    for node in every_node(files):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple | ast.List):
            count += any(isinstance(target, ast.Tuple | ast.List) for target in node.targets)
    return count


# ── types and docstrings ──────────────────────────────────────────────────────────────────────────────────────────────
def parameters(files: list[SourceFile]) -> list[ast.arg]:
    """Parameters of all functions, ``*args`` and ``**kwargs`` too; not ``self``, ``cls`` and those of lambdas."""
    result: list[ast.arg] = []
    for node in every_node(files):
        if isinstance(node, Function):
            spec = node.args
            several = [spec.vararg, spec.kwarg]
            every = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *(arg for arg in several if arg is not None)]
            result += [arg for arg in every if arg.arg not in {"self", "cls"}]
    return result


def count_any_parameters(files: list[SourceFile]) -> int:
    """Parameters whose annotation is ``Any`` alone (``Any``, ``typing.Any``); ``list[Any]`` and ``Any | None`` are not.

    The share is taken of all parameters, annotated or not.
    """
    return sum(_is_any(arg.annotation) for arg in parameters(files))


def count_partly_any_parameters(files: list[SourceFile]) -> int:
    """Parameters whose annotation has ``Any`` anywhere: ``Any``, ``list[Any]``, ``Callable[..., Any]``."""
    count = 0
    for arg in parameters(files):
        if arg.annotation is not None:
            count += any(_is_any(node) for node in ast.walk(arg.annotation))
    return count


def _is_any(annotation: ast.AST | None) -> bool:
    if isinstance(annotation, ast.Constant):  # an annotation in quotes
        return annotation.value in {"Any", "typing.Any"}
    if isinstance(annotation, ast.Attribute):
        return annotation.attr == "Any"
    return isinstance(annotation, ast.Name) and annotation.id == "Any"


def public_definitions(files: list[SourceFile]) -> list[ast.ClassDef | Function]:
    """Classes and functions at the top of a module or class, whose names do not begin with an underscore.

    Definitions inside a private class, or in a module whose name begins with an underscore, are left out.
    """
    result: list[ast.ClassDef | Function] = []
    for file in files:
        if not any(part.startswith("_") for part in file.module.split(".")):
            result += _public_in(file.tree.body)
    return result


def _public_in(body: list[ast.stmt]) -> list[ast.ClassDef | Function]:
    result: list[ast.ClassDef | Function] = []
    for node in body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            result.append(node)
            if isinstance(node, ast.ClassDef):
                result += _public_in(node.body)
    return result


def count_documented(files: list[SourceFile]) -> int:
    """Public classes, functions and methods that have a docstring."""
    return sum(ast.get_docstring(node) is not None for node in public_definitions(files))


# ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def count_vague_names(files: list[SourceFile]) -> int:
    """Uses of one of VAGUE_NAMES as a complete identifier: ``told``, but not ``told_scores`` or ``_told``.

    Each use counts: variables, parameters, attributes, keyword arguments of calls, functions, classes, import aliases.
    Words in strings and comments do not count.
    """
    return sum(name in VAGUE_NAMES for name in identifiers(files))


def identifiers(files: list[SourceFile]) -> Iterator[str]:
    """All identifiers, once for each use."""
    for node in every_node(files):
        for field in ("id", "attr", "arg", "asname", "rest"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield value
        name = getattr(node, "name", None)
        if isinstance(name, str):  # of functions, classes, imported names, `except … as name` and patterns
            yield name
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield from node.names


# ── imports ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def import_circle(files: list[SourceFile]) -> int:
    """Modules in the largest circle of imports that run when the modules are imported; 0 if there is no circle.

    A circle is a strongly connected component of two or more modules. An edge leads from a module to each module of the
    tree that one of its import statements names: ``import a.b`` and ``from a.b import name`` lead to ``a.b``, or to
    ``a.b.name`` if that is a module. Python also runs the ``__init__`` of every package above. These edges are omitted,
    as they would connect nearly all modules of every project. Imports in functions run later, and those below
    ``if TYPE_CHECKING:`` never run; both are left out. Imports by name (``importlib.import_module``) are not found.
    """
    return _largest_circle(_import_graph(files, lazy=False))


def lazy_import_circle(files: list[SourceFile]) -> int:
    """Like `import_circle`, but with imports in functions."""
    return _largest_circle(_import_graph(files, lazy=True))


def _import_graph(files: list[SourceFile], *, lazy: bool) -> dict[str, set[str]]:
    modules = {file.module for file in files}
    graph: dict[str, set[str]] = {}
    for file in files:
        edges: set[str] = set()
        for node in _imports_in(file.tree, lazy=lazy):
            edges.update(_imported_modules(node, file, modules))
        edges.discard(file.module)
        graph[file.module] = edges
    return graph


def _imports_in(node: ast.AST, *, lazy: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and _is_type_checking(child.test):
            for statement in child.orelse:
                yield from _imports_in(ast.Module([statement], []), lazy=lazy)
        elif lazy or not isinstance(child, Function | ast.Lambda):
            yield from _imports_in(child, lazy=lazy)


def _is_type_checking(test: ast.expr) -> bool:
    if isinstance(test, ast.Attribute):
        return test.attr == "TYPE_CHECKING"
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _imported_modules(node: ast.Import | ast.ImportFrom, file: SourceFile, modules: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules)
        return
    source = node.module or ""
    if node.level:
        package = file.module.split(".")
        above = node.level - 1 if file.is_package else node.level
        package = package[: len(package) - above]
        source = ".".join([*package, *source.split(".")]).rstrip(".")
    for alias in node.names:
        submodule = f"{source}.{alias.name}"
        if submodule in modules:
            yield submodule
        elif source in modules:
            yield source


def _largest_circle(graph: dict[str, set[str]]) -> int:
    """Size of the largest strongly connected component of two or more nodes, or 0.

    Kosaraju's algorithm, without recursion.
    """
    reverse: dict[str, set[str]] = {node: set() for node in graph}
    for node, targets in graph.items():
        for target in targets:
            reverse[target].add(node)
    finished: list[str] = []
    seen: set[str] = set()
    for node in graph:
        finished += _reachable(node, graph, seen)
    largest = 0
    seen = set()
    for node in reversed(finished):
        component = _reachable(node, reverse, seen)
        if len(component) > 1:
            largest = max(largest, len(component))
    return largest


def _reachable(start: str, graph: dict[str, set[str]], seen: set[str]) -> list[str]:
    """The nodes that can be reached and are not in ``seen``, in the order in which a depth-first walk leaves them."""
    if start in seen:
        return []
    seen.add(start)
    finished: list[str] = []
    stack = [(start, iter(sorted(graph[start])))]
    while stack:
        node, targets = stack[-1]
        following = next((target for target in targets if target not in seen), None)
        if following is None:
            stack.pop()
            finished.append(node)
        else:
            seen.add(following)
            stack.append((following, iter(sorted(graph[following]))))
    return finished


# ── the table ─────────────────────────────────────────────────────────────────────────────────────────────────────────
Count = Callable[[list[SourceFile]], int]


def per_thousand(count: Count) -> Callable[[list[SourceFile]], str]:
    """The count per 1,000 lines of code, with one decimal."""
    return lambda files: f"{1000 * count(files) / max(code_lines(files), 1):.1f}"


def share(count: Count, whole: Callable[[list[SourceFile]], Sequence[object]]) -> Callable[[list[SourceFile]], str]:
    """The count as a percentage of the length of a list."""
    return lambda files: f"{100 * count(files) / max(len(whole(files)), 1):.0f}%"


MEASURES: dict[str, Callable[[list[SourceFile]], object]] = {
    "files": count_files,
    "lines": all_lines,
    "lines of code": code_lines,
    "largest import circle at import time, modules": import_circle,
    "largest import circle with imports in functions, modules": lazy_import_circle,
    "longest function, lines": longest_function,
    "longest file, lines": longest_file,
    "conditional expressions per 1,000 lines of code": per_thousand(count_conditional_expressions),
    "nested conditional expressions per 1,000 lines of code": per_thousand(count_nested_conditionals),
    "comprehensions per 1,000 lines of code": per_thousand(count_comprehensions),
    "chained or nested comprehensions per 1,000 lines of code": per_thousand(count_chained_comprehensions),
    "`a, b = x, y` assignments per 1,000 lines of code": per_thousand(count_packed_assignments),
    "parameters annotated `Any`": share(count_any_parameters, parameters),
    "parameters with `Any` in the annotation": share(count_partly_any_parameters, parameters),
    "public definitions with a docstring": share(count_documented, public_definitions),
    f"uses of the names {', '.join(VAGUE_NAMES)}": count_vague_names,
}


def measure(path: Path) -> dict[str, str]:
    """All measures of one tree: the cells of its column."""
    files = read_tree(path)
    return {name: str(function(files)) for name, function in MEASURES.items()}


def label_and_path(argument: str) -> tuple[str, Path]:
    """Split ``LABEL=PATH`` or ``PATH`` into the name of the column and the path.

    >>> label_and_path("before=old/dspynb")[0]
    'before'
    """
    label, equals, path = argument.rpartition("=")
    folder = Path(path)
    if equals:
        return label, folder
    name = folder.resolve().name
    for installed in folder.resolve().parent.glob(f"{name}-*.dist-info"):
        version = installed.name.removesuffix(".dist-info").removeprefix(f"{name}-")
        return f"{name} {version}", folder
    return name, folder


def rows_of(arguments: list[str]) -> tuple[list[str], list[list[str]]]:
    """The header of the table and its lines, without dates.

    Raises:
        SystemExit: two columns have the same label.
    """
    columns: dict[str, dict[str, str]] = {}
    for argument in arguments:
        label, path = label_and_path(argument)
        if label in columns:
            raise SystemExit(f"two columns are named {label!r}; name one of them, as in other={path}")
        columns[label] = measure(path)
    lines = [[name, *(column[name] for column in columns.values())] for name in MEASURES]
    return ["measure", *columns], lines


def main(arguments: list[str] | None = None) -> None:
    """Print the table. With ``--save``, also write it to files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("paths", nargs="+", metavar="[LABEL=]PATH", help="the folder of a package")
    parser.add_argument("--save", action="store_true", help="write readability.csv, .md and .png next to this file")
    args = parser.parse_args(arguments)
    header, lines = rows_of(args.paths)
    sys.path.insert(0, str(Path(__file__).parent))
    import report

    if args.save:
        report.write_results("readability", [*header, "date"], [[*line, report.today()] for line in lines])
    else:
        print(report.table([header, *lines]), end="")


if __name__ == "__main__":
    main()
