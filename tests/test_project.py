"""What the project promises of itself: requirements in step, a README whose commands run."""

from __future__ import annotations

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


def test_the_conda_environment_is_in_step_with_pyproject():
    yaml = pytest.importorskip("yaml")
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    listed = [d for d in environment["dependencies"] if isinstance(d, str) and d != "pip"]
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = [*PYPROJECT["project"]["dependencies"], *(r for rs in extras.values() for r in rs)]
    minimums = {_name(r): _minimum(r) for r in wanted}
    assert f"python{PYPROJECT['project']['requires-python']}" in listed
    wrong = {
        d: minimums.get(_name(d)) for d in listed if _name(d) != "python" and minimums.get(_name(d)) != _minimum(d)
    }
    assert wrong == {}
    assert {_name(d) for d in PYPROJECT["project"]["dependencies"]} <= {_name(d) for d in listed}
    (pip,) = (d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-e .[dev]"]


def test_the_readme_has_the_two_commands():
    for name, start in (
        ("demo", 'pip install -e ".[local]" && dspynb demo'),
        ("tests", 'pip install -e ".[dev]" && pytest'),
    ):
        done = subprocess.run(
            [sys.executable, str(ROOT / ".ci" / "readme_command.py"), name], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == start


def test_the_version_is_told_once():
    import dspynb

    assert dspynb.__version__ == PYPROJECT["project"]["version"]
    assert f"## {dspynb.__version__}" in (ROOT / "CHANGELOG.md").read_text()
