"""Join the JavaScript sources of this folder into ``views/live/live.js``.

anywidget loads a single module. A joined file that is committed means that an install needs no npm.

    python dspynb/views/js/join.py            write live.js
    python dspynb/views/js/join.py --check    fail if live.js differs from the joined sources

Each file stands after the files that it imports. Imports, the word ``export`` and comment lines are removed; the names
of the files remain as headings. The joined sources share one scope, so a name may be defined in only one file.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
JOINED = SOURCES.parent / "live" / "live.js"
ENTRIES = ("saved_page.js", "widget.js")
"""The files that no other file imports. A saved page has everything before the last one (``views/html/static.py``)."""
HEADING = "/* ── {} ── */"
PREAMBLE = "/* Joined from views/js/*.js by views/js/join.py. Edit those files, and run it again. */\n\n"

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+\.js)";\n', re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*(?:/\*.*?\*/[ \t]*|//[^\n]*)\n", re.MULTILINE | re.DOTALL)
_DEFINITION = re.compile(r"^(?:async )?(?:function|class|const|let) ([\w$]+)", re.MULTILINE)


class JoinError(Exception):
    """The sources cannot be joined. The text says which file causes this, and why."""


def join(sources: dict[str, str], entries: tuple[str, ...] = ENTRIES) -> str:
    """The joined module.

    Args:
        sources: file name → text.
        entries: the files that no other file imports.

    Raises:
        JoinError: a file is missing or never imported, has imports or exports that cannot be joined, or defines a name
            that another file defines too; or files import each other.
    """
    order = _ordered(sources, entries)
    unused = sorted(sources.keys() - set(order))
    if unused:
        raise JoinError(f"no other file imports {', '.join(unused)}")
    parts = [f"{HEADING.format(name)}\n{_body(name, sources[name], name == entries[-1])}" for name in order]
    joined = PREAMBLE + "\n".join(parts)
    _check_names(joined)
    return joined


def read_sources() -> dict[str, str]:
    """File name → text, for all sources."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(SOURCES.glob("*.js"))}


def _ordered(sources: dict[str, str], entries: tuple[str, ...]) -> list[str]:
    """The files, each after the files that it imports."""
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
    """The code of a file without imports, comments and ``export``. Only the last file may have a default export."""
    code = _COMMENT.sub("", _IMPORT.sub("", source))
    code = re.sub(r"^export (?=(?:async )?(?:function|class|const|let) )", "", code, flags=re.MULTILINE)
    remaining = re.search(r"^(?:import|export)\b.*", code, flags=re.MULTILINE)
    if remaining and not (is_last and remaining[0].startswith("export default ")):
        known = '`import { … } from "./file.js";` and `export` before a definition'
        raise JoinError(f"{name}: of imports and exports only {known} can be joined, not {remaining[0]!r}")
    return re.sub(r"\n{3,}", "\n\n", code).strip() + "\n"


def _check_names(joined: str) -> None:
    names = _DEFINITION.findall(joined)
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise JoinError(f"defined in more than one file: {', '.join(duplicates)}")


def main() -> None:
    """Write live.js, or check it."""
    joined = join(read_sources())
    if "--check" not in sys.argv[1:]:
        JOINED.write_text(joined, encoding="utf-8", newline="\n")
    elif JOINED.read_text(encoding="utf-8") != joined:
        sys.exit("views/live/live.js differs from the joined views/js/*.js: run `python dspynb/views/js/join.py`")


if __name__ == "__main__":
    main()
