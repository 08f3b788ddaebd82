"""All figures of speed and quality come from the CSV files of the benchmarks."""

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
    "0.1 s": "the time that a stub takes",
    "10 ms": "the maximum delay of a run file behind its run",
}
UNITS = r"(?:µs|ms|s|seconds|minutes|MB|GB|%|times|rows/s|x|×|-fold)"


@pytest.fixture(scope="module")
def report():
    spec = importlib.util.spec_from_file_location("report", BENCHMARKS / "report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", TABLES)
def test_a_table_matches_its_csv_and_says_when_it_was_measured(report, name):
    text = BENCHMARKS.joinpath(f"{name}.md").read_text(encoding="utf-8")
    assert text == report.markdown(name, report.read(name))
    assert re.search(rf"Measured \d{{4}}-\d\d-\d\d.* by `{name}.py`", text)
    assert BENCHMARKS.joinpath(f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_tables_of_the_readme_match_the_benchmarks(report):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- benchmarks: (\w+) -->", text)) == set(report.QUOTES)
    assert text == report.with_tables(text), "run: python benchmarks/report.py"


def test_the_readme_has_no_other_measurements(report):
    text = report.BLOCK.sub("", (ROOT / "README.md").read_text(encoding="utf-8"))
    text = re.sub(r"```.*?```|`[^`\n]*`|\]\([^)]*\)", "", text, flags=re.DOTALL)
    assert set(re.findall(rf"\d[\d.,]*\s?{UNITS}(?!\w)", text)) <= set(NO_MEASUREMENTS)
