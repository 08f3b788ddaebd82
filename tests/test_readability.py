"""benchmarks/readability.py counts in small planted trees what its docstrings say."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def readability():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import readability
    finally:
        sys.path.remove(str(BENCHMARKS))
    return readability


@pytest.fixture
def plant(tmp_path, readability):
    def write(**files):
        """A package `pkg`: `sub__module="…"` is pkg/sub/module.py, `__` at the end is an __init__.py."""
        root = tmp_path / "pkg"
        for name, text in files.items():
            path = root / f"{name.replace('__', '/').removesuffix('/')}"
            path = path / "__init__.py" if name.endswith("__") else path.with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return readability.read_tree(root)

    return write


COUNTS = {
    "code_lines": [
        ('"""Docstring."""\n\n# comment\nx = 1  # with a comment\n', 1),
        ('def f():\n    """Two\n    lines."""\n    return (\n        1\n    )\n', 4),
        ('text = """a\nb"""\n', 2),
    ],
    "all_lines": [("x = 1\n\n# comment\n", 3)],
    "longest_file": [("x = 1\n\n# comment\n", 3)],
    "longest_function": [
        ("x = 1\n", 0),
        ('@decorator\ndef f():\n    """Docstring."""\n\n    def g():\n        pass\n\nasync def h():\n    pass\n', 5),
    ],
    "count_conditional_expressions": [("x = 1 if a else 2 if b else 3\nif a:\n    x = 4\n", 2)],
    "count_nested_conditionals": [("x = 1 if a else 2 if b else 3\n", 1), ("f(1 if a else 2, 3 if b else 4)\n", 0)],
    "count_comprehensions": [("[a for a in b]\n{a for a in b}\n{a: a for a in b}\nany(a for a in b)\n", 4)],
    "count_chained_comprehensions": [
        ("[a for a in b if a]\n", 0),
        ("[a for b in c for a in b]\n", 1),
        ("[sum(a for a in b) for b in c]\n", 1),
    ],
    "count_packed_assignments": [
        ("a, b = x, y\n", 1),
        ("a, b = b, a\n", 1),
        ("self.a, self.b = x, y\n", 1),
        ("a, b = pair\nc = x, y\na = b = x\nfor a, b in pairs: pass\n", 0),
    ],
    "count_any_parameters": [
        ("def f(a: Any, b: typing.Any, c: 'Any', *args: Any, **kwargs: Any): pass\n", 5),
        ("def f(a: list[Any], b: Any | None, c: int, d): pass\nx: Any = lambda a: a\n", 0),
    ],
    "count_partly_any_parameters": [("def f(a: list[Any], b: Any | None, c: Any, d: int, e): pass\n", 3)],
    "count_documented": [
        (
            'def f():\n    """Doc."""\nclass A:\n    """Doc."""\n    def g(self): pass\ndef _h():\n    """Doc."""\n',
            2,
        )
    ],
    "count_vague_names": [
        ("told = 1\nx.kept = told\nf(given=2)\ndef found(made): pass\nfrom x import y as asked\n", 7),
        ("told_scores = 'told'  # told\n_kept = x['kept']\nforgiven = 1\n", 0),
        ("try: pass\nexcept E as heard: pass\nmatch x:\n    case {**kept}: pass\ndef f():\n    global told\n", 3),
    ],
}


@pytest.mark.parametrize(("name", "source", "count"), [(n, *case) for n, cases in COUNTS.items() for case in cases])
def test_a_measure_counts_what_its_docstring_says(readability, plant, name, source, count):
    assert getattr(readability, name)(plant(module=source)) == count


def test_self_and_cls_are_no_parameters_and_keyword_only_ones_are(readability, plant):
    files = plant(module="class A:\n    def f(self, a, /, b, *c, d, **e): pass\n    def g(cls): pass\nlambda x: x\n")
    assert sorted(arg.arg for arg in readability.parameters(files)) == ["a", "b", "c", "d", "e"]


def test_only_public_names_of_public_modules_are_expected_to_have_docstrings(readability, plant):
    public = "class A:\n    def f(self):\n        def inner(): pass\n    def _g(self): pass\n"
    source = public + "class _B:\n    def h(self): pass\n"
    files = plant(module=source, _private=source)
    assert [node.name for node in readability.public_definitions(files)] == ["A", "f"]


CIRCLES = {
    "no circle": ({"a": "import pkg.b", "b": "x = 1"}, 0, 0),
    "two modules": ({"a": "import pkg.b", "b": "from pkg import a"}, 2, 2),
    "relative imports": ({"sub__": "", "sub__a": "from .b import x", "sub__b": "from ..sub.a import y"}, 2, 2),
    "through a package": ({"sub__": "from pkg import a", "a": "from pkg.sub import x"}, 2, 2),
    "the package above is no edge": ({"": "from pkg import a", "a": "import pkg.b", "b": ""}, 0, 0),
    "in a function": ({"a": "import pkg.b", "b": "def f():\n    import pkg.a"}, 0, 2),
    "in a class and in try": ({"a": "class A:\n    import pkg.b", "b": "try:\n    import pkg.a\nfinally: pass"}, 2, 2),
    "for type checkers": ({"a": "import pkg.b", "b": "if TYPE_CHECKING:\n    import pkg.a"}, 0, 0),
    "the largest of two": (
        {
            "a": "import pkg.b",
            "b": "import pkg.a",
            "c": "import pkg.d",
            "d": "import pkg.e, pkg.a",
            "e": "import pkg.c",
        },
        3,
        3,
    ),
}


@pytest.mark.parametrize("case", CIRCLES)
def test_import_circles_are_those_of_statements_that_run(readability, plant, case):
    modules, at_import_time, lazy_ones_included = CIRCLES[case]
    files = plant(**{name or "__": text for name, text in modules.items()})
    assert readability.import_circle(files) == at_import_time
    assert readability.lazy_import_circle(files) == lazy_ones_included


def test_a_circle_of_thousands_of_modules_is_measured(readability, plant):
    files = plant(**{f"m{n}": f"import pkg.m{(n + 1) % 3000}" for n in range(3000)})
    assert readability.import_circle(files) == 3000


def test_tests_and_vendored_code_are_left_out(readability, plant):
    assert readability.count_files(plant(a="", tests__b="", _vendor__c="", sub___notebooks__d="")) == 1


def test_one_column_a_tree_is_printed_side_by_side(readability, plant, tmp_path, capsys):
    plant(module="x = 1 if a else 2\n")
    (tmp_path / "pkg-1.5.dist-info").mkdir()
    readability.main([f"before={tmp_path / 'pkg'}", str(tmp_path / "pkg")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| measure | before | pkg 1.5 |"
    assert "| conditional expressions per 1,000 lines of code | 1000.0 | 1000.0 |" in lines
    assert len(lines) == 2 + len(readability.MEASURES)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nowhere"], "nowhere is no folder; give the folder of a package"),
        (["empty"], "no Python file in "),
        (["broken"], "module.py cannot be parsed: "),
        (["a=fine", "a=fine"], "two columns are named 'a'"),
    ],
)
def test_a_tree_that_cannot_be_measured_is_an_error_that_names_it(
    readability, tmp_path, monkeypatch, arguments, problem
):
    for folder, text in {"empty": None, "broken": "def (", "fine": "x = 1"}.items():
        (tmp_path / folder).mkdir()
        if text is not None:
            (tmp_path / folder / "module.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=problem):
        readability.main(arguments)


def test_the_saved_table_has_all_measures(readability):
    import csv

    with (BENCHMARKS / "readability.csv").open(encoding="utf-8") as stream:
        assert [row["measure"] for row in csv.DictReader(stream)] == list(readability.MEASURES)


@pytest.mark.parametrize("folder", ["dspynb", "benchmarks", "tests"])
def test_no_identifier_is_a_participle_that_names_nothing(readability, folder):
    """`found` and the like: a name says what it holds. Files of earlier releases stay as they are."""
    uses = []
    for file in readability.read_tree(BENCHMARKS.parent / folder):
        allowed = {"asked"} if "world.asked" in file.text or ".fixtures." in file.module else set()
        if "from hypothesis import" in file.text:
            allowed.add("given")
        names = set(readability.identifiers([file])) & set(readability.VAGUE_NAMES)
        uses += [f"{file.module}: {name}" for name in sorted(names - allowed) if ".fixtures.v0" not in file.module]
    assert uses == []
