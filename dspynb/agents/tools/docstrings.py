"""Reads the description of a function and its parameters from a docstring in Google, NumPy or reST style."""

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
    """Return the text before the first section, and the descriptions of the parameters by name."""
    lines = inspect.cleandoc(text or "").splitlines()
    description: list[str] = []
    parameters: dict[str, list[str]] = {}
    section = ""
    is_numpy = False
    current: str | None = None  # the parameter that indented lines belong to
    for number, line in enumerate(lines):
        heading = _section_at(lines, number)
        rest_parameter = _REST_PARAMETER.match(line)
        if heading:
            section, is_numpy = heading
            current = None
        elif rest_parameter:
            section = "rest"
            current = rest_parameter[1]
            parameters[current] = [rest_parameter[2]]
        elif _REST.match(line):
            section = "rest"
            current = None
        elif not section:
            description.append(line)
        else:
            parameter = None
            if _lists_parameters(section):
                parameter = _parameter(line, lines[number:], is_numpy)
            if parameter:
                current = parameter[0]
                parameters[current] = [parameter[1]]
            elif current is not None and line[:1].isspace():
                parameters[current].append(line.strip())
    return "\n".join(description).strip(), {name: " ".join(filter(None, parts)) for name, parts in parameters.items()}


def _lists_parameters(section: str) -> bool:
    return section.startswith(("arg", "param", "keyword"))


def _section_at(lines: list[str], number: int) -> tuple[str, bool] | None:
    """Return the section whose heading is this line, and whether it is in NumPy style; None for other lines."""
    google = _GOOGLE.match(lines[number])
    if google:
        return google[1].lower(), False
    numpy = _NUMPY.match(lines[number])
    if numpy and number + 1 < len(lines) and re.fullmatch(r"-{3,}\s*", lines[number + 1]):
        return numpy[1].lower(), True
    return None


def _parameter(line: str, rest: list[str], is_numpy: bool) -> tuple[str, str] | None:
    """Return the name and description of the parameter that this line begins; None for other lines.

    ``rest``: this line and those after it; the first one that is not blank sets the indentation of parameters.
    """
    if is_numpy:
        match = re.match(r"^[*]{0,2}(\w+)\s*(?::.*)?$", line)
        return (match[1], "") if match else None
    indent = 0
    for following in rest:
        if following.strip():
            indent = len(following) - len(following.lstrip())
            break
    match = _PARAMETER.match(line.strip())
    if match and 0 < indent <= 4 and line[:indent].isspace():
        return match[1], match[2]
    return None
