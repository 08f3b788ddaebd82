"""What a docstring says: of the function, and of its parameters (Google, NumPy or reST style)."""

from __future__ import annotations

import inspect
import re

__all__ = ["read_docstring"]

_SECTIONS = (
    "args|arguments|parameters|params|keyword args|keyword arguments|returns|return|yields|raises|examples?|notes?"
)
_GOOGLE = re.compile(rf"^({_SECTIONS}):[ \t]*$", re.IGNORECASE)
_NUMPY = re.compile(rf"^({_SECTIONS})[ \t]*$", re.IGNORECASE)
_REST = re.compile(r"^:(\w+)[^:]*:")
_REST_PARAMETER = re.compile(r"^:(?:param|parameter|arg|argument)\s+(?:.*\s)?(\w+)\s*:\s*(.*)$")
_PARAMETER = re.compile(r"^[*]{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")


def read_docstring(text: str | None) -> tuple[str, dict[str, str]]:
    """(all that stands before the first section, parameter name → its description)."""
    lines = inspect.cleandoc(text or "").splitlines()
    told: list[str] = []
    parameters: dict[str, list[str]] = {}
    section, current, numpy = "", None, False
    for number, line in enumerate(lines):
        if opened := _section_at(lines, number):
            (section, numpy), current = opened, None
        elif rest := _REST_PARAMETER.match(line):
            section, current = "rest", rest[1]
            parameters[current] = [rest[2]]
        elif _REST.match(line):
            section, current = "rest", None
        elif not section:
            told.append(line)
        elif _named(section) and (found := _parameter(line, lines[number:], numpy)):
            current = found[0]
            parameters[current] = [found[1]]
        elif current is not None and line[:1].isspace():
            parameters[current].append(line.strip())
    return "\n".join(told).strip(), {name: " ".join(filter(None, parts)) for name, parts in parameters.items()}


def _named(section: str) -> bool:
    return section.startswith(("arg", "param", "keyword"))


def _section_at(lines: list[str], number: int) -> tuple[str, bool] | None:
    """(the section that begins with this line, whether in NumPy's style)."""
    if google := _GOOGLE.match(lines[number]):
        return google[1].lower(), False
    numpy = _NUMPY.match(lines[number])
    if numpy and number + 1 < len(lines) and re.fullmatch(r"-{3,}\s*", lines[number + 1]):
        return numpy[1].lower(), True
    return None


def _parameter(line: str, rest: list[str], numpy: bool) -> tuple[str, str] | None:
    """(name, what its line says) where the line begins a parameter."""
    if numpy:
        found = re.match(r"^[*]{0,2}(\w+)\s*(?::.*)?$", line)
        return (found[1], "") if found else None
    indent = next((len(x) - len(x.lstrip()) for x in rest if x.strip()), 0)
    found = _PARAMETER.match(line.strip())
    return (found[1], found[2]) if found and 0 < indent <= 4 and line[:indent].isspace() else None
