"""What is told of speed and quality comes from the files of the benchmarks, and nowhere else."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
TABLES = sorted(path.stem for path in BENCHMARKS.glob("*.csv") if not path.stem.startswith("optimizers_"))
NO_MEASUREMENTS = {
    "93 MB": "the size of the embedded model's file",
    "0.1 s": "how long a stub is told to take",
    "10 ms": "how long a run file may lag behind its run",
}
UNITS = r"(?:µs|ms|s|seconds|minutes|MB|GB|%|times|rows/s|x|×|-fold)"


@pytest.fixture(scope="module")
def report():
    spec = importlib.util.spec_from_file_location("report", BENCHMARKS / "report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_that_of_its_figures_and_says_when_they_were_measured(report, name):
    told = BENCHMARKS.joinpath(f"{name}.md").read_text(encoding="utf-8")
    assert told == report.markdown(name, report.read(name))
    assert re.search(rf"Measured \d{{4}}-\d\d-\d\d.* by `{name}.py`", told)
    assert BENCHMARKS.joinpath(f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_readmes_tables_are_those_of_the_benchmarks(report):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- benchmarks: (\w+) -->", text)) == set(report.QUOTES)
    assert text == report.with_tables(text), "run: python benchmarks/report.py"


def test_no_other_number_in_the_readme_is_a_measurement(report):
    text = report.BLOCK.sub("", (ROOT / "README.md").read_text(encoding="utf-8"))
    text = re.sub(r"```.*?```|`[^`\n]*`|\]\([^)]*\)", "", text, flags=re.DOTALL)
    assert set(re.findall(rf"\d[\d.,]*\s?{UNITS}(?!\w)", text)) <= set(NO_MEASUREMENTS)
