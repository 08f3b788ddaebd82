"""What the doctor found, for people and for programs, without keys."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dspynb.redact import redact

__all__ = ["OK", "WITHOUT", "WRONG", "Finding", "Report"]

OK, WITHOUT, WRONG = "ok", "without", "wrong"
_MARKS = {OK: "ok", WITHOUT: "-", WRONG: "WRONG"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. ``state``: ``ok``; ``without``: something optional is not there; ``wrong``: something is to be done.
    ``facts``: the same for programs."""

    name: str
    state: str
    says: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """All findings; ``Report.of`` takes keys out of them, and the name of who runs it."""

    head: Mapping[str, str]
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, head: Mapping[str, str], findings: Iterable[Finding]) -> Report:
        """The report of these findings."""
        shown = (Finding(f.name, f.state, _clean(f.says), _clean(f.facts)) for f in findings)
        return cls(_clean(head), tuple(shown))

    @property
    def fine(self) -> bool:
        """Whether nothing is wrong."""
        return all(finding.state != WRONG for finding in self.findings)

    def text(self) -> str:
        """The report in lines."""
        head = self.head
        first = f"dspynb {head['dspynb']}, Python {head['python']}, {head['platform']}"
        width = max(len(finding.name) for finding in self.findings)
        lines = [f"{_MARKS[f.state]:<5}  {f.name:<{width}}  {f.says}" for f in self.findings]
        wrong = sum(f.state == WRONG for f in self.findings)
        last = f"{wrong} to be put right: see WRONG." if wrong else "All that is required is there."
        return "\n".join([first, f"{head['from']}: {head['folder']}", "", *lines, "", last, ""])

    def json(self) -> str:
        """The report as a JSON object: ``fine``, the versions, and ``findings``, each with its facts."""
        findings = [{"name": f.name, "state": f.state, "says": f.says, **f.facts} for f in self.findings]
        return json.dumps({"fine": self.fine, **self.head, "findings": findings}, indent=2, ensure_ascii=False) + "\n"


def _clean(value: Any) -> Any:
    """The value with keys taken out of its texts, and the home folder, which bears a name."""
    if isinstance(value, str):
        home = os.path.expanduser("~")  # noqa: PTH111  # Path.home() raises where there is none
        return redact(re.sub(rf"{re.escape(home)}(?=/|\b)", "~", value) if len(home) > 1 else value)
    if isinstance(value, Mapping):
        return {name: _clean(item) for name, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list | tuple) else value
