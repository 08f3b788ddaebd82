"""The report of the checks of one model, as a table to paste into an issue and as JSON, without secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dspynb.contrib.doctor.model_checks import REPORTED, CheckResult
from dspynb.contrib.doctor.report import clean

__all__ = ["LiveReport"]

_COLUMNS = ("check", "outcome", "calls", "tokens", "USD at most", "detail")
_NUMBERS = ("calls", "tokens", "USD at most")


@dataclass(frozen=True, slots=True)
class LiveReport:
    """What the checks of a model showed.

    ``head``: versions and settings, by name. ``adapted``: the settings that were adapted to the model. ``results``: one
    for each check, in their order. ``usd``: what was spent at most; ``max_usd``: the limit, None for a model that costs
    nothing.
    """

    head: Mapping[str, str]
    adapted: Sequence[str]
    results: Sequence[CheckResult]
    usd: float
    max_usd: float | None

    @property
    def fine(self) -> bool:
        """Whether no check fails."""
        return all(result.outcome != "fails" for result in self.results)

    @property
    def calls(self) -> int:
        """The number of calls."""
        return sum(result.calls for result in self.results)

    @property
    def tokens(self) -> int | None:
        """The number of tokens; None if a call did not report them."""
        total = 0
        for result in self.results:
            if result.tokens is None:
                return None
            total += result.tokens
        return total

    @property
    def reported(self) -> list[str]:
        """The fields of the record of a call that the provider fills."""
        names: set[str] = set()
        for result in self.results:
            names.update(result.reported)
        return [name for name in REPORTED if name in names]

    def text(self) -> str:
        """The report in Markdown, with columns of equal width."""
        reported = ", ".join(self.reported) or "nothing"
        facts = {**self.head, "adapted": "; ".join(self.adapted) or "nothing", "reported": reported}
        lines = [f"- {name}: {_cell(clean(value))}" for name, value in facts.items()]
        return "\n".join([*lines, "", *self._table(), "", self._summary(), ""])

    def _table(self) -> list[str]:
        rows = [list(_COLUMNS)]
        for result in self.results:
            row = [result.name, result.outcome, *_amounts(result), _cell(clean(result.detail))]
            rows.append(row)
        widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS) - 1)]
        rules = []
        for name, width in zip(_COLUMNS, [*widths, len("detail")], strict=True):
            is_number = name in _NUMBERS
            rules.append("-" * (width - is_number) + ":" * is_number)
        lines = [_line(row, widths) for row in rows]
        lines.insert(1, _line(rules, widths))
        return lines

    def _summary(self) -> str:
        counts: dict[str, int] = {}
        for result in self.results:
            counts[result.outcome] = counts.get(result.outcome, 0) + 1
        outcomes = ", ".join(f"{outcome}: {count}" for outcome, count in counts.items())
        tokens = "an unknown number of" if self.tokens is None else str(self.tokens)
        cost = "no cost"
        if self.max_usd is not None:
            cost = f"at most USD {self.usd:.4f} of {self.max_usd:g}"
        return f"{outcomes}; {self.calls} calls, {tokens} tokens, {cost}."

    def json(self) -> str:
        """The report as a JSON object: ``fine``, the versions and settings, ``adapted``, ``reported``, the totals, and
        ``checks``."""
        checks = [asdict(result) for result in self.results]
        facts: dict[str, Any] = {
            "fine": self.fine,
            **{name.replace(" ", "_"): value for name, value in self.head.items()},
            "adapted": list(self.adapted),
            "reported": self.reported,
            "calls": self.calls,
            "tokens": self.tokens,
            "usd": self.usd,
            "max_usd": self.max_usd,
            "checks": checks,
        }
        return json.dumps(clean(facts), indent=2, ensure_ascii=False) + "\n"


def _amounts(result: CheckResult) -> list[str]:
    """The calls, tokens and USD of a check, as texts."""
    tokens = "unknown" if result.tokens is None else str(result.tokens)
    usd = "0" if not result.usd else f"{result.usd:.4f}"
    return [str(result.calls), tokens, usd]


def _cell(text: str) -> str:
    """A text for one cell of a table in Markdown, in which it is shown as it is."""
    return re.sub(r"([|<])", r"\\\1", " ".join(text.split()))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = []
    for name, cell, width in zip(_COLUMNS, cells[:-1], widths, strict=False):
        padded.append(cell.rjust(width) if name in _NUMBERS else cell.ljust(width))
    return f"| {' | '.join([*padded, cells[-1]])} |".replace("|  |", "| |")
