"""The table of doors and checks in docs/models.md.

``python -m tests.doors.table`` runs the checks of all doors, which takes some minutes, and writes the table.
``python -m tests.doors.table vLLM`` runs those of the doors with this word in their names, and leaves the other rows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dspynb.contrib.doctor.model_checks import MODEL_CHECKS
from tests.doors.registry import Door, all_doors
from tests.doors.suite import DoorReport, try_door

__all__ = ["PAGE", "header", "row", "rows_of_page", "write_rows"]

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
_BEGIN = "<!-- written by python -m tests.doors.table -->\n"
_END = "<!-- end of the table -->\n"


def header() -> list[str]:
    """The first two lines of the table."""
    titles = ["server and model", *(check.name for check in MODEL_CHECKS), "adapted"]
    return [_line(titles), _line(["---"] * len(titles))]


def row(door: Door, report: DoorReport) -> str:
    """The row of a door."""
    cells = []
    for result in report.results:
        cells.append("works" if result.outcome in door.outcomes else result.outcome)  # noqa: PERF401
    adapted = ", ".join(f"`{name}`" for name in sorted(set(report.adapted)))
    return _line([door.name, *cells, adapted or "nothing"])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def rows_of_page() -> list[str]:
    """The lines of the table in the page, with its header."""
    return PAGE.read_text(encoding="utf-8").partition(_BEGIN)[2].partition(_END)[0].splitlines()


def write_rows(rows: Sequence[str]) -> None:
    """Replace the table in the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    table = "".join(f"{line}\n" for line in [*header(), *rows])
    PAGE.write_text(before + _BEGIN + table + _END + rest.partition(_END)[2], encoding="utf-8")


def main(words: Sequence[str]) -> None:
    """Run the doors with one of these words in their names, or all doors, and write their rows."""
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in rows_of_page()[2:]}
    doors = all_doors()
    for door in doors:
        if not words or any(word in door.name for word in words):
            rows[door.name] = row(door, try_door(door))
    write_rows([rows[door.name] for door in doors if door.name in rows])


if __name__ == "__main__":
    main(sys.argv[1:])
