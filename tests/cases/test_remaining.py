"""The list of known failures is complete, and every mark says what fails today and which part will fix it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def remaining(*arguments):
    """The exit status, output and errors of the script."""
    command = [sys.executable, "-m", "tests.cases.remaining", *map(str, arguments)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    return process.returncode, process.stdout, process.stderr


def test_every_xfail_is_strict_and_names_its_failure_and_the_part_that_fixes_it():
    status, output, problems = remaining("--json")
    assert (status, problems) == (0, "")
    failing = json.loads(output)
    assert {case["problem"] for case in failing} <= {""}
    assert all(2 <= case["part"] <= 15 for case in failing)


def test_no_case_decides_while_it_runs_that_it_fails():
    sources = [path for path in Path(__file__).parent.glob("*.py") if path.name != Path(__file__).name]
    late = ("pytest.xfail(", "applymarker(", "add_marker(")  # such marks are not in the list
    assert [path.name for path in sources if any(word in path.read_text() for word in late)] == []


def test_every_expected_failure_of_the_suite_is_among_the_cases():
    here = Path(__file__).parent
    sources = [path for path in (ROOT / "tests").rglob("*.py") if here not in path.parents]
    assert [path.name for path in sources if "mark.xfail" in path.read_text(encoding="utf-8")] == []


WRONG = {
    "raises=ValueError, reason='part 4: no'": "it is not strict",
    "strict=True, reason='part 4: no'": "raises= is not an exception class",
    "strict=True, raises=(ValueError, TypeError), reason='part 4: no'": "raises= is not an exception class",
    "strict=True, raises=Exception, reason='part 4: no'": "raises=Exception accepts any failure",
    "strict=True, raises=ValueError, reason='it fails'": "its reason does not begin with the part",
    "True, strict=True, raises=ValueError, reason='part 4: no'": "it has a condition",
}


def test_every_wrong_mark_is_reported(tmp_path):
    tests = [
        f"@pytest.mark.xfail({mark})\ndef test_{number}():\n    raise ValueError\n" for number, mark in enumerate(WRONG)
    ]
    (tmp_path / "test_x.py").write_text("\n\n".join(["import pytest\n", *tests]))
    status, _, problems = remaining(tmp_path)
    assert status == 1
    lines = [line for line in problems.splitlines() if line]
    assert len(lines) == len(WRONG)
    for number, (line, problem) in enumerate(zip(lines, WRONG.values(), strict=True)):
        assert f"test_{number}: " in line
        assert problem in line


def test_each_set_of_parameters_counts_in_the_total_of_its_part(tmp_path):
    (tmp_path / "test_x.py").write_text(
        "import pytest\n\n\n"
        "@pytest.mark.slow\n"
        "@pytest.mark.xfail(strict=True, raises=ValueError, reason='part 4: no')\n"
        "@pytest.mark.parametrize('x', [1, 2])\n"
        "def test_it(x):\n    raise ValueError\n\n\n"
        "@pytest.mark.parametrize('x', [1, pytest.param(2, marks=pytest.mark.xfail(strict=True, raises=KeyError, "
        "reason='part 6: no'))])\n"
        "def test_other(x):\n    {1: 1}[x]\n"
    )
    status, output, problems = remaining(tmp_path)
    assert (status, problems) == (0, "")
    assert "Part 4: 2\n" in output
    assert "Part 6: 1\n" in output
    assert "test_x.py::test_other[2]\n      part 6: no" in output
    assert output.endswith("3 in all (part 4: 2, part 6: 1)\n")


def test_a_folder_that_cannot_be_collected_is_no_empty_list(tmp_path):
    (tmp_path / "test_x.py").write_text("import nothing_of_that_name\n")
    status, output, problems = remaining(tmp_path)
    assert (status, output) == (1, "")
    assert "nothing_of_that_name" in problems
