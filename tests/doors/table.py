"""The tables of doors in docs/models.md: the checks, and what the record of a call has.

``python -m tests.doors.table`` runs all doors, which takes some minutes, and writes the tables.
``python -m tests.doors.table vLLM`` runs the doors with this word in their names, and leaves the other rows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dspynb.contrib.doctor.model_checks import MODEL_CHECKS
from tests.doors import fields
from tests.doors.registry import Door, all_doors
from tests.doors.suite import DoorReport, try_door

__all__ = ["CHECKS", "FIELDS", "PAGE", "PageTable", "header", "line", "name_of", "row", "titles"]

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
_END = "<!-- end of the table -->\n"


@dataclass(frozen=True)
class PageTable:
    """A table in the page, between two comments. ``begin``: the first one."""

    begin: str

    def rows(self) -> list[str]:
        """The lines of the table, with its header."""
        return PAGE.read_text(encoding="utf-8").partition(self.begin)[2].partition(_END)[0].splitlines()

    def write(self, lines: Sequence[str]) -> None:
        """Replace the lines of the table."""
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(self.begin)
        text = "".join(f"{each}\n" for each in lines)
        PAGE.write_text(before + self.begin + text + _END + rest.partition(_END)[2], encoding="utf-8")


CHECKS = PageTable("<!-- written by python -m tests.doors.table -->\n")
FIELDS = PageTable("<!-- the fields of the record, written by python -m tests.doors.table -->\n")


def header(names: Sequence[str]) -> list[str]:
    """The first two lines of a table."""
    return [line(names), line(["---"] * len(names))]


def titles() -> list[str]:
    """The titles of the columns of the table of checks."""
    return ["server and model", *(check.name for check in MODEL_CHECKS), "adapted"]


def row(door: Door, report: DoorReport) -> str:
    """The row of a door in the table of checks."""
    cells = []
    for result in report.results:
        cells.append("works" if result.outcome in door.outcomes else result.outcome)  # noqa: PERF401
    adapted = ", ".join(f"`{name}`" for name in sorted(set(report.adapted)))
    return line([door.name, *cells, adapted or "nothing"])


def line(cells: Sequence[str]) -> str:
    """The line of a row."""
    return f"| {' | '.join(cells)} |"


def name_of(row_line: str) -> str:
    """The name of the door of a row."""
    return row_line.split(" | ", maxsplit=1)[0].removeprefix("| ")


def main(words: Sequence[str]) -> None:
    """Run the doors with one of these words in their names, or all doors, and write their rows."""
    checks = {name_of(row_line): row_line for row_line in CHECKS.rows()[2:]}
    records = {name_of(row_line): row_line for row_line in FIELDS.rows()[2:]}
    doors = all_doors()
    for door in doors:
        if not words or any(word in door.name for word in words):
            checks[door.name] = row(door, try_door(door))
            records[door.name] = line(fields.row(door, fields.make_calls(door)))
    CHECKS.write([*header(titles()), *(checks[door.name] for door in doors if door.name in checks)])
    FIELDS.write([*header(fields.titles()), *(records[door.name] for door in doors if door.name in records)])


if __name__ == "__main__":
    main(sys.argv[1:])
