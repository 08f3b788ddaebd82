"""List the cases that still fail, by the part that will fix them.

python -m tests.cases.remaining [--json] [folder]
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
_REASON = re.compile(r"part (\d+): \S")


@dataclass(frozen=True)
class Case:
    """A test that is expected to fail: its id, the reason, and the problem of its mark (empty if there is none)."""

    test: str
    part: int
    reason: str
    problem: str = ""


class _Collected:
    """A pytest plugin that stores the collected tests."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.items = list(items)


def cases(folder: Path = HERE) -> list[Case]:
    """The xfail marks in a folder, in the order of its tests. Each set of parameters counts as one case.

    Raises:
        RuntimeError: pytest cannot collect the folder.
    """
    collected = _Collected()
    output = io.StringIO()
    arguments = ["--collect-only", "-q", "-o", "addopts=", "-o", "filterwarnings=", "-p", "no:cacheprovider"]
    with contextlib.redirect_stdout(output):
        status = pytest.main([*arguments, str(folder)], plugins=[collected])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"pytest could not collect {folder}:\n{output.getvalue()}")
    result = []
    for item in collected.items:
        result += [_case(item, mark) for mark in item.iter_markers("xfail")]
    return result


def _case(item: pytest.Item, mark: pytest.Mark) -> Case:
    reason = str(mark.kwargs.get("reason", ""))
    part = _REASON.match(reason)
    number = int(part[1]) if part else 0
    return Case(item.nodeid, number, reason, "; ".join(_problems(mark, part)))


def _problems(mark: pytest.Mark, part: Any) -> Iterator[str]:
    if mark.args:
        yield "it has a condition"
    if mark.kwargs.get("strict") is not True:
        yield "it is not strict"
    raises = mark.kwargs.get("raises")
    if not (isinstance(raises, type) and issubclass(raises, BaseException)):
        yield "raises= is not an exception class"
    elif raises in (Exception, BaseException):
        yield f"raises={raises.__name__} accepts any failure"
    if part is None:
        yield "its reason does not begin with the part that fixes it, as in 'part 4: …'"


def report(failing: list[Case]) -> str:
    """The text of the list: the cases by part, with a total for each."""
    parts = defaultdict(list)
    for case in failing:
        parts[case.part].append(case)
    lines = []
    for part in sorted(parts):
        lines += ["", f"Part {part}: {len(parts[part])}"]
        lines += [f"  {case.test}\n      {case.reason}" for case in parts[part]]
    totals = ", ".join(f"part {part}: {len(parts[part])}" for part in sorted(parts))
    summary = "None remain."
    if failing:
        summary = f"{len(failing)} in all ({totals})"
    return "\n".join([*lines, "", summary]).lstrip("\n")


def main(arguments: list[str]) -> int:
    """Print the list. The exit status is 1 if a mark is wrong."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # plugins take most of the time, and no test is run
    folders = [Path(argument) for argument in arguments if argument != "--json"]
    failing = cases(*folders[:1])
    text = report(failing)
    if "--json" in arguments:
        text = json.dumps([asdict(case) for case in failing])
    sys.stdout.write(text + "\n")
    wrong = [case for case in failing if case.problem]
    for case in wrong:
        sys.stderr.write(f"{case.test}: {case.problem}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
