"""The house holds: imports go down, heavy libraries have one home, the public names are what they are."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import dspynb as dn

PACKAGE = Path(dn.__file__).parent
LAYERS = [
    ["_moved"],
    ["errors", "records", "aliases"],
    ["exits", "processes"],
    ["redact"],
    ["score"],
    ["options"],
    ["keywords"],
    ["data"],
    ["media", "conversation"],
    ["events"],
    ["scope", "signatures"],
    ["running"],
    ["lm", "adapters"],
    ["state"],
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
    "pandas": {"aliases", "data", "running", "evaluation", "demo"},
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


def test_every_public_name_resolves_and_has_a_docstring():
    for name in dn.__all__:
        assert getattr(dn, name) is not None
        if name != "__version__":
            assert (getattr(dn, name).__doc__ or "").strip(), f"{name} has no docstring"


def test_type_checkers_see_the_same_public_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If))
    typed = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == set(dn.__all__) - {"__version__"}


def test_an_unknown_name_suggests_the_near_one():
    with pytest.raises(AttributeError, match="Did you mean 'Refine'"):
        dn.Refin  # noqa: B018
