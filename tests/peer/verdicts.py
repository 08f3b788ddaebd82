"""The committed list of DSPy's test functions: what each gives when it runs against dspynb, and why."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

__all__ = ["FILES", "LIST", "check", "read", "run", "summary", "write"]

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LIST = HERE / "verdicts.csv"
FILES = (
    "signatures",
    "adapters/test_chat_adapter.py adapters/test_json_adapter.py adapters/test_adapter_utils.py",
    "predict/test_predict.py predict/test_chain_of_thought.py predict/test_react.py predict/test_refine.py",
    "predict/test_best_of_n.py predict/test_parallel.py predict/test_aggregation.py",
    "predict/test_multi_chain_comparison.py predict/test_program_of_thought.py",
    "primitives/test_example.py primitives/test_module.py primitives/test_base_module.py",
    "evaluate",
)
"""The tests of signatures, the chat and JSON adapters, predict, primitives and evaluate, below ``tests`` of DSPy."""
STATUSES = ("same", "better", "deliberately not", "differs")


def run(checkout: Path) -> dict[str, tuple[str, str]]:
    """For each test function, whether it passed, failed or was skipped, and the first line of the message."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.jsonl"
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "PEER_REPORT": str(report)}
        files = [f"tests/{name}" for names in FILES for name in names.split()]
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "peer_shim",
            "-p",
            "peer_report",
            "-p",
            "no:cacheprovider",
        ]
        command += [
            "-p",
            "no:asyncio",
            "-p",
            "no:anyio",
            "-c",
            os.devnull,
            f"--rootdir={checkout}",
            "--timeout=60",
            "--continue-on-collection-errors",
            *files,
        ]
        subprocess.run(command, cwd=checkout, env=environment, check=False, stdout=subprocess.DEVNULL)
        lines = report.read_text().splitlines() if report.exists() else []
    results: dict[str, tuple[str, str]] = {}
    for line in lines:
        name, outcome, message = json.loads(line)
        function = name.removeprefix("tests/").partition("[")[0]
        worst = results.get(function, ("passed", ""))
        if ("passed", "skipped", "failed").index(outcome) > ("passed", "skipped", "failed").index(worst[0]):
            results[function] = outcome, message
        else:
            results.setdefault(function, worst)
    return results


def read() -> dict[str, dict[str, str]]:
    """The committed rows by the function's name."""
    with LIST.open(newline="", encoding="utf-8") as file:
        return {row["function"]: row for row in csv.DictReader(file)}


def write(results: dict[str, tuple[str, str]]) -> None:
    """Write the list anew: reasons stay, and a function that passes is the same."""
    old = read() if LIST.exists() else {}
    with LIST.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["function", "status", "reason", "test"], lineterminator="\n")
        writer.writeheader()
        for function, (outcome, message) in sorted(results.items()):
            row = old.get(function, {"function": function, "reason": "", "test": ""})
            if outcome == "passed":
                row = {"function": function, "status": "same", "reason": "", "test": ""}
            elif row.get("status") in (None, "same"):
                row["status"] = "deliberately not" if outcome == "skipped" else "differs"
                row["reason"] = message.removeprefix("Skipped: ").removeprefix("deliberately not: ")
            writer.writerow(row)


def check(results: dict[str, tuple[str, str]] | None = None) -> list[str]:
    """What is wrong with the list. ``results``: those of a run; without them, only the list itself is checked."""
    rows = read()
    problems = []
    for function, row in rows.items():
        if row["status"] not in STATUSES:
            problems.append(f"{function}: there is no status {row['status']!r}")
        if row["status"] != "same" and len(row["reason"]) < 10:
            problems.append(f"{function}: {row['status']} needs a reason")
        if row["status"] == "better" and not row["test"]:
            problems.append(f"{function}: better needs one of our tests that shows it")
        if row["test"] and not _exists(row["test"]):
            problems.append(f"{function}: there is no test {row['test']}")
    for function, (outcome, message) in (results or {}).items():
        status = rows.get(function, {}).get("status")
        if status is None:
            problems.append(f"{function}: not in the list")
        elif (status == "same") != (outcome == "passed"):
            problems.append(f"{function}: {status} in the list, {outcome} now: {message}")
    problems += [
        f"{function}: no such function in the checkout" for function in rows if results and function not in results
    ]
    if _share(rows) < 0.97:
        problems.append(f"only {_share(rows):.1%} of the comparable functions are the same or better; at least 97 %")
    return problems


def summary() -> str:
    """The counts, in one line."""
    rows = read()
    counts = Counter(row["status"] for row in rows.values())
    text = ", ".join(f"{counts[status]} {status}" for status in STATUSES)
    return f"{len(rows)} functions: {text}; of the comparable ones {_share(rows):.1%} same or better"


def _share(rows: dict[str, dict[str, str]]) -> float:
    counts = Counter(row["status"] for row in rows.values())
    good = counts["same"] + counts["better"]
    return good / max(1, good + counts["differs"])


def _exists(test: str) -> bool:
    path, _, name = test.partition("::")
    file = ROOT / path
    return (
        file.exists() and re.search(rf"^(async )?def {re.escape(name)}\(", file.read_text(), re.MULTILINE) is not None
    )
