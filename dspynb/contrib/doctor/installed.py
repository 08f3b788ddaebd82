"""Checks of what is installed, from the metadata of packages. No package is imported to read its version."""

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

__all__ = ["dependencies", "head", "installation", "meets", "version_key", "version_of"]

_EXTRAS = {
    "local": "the embedded model",
    "otel": "traces as OpenTelemetry spans",
    "mcp": "tools of MCP servers",
    "plots": "run.plot()",
    "optimizers": "MIPROv2",
    "scale": "rollouts on a Dask cluster",
    "lab": "the tutorials in JupyterLab",
}
"""What each extra is for."""
_TOOLS = "dev"
"""The extra for work on a checkout."""


def head() -> dict[str, str]:
    """The first lines of a report: versions, and where the package is."""
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
    """Whether the imported package is the installed one."""
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
    """Whether the requirements of the package are installed; one finding for each extra too."""
    requirements = _requirements()
    if not requirements:  # dspynb is not installed: a finding of ``installation``
        return
    tools = requirements.pop(_TOOLS, [])
    yield _requirements_finding("dependencies", "", requirements.pop("", []))
    for extra in [*_EXTRAS, *sorted(requirements.keys() - _EXTRAS.keys())]:
        if extra in requirements:
            yield _requirements_finding(extra, _EXTRAS.get(extra, ""), requirements[extra])
    if tools and _is_checkout():
        yield _tools_finding(tools)


@dataclass(frozen=True, slots=True)
class _Requirement:
    """A required distribution."""

    name: str
    bounds: str
    """The bounds of its version, as in ``>=1.2``."""
    version: str | None
    """The installed version; None if it is not installed."""

    @property
    def is_met(self) -> bool:
        return self.version is not None and meets(self.version, self.bounds)

    @property
    def pip_argument(self) -> str:
        return f'"{self.name}{self.bounds}"'


def _requirements() -> dict[str, list[_Requirement]]:
    """The requirements of each extra of dspynb; under "", those that it always has.

    They are read from the metadata, which have the form of pyproject.toml: ``name>=bound; extra == 'name'``.
    """
    requirements: dict[str, list[_Requirement]] = {}
    try:
        lines = metadata.requires("dspynb") or []
    except metadata.PackageNotFoundError:
        return {}
    for line in lines:
        requirement, _, marker = line.partition(";")
        match = re.match(r"\s*([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*\(?([^)]*)\)?\s*$", requirement)
        extra_match = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
        extra = extra_match[1] if extra_match else ""
        if match and match[1] != "dspynb":
            name = match[1]
            bounds = match[2].replace(" ", "")
            requirements.setdefault(extra, []).append(_Requirement(name, bounds, version_of(name)))
    return requirements


def version_of(name: str) -> str | None:
    """The version of a distribution; None if it is not installed."""
    try:
        return metadata.version(name) or None  # truncated metadata have no version
    except metadata.PackageNotFoundError:
        return None


def _requirements_finding(name: str, purpose: str, requirements: list[_Requirement]) -> Finding:
    """The finding about the dependencies or an extra.

    WRONG if a version is too low or a dependency is missing; WITHOUT if a package of an extra is missing.
    """
    facts = _requirement_facts(requirements)
    installed = [requirement for requirement in requirements if requirement.version is not None]
    missing = [requirement for requirement in requirements if requirement.version is None]
    outdated = [requirement for requirement in installed if not requirement.is_met]
    prefix = f"{purpose}: " if purpose else ""
    if outdated or (missing and name == "dependencies"):
        unmet = [*outdated, *missing]
        states = ", ".join(f"{requirement.name} {requirement.version or 'is not installed'}" for requirement in unmet)
        arguments = " ".join(requirement.pip_argument for requirement in unmet)
        return Finding(name, WRONG, f"{prefix}{states}; needed: pip install {arguments}", facts)
    if missing:
        part = ""
        if installed:
            part = f" ({', '.join(requirement.name for requirement in missing)} of it)"
        return Finding(name, WITHOUT, f'{prefix}not installed{part}: pip install "dspynb[{name}]"', facts)
    versions = ", ".join(f"{requirement.name} {requirement.version}" for requirement in installed)
    return Finding(name, OK, prefix + versions, facts)


def _tools_finding(requirements: list[_Requirement]) -> Finding:
    """The finding about the tools for work on a checkout."""
    facts = _requirement_facts(requirements)
    count = len(requirements)
    unmet_count = sum(not requirement.is_met for requirement in requirements)
    if unmet_count:
        message = (
            f'{unmet_count} of {count} packages for the tests are missing or too old: pip install -e ".[{_TOOLS}]"'
        )
        return Finding(_TOOLS, WITHOUT, message, facts)
    return Finding(_TOOLS, OK, f"all {count} packages for the tests", facts)


def _requirement_facts(requirements: list[_Requirement]) -> dict[str, Any]:
    needs = [
        {"name": item.name, "bounds": item.bounds, "installed": item.version, "met": item.is_met}
        for item in requirements
    ]
    return {"needs": needs}


def meets(version: str, bounds: str) -> bool:
    """Whether a version is within bounds as in ``>=1.2``. Only lower bounds are compared; dspynb has no others."""
    lower_bounds = [bound[2:] for bound in bounds.split(",") if bound.startswith(">=")]
    return all(version_key(version) >= version_key(bound) for bound in lower_bounds)


def version_key(version: str) -> tuple[tuple[int, ...], bool]:
    """A key to compare versions by: the release without zeros at its end, and whether it is a final release."""
    match = re.match(r"(\d+(?:\.\d+)*)(.*)", version)
    if match is None:
        return (), False
    release = [int(part) for part in match[1].split(".")]
    while release and release[-1] == 0:
        release.pop()
    is_final = re.match(r"[.\-_]?(a|b|rc|dev)", match[2]) is None
    return tuple(release), is_final
