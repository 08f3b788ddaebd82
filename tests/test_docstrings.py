"""Every public name has its own docstring with an example, and every example gives the result that it shows."""

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


def _methods(value):
    """The public functions that a class defines, without their wrappers."""
    functions = {}
    if inspect.isclass(value):
        for name, attribute in vars(value).items():
            function = _function(attribute)
            if function is not None and not name.startswith("_"):
                functions[name] = function
    return functions


def _function(attribute):
    """The function inside a property, classmethod or function; None for other attributes."""
    for wrapped in ("fget", "func", "__func__"):
        if getattr(attribute, wrapped, None):
            attribute = getattr(attribute, wrapped)
            break
    return attribute if inspect.isroutine(attribute) else None


def _doctests(name, value):
    """The examples in the docstring of a public name, and in those of its methods."""
    documented = {name: value}
    for method, function in _methods(value).items():
        documented[f"{name}.{method}"] = function
    tests = []
    for place, documented_value in documented.items():
        tests.append(PARSER.get_doctest(documented_value.__doc__ or "", {"dn": dn}, place, None, 0))
    return [test for test in tests if test.examples]


def _failures(tests):
    """The output of doctest for examples that give another result than they show."""
    output = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for test in tests:
        runner.run(test, out=output.append)
    return "".join(output)


def _other_examples():
    """The examples in each module that do not belong to a public name."""
    public = set()
    for name, value in PUBLIC.items():
        public.update(test.docstring for test in _doctests(name, value))
    examples = {}
    finder = doctest.DocTestFinder(exclude_empty=True)
    for path in sorted(PACKAGE.rglob("*.py")):
        if ">>> " in path.read_text():
            module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
            tests = finder.find(module, globs={"dn": dn})
            tests = [test for test in tests if test.examples and test.docstring not in public]
            if tests:
                examples[module.__name__] = tests
    return examples


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    dn.configure(view="off", runs_dir=None)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_its_own_docstring_and_its_examples_give_what_they_show(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    value = PUBLIC[name]
    docstring = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    assert docstring
    tests = _doctests(name, value)
    assert name in [test.name for test in tests], "it has no example"
    failures = _failures(tests)
    assert not failures, failures


OTHER_EXAMPLES = _other_examples()


@pytest.mark.parametrize("module", list(OTHER_EXAMPLES))
def test_the_other_examples_in_a_module_give_what_they_show(module):
    if module in NEEDS:
        pytest.importorskip(NEEDS[module])
    failures = _failures(OTHER_EXAMPLES[module])
    assert not failures, failures
