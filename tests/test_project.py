"""The requirements in all files agree, the commands of the README run, and tutorials have the same form."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _name(requirement):
    return requirement.split(">")[0].split("[")[0].strip()


def _minimum(requirement):
    return requirement.split(">=")[1] if ">=" in requirement else None


def test_the_conda_environment_agrees_with_pyproject():
    yaml = pytest.importorskip("yaml")
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    listed = [d for d in environment["dependencies"] if isinstance(d, str) and d != "pip"]
    extras = PYPROJECT["project"]["optional-dependencies"]
    requirements = [*PYPROJECT["project"]["dependencies"], *(r for rs in extras.values() for r in rs)]
    minimums = {_name(r): _minimum(r) for r in requirements}
    assert f"python{PYPROJECT['project']['requires-python']}" in listed
    wrong = {
        d: minimums.get(_name(d)) for d in listed if _name(d) != "python" and minimums.get(_name(d)) != _minimum(d)
    }
    assert wrong == {}
    assert {_name(d) for d in PYPROJECT["project"]["dependencies"]} <= {_name(d) for d in listed}
    (pip,) = (d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-e .[dev]"]


def test_the_lowest_set_has_each_bound_of_the_package_and_its_extras():
    command = [sys.executable, str(ROOT / ".ci" / "lowest.py")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    extras = PYPROJECT["project"]["optional-dependencies"]
    needed = {*PYPROJECT["project"]["dependencies"], *(r for name, rs in extras.items() if name != "dev" for r in rs)}
    needed = {r for r in needed if _name(r) != "dspynb"}  # an extra that contains others
    assert {r for r in printed if "==" in r} == {r.replace(">=", "==") for r in needed} | {"dspy==3.2", "pyarrow==17"}


def test_the_readme_has_the_two_commands():
    for name, command in (
        ("demo", 'pip install -e ".[local]" && dspynb demo'),
        ("tests", 'pip install -e ".[dev]" && pytest'),
    ):
        process = subprocess.run(
            [sys.executable, str(ROOT / ".ci" / "readme_command.py"), name], capture_output=True, text=True, check=True
        )
        assert process.stdout.strip() == command


def test_the_version_is_the_same_in_all_files():
    import dspynb

    assert dspynb.__version__ == PYPROJECT["project"]["version"]
    assert f"## {dspynb.__version__}" in (ROOT / "CHANGELOG.md").read_text()


TUTORIALS = sorted((ROOT / "notebooks").glob("*.ipynb"))
OWN_MODEL = (
    '# To run it on your own model: lm = dn.LM("openai/gpt-4.1-mini"); on the embedded one: lm = dn.LocalLM()\nlm = '
)


def _sources(path, kind):
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_sets_its_model_in_one_line_and_links_to_the_next(path):
    code = _sources(path, "code")
    prose = _sources(path, "markdown")
    assert "\n".join(code).count(OWN_MODEL) == code[0].count(OWN_MODEL) == 1
    assert len(re.findall(r"\bdn\.configure\(lm=", "\n".join(code))) == 1
    links = set(re.findall(r"\]\((\S+?\.ipynb)\)", "\n".join(prose)))
    assert links <= {tutorial.name for tutorial in TUTORIALS}
    number = TUTORIALS.index(path)
    neighbours = TUTORIALS[max(number - 1, 0) : number] + TUTORIALS[number + 1 : number + 2]
    assert {tutorial.name for tutorial in neighbours} <= links
