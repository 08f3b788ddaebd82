"""What is installed, as the metadata of packages tell it: nothing is imported for its version."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import dspynb
from dspynb.contrib.doctor.report import OK, WITHOUT, WRONG, Finding

__all__ = ["dependencies", "head", "installation", "meets", "order", "version_of"]

_GIVES = {
    "local": "the embedded model",
    "providers": "other providers than openai/…, through litellm",
    "otel": "traces as OpenTelemetry spans",
    "mcp": "tools of MCP servers",
    "plots": "run.plot()",
    "optimizers": "MIPROv2",
    "scale": "rollouts on a Dask cluster",
    "lab": "the tutorials in JupyterLab",
}
_TOOLS = "dev"
"""The extra that only who works on a checkout needs."""


def head() -> dict[str, str]:
    """What a report begins with: versions, and where the package is."""
    return {
        "dspynb": dspynb.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "from": "a checkout" if _is_checkout() else "installed",
        "folder": str(_folder()),
    }


def _folder() -> Path:
    return Path(dspynb.__file__).resolve().parent.parent


def _is_checkout() -> bool:
    return (_folder() / "pyproject.toml").is_file()


def installation() -> Iterator[Finding]:
    """Whether what is imported is what was installed."""
    version = version_of("dspynb")
    if version is None:
        yield Finding("installation", WRONG, 'dspynb is imported but not installed: pip install -e "." in its checkout')
    elif version != dspynb.__version__:
        yield Finding(
            "installation",
            WRONG,
            f"dspynb {dspynb.__version__} is imported, and {version} is installed: look for a second copy in the path "
            'above or in PYTHONPATH; of a checkout, pip install -e "." again',
            {"installed": version},
        )


def dependencies() -> Iterator[Finding]:
    """What the package needs, and each extra by what it gives."""
    needed = _requirements()
    if not needed:  # told by installation
        return
    tools = needed.pop(_TOOLS, [])
    yield _group("dependencies", "", needed.pop("", []))
    for extra in [*_GIVES, *sorted(needed.keys() - _GIVES.keys())]:
        if extra in needed:
            yield _group(extra, _GIVES.get(extra, ""), needed[extra])
    if tools and _is_checkout():
        yield _told_of_tools(tools)


@dataclass(frozen=True, slots=True)
class _Requirement:
    """A distribution, the bounds as they are written, and the version that is installed, or None."""

    name: str
    bounds: str
    version: str | None

    @property
    def met(self) -> bool:
        return self.version is not None and meets(self.version, self.bounds)

    @property
    def asked(self) -> str:
        return f'"{self.name}{self.bounds}"'


def _requirements() -> dict[str, list[_Requirement]]:
    """What the package needs, by extra; "" is what it always needs. As its metadata have it, of the form that our
    pyproject.toml writes: ``name>=bound; extra == 'name'``."""
    needed: dict[str, list[_Requirement]] = {}
    try:
        lines = metadata.requires("dspynb") or []
    except metadata.PackageNotFoundError:
        return {}
    for line in lines:
        requirement, _, marker = line.partition(";")
        match = re.match(r"\s*([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*\(?([^)]*)\)?\s*$", requirement)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
        if match and match[1] != "dspynb":
            found = _Requirement(match[1], match[2].replace(" ", ""), version_of(match[1]))
            needed.setdefault(extra[1] if extra else "", []).append(found)
    return needed


def version_of(name: str) -> str | None:
    """The version of a distribution, or None where it is not installed."""
    try:
        return metadata.version(name) or None  # metadata that were cut have none
    except metadata.PackageNotFoundError:
        return None


def _group(name: str, gives: str, needed: list[_Requirement]) -> Finding:
    """What is always needed, or an extra: ``without`` where a part is not there, ``wrong`` where it is too low."""
    there = ", ".join(f"{r.name} {r.version}" for r in needed if r.version is not None)
    facts = _facts(needed)
    low = [r for r in needed if r.version is not None and not r.met]
    absent = [r for r in needed if r.version is None]
    before = f"{gives}: " if gives else ""
    if low or (absent and name == "dependencies"):
        said = [f"{r.name} {r.version or 'is not installed'}" for r in [*low, *absent]]
        asked = " ".join(r.asked for r in [*low, *absent])
        return Finding(name, WRONG, f"{before}{', '.join(said)}; needed: pip install {asked}", facts)
    if absent:
        rest = f" ({', '.join(r.name for r in absent)} of it)" if there else ""
        return Finding(name, WITHOUT, f'{before}not installed{rest}: pip install "dspynb[{name}]"', facts)
    return Finding(name, OK, before + there, facts)


def _told_of_tools(needed: list[_Requirement]) -> Finding:
    facts, lacking = _facts(needed), sum(not r.met for r in needed)
    if lacking:
        says = f'{lacking} of {len(needed)} packages for the tests are missing or too old: pip install -e ".[{_TOOLS}]"'
        return Finding(_TOOLS, WITHOUT, says, facts)
    return Finding(_TOOLS, OK, f"all {len(needed)} packages for the tests", facts)


def _facts(needed: list[_Requirement]) -> dict[str, Any]:
    return {"needs": [{"name": r.name, "bounds": r.bounds, "installed": r.version, "met": r.met} for r in needed]}


def meets(version: str, bounds: str) -> bool:
    """Whether a version is at least what ``>=1.2`` says. Our bounds are of this form; another one counts as met."""
    lowest = [bound[2:] for bound in bounds.split(",") if bound.startswith(">=")]
    return all(order(version) >= order(bound) for bound in lowest)


def order(version: str) -> tuple[tuple[int, ...], bool]:
    """What to compare versions by: the release without zeros at its end; and a pre-release comes before it."""
    match = re.match(r"(\d+(?:\.\d+)*)(.*)", version)
    if match is None:
        return (), False
    numbers = [int(part) for part in match[1].split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers), re.match(r"[.\-_]?(a|b|rc|dev)", match[2]) is None
