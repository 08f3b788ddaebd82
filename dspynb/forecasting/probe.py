"""Probe rows: a few rows of a run that are run before it starts, and that it then has already."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from dspynb.errors import ConfigurationError, JournalError
from dspynb.events import plain
from dspynb.json_values import SCALARS
from dspynb.options import Whole
from dspynb.running.run import Run

__all__ = ["DEFAULT_PROBE", "ProbeOption", "Probed", "ProbedRuns", "probe_count", "spread_rows"]

DEFAULT_PROBE = 5
"""Probe rows by default."""
ProbeOption: TypeAlias = Annotated[int, Whole(0)] | None
"""How many probe rows to run; None for a few."""


def probe_count(probe: int | None, rows: int) -> int:
    """The number of probe rows. Raises ConfigurationError for more than there are rows."""
    if probe is None:
        return min(DEFAULT_PROBE, rows)
    if probe > rows:
        raise ConfigurationError(f"probe={probe} is more than the {rows} rows of the run; give {rows} at most")
    return probe


def spread_rows(rows: Sequence[Mapping[str, Any]], count: int) -> list[int]:
    """The numbers of ``count`` rows that stand for all of them: of evenly spaced sizes, from short to long."""
    order = sorted(range(len(rows)), key=lambda number: (_size(rows[number]), number))
    return sorted({order[int((place + 0.5) * len(rows) / count)] for place in range(count)})


def _size(row: Mapping[str, Any]) -> int:
    return sum(len(str(value)) if type(value) in SCALARS else len(repr(plain(value))) for value in row.values())


@dataclass
class Probed:
    """The run of some probe rows. ``settings``: those that a run with the same rows and settings has. ``done``: what
    that run goes on with. ``meter``: that of its budget, if it has one."""

    run: Run
    settings: Mapping[str, Any]
    done: Any
    meter: Any = None


class ProbedRuns:
    """The probed runs that have not been started yet, by the optimizer, Evaluate or program that they belong to."""

    def __init__(self) -> None:
        self._by_id: dict[int, tuple[weakref.ref[Any], Probed]] = {}  # a program may not be hashable

    def put(self, owner: object, probed: Probed) -> None:
        """Keep a probed run in place of an earlier one of the same owner, as long as the owner exists."""
        if probed.meter is not None:
            probed.meter.pause()
        key = id(owner)
        self._by_id[key] = (weakref.ref(owner, lambda _: self._by_id.pop(key, None)), probed)

    def __bool__(self) -> bool:
        return bool(self._by_id)

    def find(self, owner: object, settings: Mapping[str, Any]) -> Probed | None:
        """The probed run that a run with these settings goes on with; None where there is none."""
        reference, probed = self._by_id.get(id(owner), (None, None))
        if reference is None or probed is None or reference() is not owner or probed.settings != settings:
            return None
        return probed

    def take(self, owner: object, settings: Mapping[str, Any]) -> tuple[Probed, Run] | None:
        """Remove a probed run, and return it with a run that continues it. None where there is none, or where its file
        is gone or in use."""
        probed = self.find(owner, settings)
        if probed is None:
            return None
        del self._by_id[id(owner)]
        try:
            run = Run.continuing(probed.run)
        except JournalError:
            return None
        if probed.meter is not None:
            probed.meter.resume()
        return probed, run
