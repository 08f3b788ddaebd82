"""The cases that still fail, by the part that is to fix them: ``python -m tests.cases.remaining [--json] [folder]``."""

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
    """A test that is expected to fail: its id, why, and what is wrong with its mark (empty if nothing is)."""

    test: str
    part: int
    reason: str
    problem: str = ""


class _Collected:
    """A pytest plugin that notes the tests which are collected."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.items = list(items)


def cases(folder: Path = HERE) -> list[Case]:
    """The xfails of a folder in the order of its tests; each set of parameters counts. Raises RuntimeError where the
    folder cannot be collected."""
    collected, output = _Collected(), io.StringIO()
    arguments = ["--collect-only", "-q", "-o", "addopts=", "-o", "filterwarnings=", "-p", "no:cacheprovider"]
    with contextlib.redirect_stdout(output):
        ended = pytest.main([*arguments, str(folder)], plugins=[collected])
    if ended not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"pytest could not collect {folder}:\n{output.getvalue()}")
    return [_case(item, mark) for item in collected.items for mark in item.iter_markers("xfail")]


def _case(item: pytest.Item, mark: pytest.Mark) -> Case:
    reason = str(mark.kwargs.get("reason", ""))
    part = _REASON.match(reason)
    return Case(item.nodeid, int(part[1]) if part else 0, reason, "; ".join(_problems(mark, part)))


def _problems(mark: pytest.Mark, part: Any) -> Iterator[str]:
    if mark.args:
        yield "it has a condition"
    if mark.kwargs.get("strict") is not True:
        yield "it is not strict"
    raises = mark.kwargs.get("raises")
    if not (isinstance(raises, type) and issubclass(raises, BaseException)):
        yield "raises= is no exception class"
    elif raises in (Exception, BaseException):
        yield f"raises={raises.__name__} is any failure"
    if part is None:
        yield "its reason does not begin with the part that fixes it, as in 'part 4: …'"


def report(found: list[Case]) -> str:
    """The cases by part, with a total for each."""
    parts = defaultdict(list)
    for case in found:
        parts[case.part].append(case)
    lines = []
    for part in sorted(parts):
        lines += ["", f"Part {part}: {len(parts[part])}"]
        lines += [f"  {case.test}\n      {case.reason}" for case in parts[part]]
    totals = ", ".join(f"part {part}: {len(parts[part])}" for part in sorted(parts))
    return "\n".join([*lines, "", f"{len(found)} in all ({totals})" if found else "None remain."]).lstrip("\n")


def main(arguments: list[str]) -> int:
    """Write the list; 1 where a mark is wrong."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # which take most of the time, and no test is run
    folders = [Path(argument) for argument in arguments if argument != "--json"]
    found = cases(*folders[:1])
    text = json.dumps([asdict(case) for case in found]) if "--json" in arguments else report(found)
    sys.stdout.write(text + "\n")
    wrong = [case for case in found if case.problem]
    for case in wrong:
        sys.stderr.write(f"{case.test}: {case.problem}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
