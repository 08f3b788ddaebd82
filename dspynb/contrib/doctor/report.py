"""The doctor's report, as text and as JSON, without keys."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dspynb.redact import redact

__all__ = ["OK", "WITHOUT", "WRONG", "Finding", "Report", "clean"]

OK = "ok"
"""The state of a part that works."""
WITHOUT = "without"
"""The state of an optional part that is missing."""
WRONG = "wrong"
"""The state of a part that needs repair."""
_MARKS = {OK: "ok", WITHOUT: "-", WRONG: "WRONG"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    name: str
    """The part that was checked."""
    state: str
    """OK, WITHOUT or WRONG."""
    message: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The values behind the message, for programs."""


@dataclass(frozen=True, slots=True)
class Report:
    """The findings of all checks. ``Report.of`` removes keys from them, and the user's name in paths."""

    head: Mapping[str, str]
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, head: Mapping[str, str], findings: Iterable[Finding]) -> Report:
        """Make the report of these findings, without keys. ``head``: versions and places, see `head` in installed."""
        cleaned = [replace(item, message=clean(item.message), facts=clean(item.facts)) for item in findings]
        return cls(clean(head), tuple(cleaned))

    @property
    def fine(self) -> bool:
        """Whether nothing is wrong."""
        return all(finding.state != WRONG for finding in self.findings)

    def text(self) -> str:
        """The report as lines of text."""
        head = self.head
        width = max(len(finding.name) for finding in self.findings)
        heading = f"dspynb {head['dspynb']}, Python {head['python']}, {head['platform']}"
        place = f"{head['from']}: {head['folder']}"
        lines = [f"{_MARKS[item.state]:<5}  {item.name:<{width}}  {item.message}" for item in self.findings]
        wrong_count = sum(finding.state == WRONG for finding in self.findings)
        summary = f"{wrong_count} to be put right: see WRONG." if wrong_count else "All that is required is there."
        return "\n".join([heading, place, "", *lines, "", summary, ""])

    def json(self) -> str:
        """The report as a JSON object: ``fine``, the versions, and ``findings``, each with its facts."""
        findings = [
            {"name": item.name, "state": item.state, "says": item.message, **item.facts} for item in self.findings
        ]
        return json.dumps({"fine": self.fine, **self.head, "findings": findings}, indent=2, ensure_ascii=False) + "\n"


def clean(value: object) -> Any:
    """The value for a report: with keys redacted in its texts, and ``~`` in place of the home folder, whose path has a
    user name."""
    if isinstance(value, str):
        home = os.path.expanduser("~")  # noqa: PTH111  # Path.home() raises if there is no home
        if len(home) > 1:
            value = re.sub(rf"{re.escape(home)}(?=/|\b)", "~", value)
        return redact(value)
    if isinstance(value, Mapping):
        return {name: clean(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value
