"""Check the front end's sources: types (``tsc --checkJs``), lint and layout (biome), and that live.js is current.

python -m tests.js.check          report problems
python -m tests.js.check --fix    format the sources, apply the linter's safe fixes, and join live.js
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.js.node import node_program
from tests.js.packages import SOURCES, node_modules

TESTS = Path(__file__).resolve().parent


def main() -> None:
    """Run all checks; exit with 1 if one failed."""
    fixes = "--fix" in sys.argv[1:]
    modules = node_modules()
    node = node_program()
    biome = [node, str(modules / "@biomejs" / "biome" / "bin" / "biome"), "check", "--error-on-warnings"]
    tsc = [node, str(modules / "typescript" / "bin" / "tsc"), "--project", "."]
    join = [sys.executable, "join.py"]
    if fixes:
        biome.append("--write")
    else:
        join.append("--check")
    commands = {"biome": [*biome, ".", str(TESTS)], "tsc": tsc, "join": join}
    failed = []
    for name, command in commands.items():
        process = subprocess.run(command, cwd=SOURCES, check=False, timeout=300)
        if process.returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
