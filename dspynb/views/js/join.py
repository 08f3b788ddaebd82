"""Join the sources of this folder into ``views/live/live.js``: anywidget loads one module, and an install needs no npm.

    python dspynb/views/js/join.py            write live.js
    python dspynb/views/js/join.py --check    fail if live.js is not what the sources give

Each file comes after those that it imports. Imports, the word ``export`` and lines of comments are left out; the
files' names remain as headings. All sources share one scope then, so a name may be defined in one file only.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
JOINED = SOURCES.parent / "live" / "live.js"
ENTRIES = ("saved_page.js", "widget.js")
"""Where the imports begin. A saved page takes all that stands before the last one (``views/html/static.py``)."""
HEADING = "/* ── {} ── */"
PREAMBLE = "/* Joined from views/js/*.js by views/js/join.py. Edit those files, and run it again. */\n\n"

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+\.js)";\n', re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*(?:/\*.*?\*/[ \t]*|//[^\n]*)\n", re.MULTILINE | re.DOTALL)
_DEFINITION = re.compile(r"^(?:async )?(?:function|class|const|let) ([\w$]+)", re.MULTILINE)


class JoinError(Exception):
    """The sources cannot be joined; the text says which file and why."""


def join(sources: dict[str, str], entries: tuple[str, ...] = ENTRIES) -> str:
    """The joined module. ``sources``: text of each file by its name. Raises JoinError."""
    order = _ordered(sources, entries)
    if unused := sorted(sources.keys() - set(order)):
        raise JoinError(f"no other file imports {', '.join(unused)}")
    parts = [f"{HEADING.format(name)}\n{_body(name, sources[name], name == entries[-1])}" for name in order]
    joined = PREAMBLE + "\n".join(parts)
    _check_names(joined)
    return joined


def read_sources() -> dict[str, str]:
    """The text of each source by its file name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(SOURCES.glob("*.js"))}


def _ordered(sources: dict[str, str], entries: tuple[str, ...]) -> list[str]:
    """The files, each after those that it imports."""
    order: list[str] = []

    def visit(name: str, importers: tuple[str, ...]) -> None:
        if name in importers:
            raise JoinError(f"these files import each other: {' → '.join([*importers, name])}")
        if name in order:
            return
        if name not in sources:
            raise JoinError(f"{importers[-1]} imports {name}, which is not here")
        for imported in _IMPORT.findall(sources[name]):
            visit(imported, (*importers, name))
        order.append(name)

    for entry in entries:
        visit(entry, ())
    return order


def _body(name: str, source: str, is_last: bool) -> str:
    """The code of a file without imports, comments and ``export``. Only the last file may keep its default export."""
    code = _COMMENT.sub("", _IMPORT.sub("", source))
    code = re.sub(r"^export (?=(?:async )?(?:function|class|const|let) )", "", code, flags=re.MULTILINE)
    left = re.search(r"^(?:import|export)\b.*", code, flags=re.MULTILINE)
    if left and not (is_last and left[0].startswith("export default ")):
        known = '`import { … } from "./file.js";` and `export` before a definition'
        raise JoinError(f"{name}: of imports and exports only {known} can be joined, not {left[0]!r}")
    return re.sub(r"\n{3,}", "\n\n", code).strip() + "\n"


def _check_names(joined: str) -> None:
    names = _DEFINITION.findall(joined)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise JoinError(f"defined in more than one file: {', '.join(twice)}")


def main() -> None:
    """Write live.js, or compare it with the sources."""
    joined = join(read_sources())
    if "--check" not in sys.argv[1:]:
        JOINED.write_text(joined, encoding="utf-8", newline="\n")
    elif JOINED.read_text(encoding="utf-8") != joined:
        sys.exit("views/live/live.js is not what views/js/*.js give: run `python dspynb/views/js/join.py`")


if __name__ == "__main__":
    main()
