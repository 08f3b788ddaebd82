"""Write the table of DSPy's names in docs/migration.md from dspynb's own table: ``python -m tests.dspy_names``."""

from __future__ import annotations

from pathlib import Path

import dspynb
from dspynb.contrib.migration.dspy_names import DSPY_NAMES

PAGE = Path(dspynb.__file__).parent.parent / "docs" / "migration.md"
BEGIN = "<!-- names: written by python -m tests.dspy_names -->\n"
END = "<!-- end of names -->"


def table() -> str:
    """The table as Markdown: one row for each name of DSPy."""
    lines = ["| DSPy 3.4.1 | dspynb | |", "|---|---|---|"]
    for name, (ours, note) in sorted(DSPY_NAMES.items(), key=lambda item: item[0].casefold()):
        lines.append(f"| `{name}` | {f'`{ours}`' if ours else 'deliberately not'} | {note} |")
    return "\n".join(lines) + "\n"


def page_text(text: str) -> str:
    """The text of the page with the table as it is now."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(page_text(PAGE.read_text()))
