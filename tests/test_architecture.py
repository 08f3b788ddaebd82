"""The house holds: imports go down, heavy libraries have one home, the public names are what they are."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import dspynb as dn
from tests import stub

PACKAGE = Path(dn.__file__).parent
LAYERS = [
    ["_moved", "notebook_traceback", "not_awaited"],
    ["errors", "dataclass_init", "json_checks", "missing", "whole_text", "aliases", "text_search"],
    ["exits", "processes"],
    ["redact"],
    ["score"],
    ["options"],
    ["name_advice"],
    ["keywords"],
    ["data"],
    ["pricing"],
    ["media", "conversation"],
    ["json_values", "thinking"],
    ["events"],
    ["scope", "signatures"],
    ["running"],
    ["lm", "adapters"],
    ["state"],
    ["forecasting"],
    ["modules"],
    ["refine", "replaying", "agents"],
    ["evaluation"],
    ["optimizers"],
    ["views"],
    ["contrib", "demo"],
    ["cli"],
    ["__main__"],
]
LAYER = {name: i for i, names in enumerate(LAYERS) for name in names}
UPWARD = {("running/view_hook.py", "views")}  # a run that is shown loads the views then
HOMES = {
    "litellm": {"lm"},
    "aiohttp": {"lm"},
    "xllamacpp": {"lm"},
    "mcp": {"agents"},
    "pandas": {"aliases", "data", "running", "forecasting", "evaluation", "demo"},
    "opentelemetry": {"running"},
    "pyarrow": {"evaluation"},
    "optuna": {"optimizers"},
    "ipywidgets": {"views"},
    "anywidget": {"views"},
    "matplotlib": {"views"},
    "rich": {"views"},
    "dask": {"contrib"},
    "distributed": {"contrib"},
    "cloudpickle": {"contrib"},
    "dspy": set(),  # its objects are known by their shape
}
HEAVY = [
    "litellm",
    "pandas",
    "matplotlib",
    "rich",
    "ipywidgets",
    "optuna",
    "xllamacpp",
    "aiohttp",
    "anywidget",
    "IPython",
    "opentelemetry",
    "mcp",
    "pyarrow",
    "distributed",
    "dask",
    "cloudpickle",
    "dspy",
]


def _room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def _imports():
    for path in sorted(PACKAGE.rglob("*.py")):
        if "_notebooks" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield path, alias.name
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                yield path, node.module or ""
                for alias in node.names:  # `from dspynb import views`
                    if node.module == "dspynb":
                        yield path, f"dspynb.{alias.name}"


def test_imports_go_downwards_only():
    wrong = []
    for path, name in _imports():
        parts = name.split(".")
        here = _room(path)
        if parts[0] != "dspynb" or len(parts) < 2 or here == "__init__" or parts[1] == here:
            continue
        where = str(path.relative_to(PACKAGE))
        if LAYER[parts[1]] >= LAYER[here] and (where, parts[1]) not in UPWARD:
            wrong.append(f"{where} imports {name}")
    assert wrong == []


def _module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _runtime_imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements of a module, those inside functions too, without those for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _runtime_imports(child)


def _import_graph() -> dict[str, set[str]]:
    """The modules of the package that each of them imports, when it is loaded or later."""
    paths = {_module_name(path): path for path in PACKAGE.rglob("*.py") if "_notebooks" not in path.parts}
    graph: dict[str, set[str]] = {module: set() for module in paths}
    for module, path in paths.items():
        upward = {room for where, room in UPWARD if where == str(path.relative_to(PACKAGE))}
        for node in _runtime_imports(ast.parse(path.read_text())):
            source = getattr(node, "module", None)
            for alias in node.names:
                longest = f"{source}.{alias.name}" if source else alias.name
                imported = longest if longest in paths else source
                if imported in paths and imported != "dspynb" and imported.split(".")[1] not in upward:
                    graph[module].add(imported)
    return graph


def test_no_modules_import_each_other_not_even_inside_functions():
    graph = _import_graph()
    assert "dspynb.evaluation.data_io.saving" in graph["dspynb.evaluation.result"]  # an import inside a function
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these modules import each other: {' <- '.join(error.args[1])}")


def test_the_allowed_link_upwards_is_in_use():
    assert set(UPWARD) == {
        (str(path.relative_to(PACKAGE)), "views")
        for path, name in _imports()
        if name.startswith("dspynb.views") and LAYER[_room(path)] < LAYER["views"] and _room(path) != "__init__"
    }


def test_each_heavy_library_has_one_home():
    homes = {(name.split(".")[0], _room(path)) for path, name in _imports() if name.split(".")[0] in HOMES}
    assert {(lib, room) for lib, room in homes if room not in HOMES[lib]} == set()


def test_importing_dspynb_loads_no_heavy_library():
    code = (
        "import json, sys, dspynb as dn; dn.Predict('a -> b'); dn.Refine; dn.LM('openai/x'); dn.LocalLM();"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == []


def test_an_optimizer_is_loaded_without_the_others():
    code = "import sys, dspynb as dn; dn.BootstrapFewShot; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = out.stdout.split()
    assert "dspynb.optimizers.bootstrap" in loaded
    assert [
        name for name in ("copro", "distill", "gepa", "mipro", "simba") if f"dspynb.optimizers.{name}" in loaded
    ] == []


def test_every_public_name_resolves_and_has_a_docstring():
    for name in dn.__all__:
        assert getattr(dn, name) is not None
        if name != "__version__":
            assert (getattr(dn, name).__doc__ or "").strip(), f"{name} has no docstring"


def test_type_checkers_see_the_same_public_names():
    assert stub.PATH.read_text() == stub.stub_text(), "run: python -m tests.stub"


def test_an_unknown_name_suggests_the_near_one():
    with pytest.raises(AttributeError, match="Did you mean 'Refine'"):
        dn.Refin  # noqa: B018
