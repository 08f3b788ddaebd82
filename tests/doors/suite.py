"""Running the ten checks of ``dspynb.contrib.doctor`` on a door."""

from __future__ import annotations

import asyncio
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

import dspynb as dn
from dspynb.contrib.doctor.model_checks import MODEL_CHECKS, CheckResult, run_check
from tests.doors.registry import Door

__all__ = ["DoorReport", "adapted_settings", "try_door"]

_WARNING = re.compile(r"does not take these settings as requested: (.*?) \(run\.calls has")
_SETTING = re.compile(r"\w+")


@dataclass
class DoorReport:
    """What the checks of a door showed.

    Attributes:
        results: One for each check, in the order of ``MODEL_CHECKS``.
        calls: The calls of the checks, as ``run.calls`` has them.
        adapted: The settings that warnings named, with repetitions.
        sent: The settings that the server received, of each request that it answered. None if the server does not say.
        refused: The number of requests that the server refused.
        problems: What was wrong in requests and replies, by the official SDK.
    """

    results: list[CheckResult] = field(default_factory=list)
    calls: pd.DataFrame = field(default_factory=pd.DataFrame)
    adapted: list[str] = field(default_factory=list)
    sent: list[dict[str, Any]] | None = None
    refused: int = 0
    problems: list[str] = field(default_factory=list)


def adapted_settings(text: str) -> list[str]:
    """The settings that warnings in this text name."""
    names = []
    for changes in _WARNING.findall(text):
        names += [_SETTING.match(change).group() for change in changes.split("; ")]
    return names


def try_door(door: Door) -> DoorReport:
    """Run all checks on a door, with one ``dn.LM``."""
    report = DoorReport()
    with door.server() as server:
        asyncio.run(_run_checks(door, door.lm(server), report))
        if hasattr(server, "problems"):
            report.problems = server.problems
            report.refused = len(server.refusals)
            report.sent = _sent(server)
    return report


def _sent(server: Any) -> list[dict[str, Any]] | None:
    sent = [server.settings(body) for body in server.bodies]
    return None if None in sent else sent


async def _run_checks(door: Door, lm: dn.LM, report: DoorReport) -> None:
    tables = []
    for check in MODEL_CHECKS:
        with warnings.catch_warnings():  # what is not a warning of an adaptation belongs to the client's libraries
            warnings.simplefilter("ignore")
            result = await run_check(check, lm, door.adapter)
        report.results.append(result)
        report.adapted += adapted_settings(result.detail)
        tables.append(dn.last_run().calls.assign(check=check.name))
    report.calls = pd.concat(tables, ignore_index=True)
