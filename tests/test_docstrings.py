"""Docstrings: every public name has one of its own with an example, and every example does what it shows."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import dspynb as dn

PACKAGE = Path(dn.__file__).parent
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PARSER = doctest.DocTestParser()
PUBLIC = {
    **{name: getattr(dn, name) for name in dn.__all__ if name != "__version__"},
    **{f"metrics.{name}": getattr(dn.metrics, name) for name in dn.metrics.__all__},
    **{f"feedback.{name}": getattr(dn.feedback, name) for name in dn.feedback.__all__},
}
NEEDS = {
    "DaskExecutor": "distributed",
    "ExecutorError": "distributed",
    "MIPROv2": "optuna",
    "from_dspy": "dspy",
    "dspynb.running.reader": "matplotlib",
    "export_otel": "opentelemetry.sdk",
    "mcp_tools": "mcp",
}


def _methods(thing):
    """The public functions that a class defines, whatever they are wrapped in."""
    values = vars(thing).items() if inspect.isclass(thing) else ()
    return {name: fn for name, value in values if not name.startswith("_") and (fn := _function(value)) is not None}


def _function(value):
    """What a property, classmethod or function has its docstring from."""
    inner = next((found for n in ("fget", "func", "__func__") if (found := getattr(value, n, None))), value)
    return inner if inspect.isroutine(inner) else None


def _doctests(name, thing):
    """The examples of a name: in its own docstring, and in those of its methods."""
    things = {name: thing, **{f"{name}.{method}": fn for method, fn in _methods(thing).items()}}
    read = [PARSER.get_doctest(it.__doc__ or "", {"dn": dn}, where, None, 0) for where, it in things.items()]
    return [test for test in read if test.examples]


def _failures(tests):
    """What doctest says of examples that give something else than they show."""
    said, runner = [], doctest.DocTestRunner(optionflags=OPTIONS)
    for test in tests:
        runner.run(test, out=said.append)
    return "".join(said)


def _others():
    """Module → the examples in it that are of no public name."""
    known = {test.docstring for name, thing in PUBLIC.items() for test in _doctests(name, thing)}
    others, finder = {}, doctest.DocTestFinder(exclude_empty=True)
    for path in sorted(PACKAGE.rglob("*.py")):
        if ">>> " in path.read_text():
            module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
            found = [test for test in finder.find(module, globs={"dn": dn}) if test.docstring not in known]
            others |= {module.__name__: tests} if (tests := [test for test in found if test.examples]) else {}
    return others


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    dn.configure(view="off", runs_dir=None)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_a_docstring_of_its_own_and_its_examples_do_what_they_show(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    thing = PUBLIC[name]
    own = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    assert own
    tests = _doctests(name, thing)
    assert name in [test.name for test in tests], "it has no example"
    failed = _failures(tests)
    assert not failed, failed


OTHERS = _others()


@pytest.mark.parametrize("module", list(OTHERS))
def test_the_other_examples_in_a_module_do_what_they_show(module):
    if module in NEEDS:
        pytest.importorskip(NEEDS[module])
    failed = _failures(OTHERS[module])
    assert not failed, failed
