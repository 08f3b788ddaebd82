"""A pseudo-terminal with a Python process in it, and the text that a person would see there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Terminal:
    """A context manager that runs ``code`` in a terminal with ``columns``. ``sent`` has the bytes that it wrote."""

    def __init__(self, code, columns=100, env=None, stdout=None):
        self.columns = columns
        self.sent = b""
        self._own, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        removed = ("CI", "PYTEST_VERSION", "PYTEST_CURRENT_TEST", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
        variables = {name: value for name, value in os.environ.items() if name not in removed}
        variables |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "", **(env or {})}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=other,
            stdout=other if stdout is None else stdout,
            stderr=other,
            env=variables,
            start_new_session=True,
            preexec_fn=_as_in_a_shell,  # noqa: PLW1509
        )
        os.close(other)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._own)

    def wait_for(self, text, seconds=60):
        """Read until ``text`` was written."""
        until = time.monotonic() + seconds
        while text not in self.sent.decode(errors="replace"):
            assert time.monotonic() < until, self.sent
            assert self._read(0.2) or self.process.poll() is None, self.sent
        return self

    def wait_for_match(self, pattern, seconds=60):
        """Read until a match of ``pattern`` was written: for a line that a busy machine may draw at any count."""
        until = time.monotonic() + seconds
        while not re.search(pattern, self.sent.decode(errors="replace")):
            assert time.monotonic() < until, self.sent
            assert self._read(0.2) or self.process.poll() is None, self.sent
        return self

    def press_ctrl_c(self):
        """Press Ctrl-C in the terminal, which then sends the signal."""
        os.write(self._own, b"\x03")

    def end(self, seconds=60):
        """Read until the process has ended. Returns its exit status."""
        until = time.monotonic() + seconds
        while self.process.poll() is None or self._read(0.05):
            assert time.monotonic() < until, self.sent
            self._read(0.05)
        return self.process.returncode

    def kill(self):
        """Kill the process as ``kill -9`` does."""
        self.process.send_signal(signal.SIGKILL)

    def _read(self, seconds):
        ready, _, _ = select.select([self._own], [], [], seconds)
        if not ready:
            return False
        try:
            received = os.read(self._own, 65536)
        except OSError:  # on Linux: the other side is closed
            return False
        self.sent += received
        return bool(received)

    @property
    def lines(self):
        """The lines on the screen and those that scrolled off it, without colours."""
        return screen_lines(self.sent.decode("utf-8", "replace"), self.columns)


def _as_in_a_shell():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # for Ctrl-C to be sent
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # it is ignored if the tests run in the background


def screen_lines(text, columns):
    """The lines that a terminal shows for a text. Fails for control sequences other than colours and erasures."""
    rows = [[]]
    column = 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\s\S]", text):
        if part == "\r":
            column = 0
        elif part == "\n":
            rows.append([])
            column = 0
        elif part.startswith("\x1b["):
            assert part[-1] in "mK", f"an escape sequence that was not expected: {part!r}"
            if part[-1] == "K":
                del rows[-1][column:]
        else:
            assert part.isprintable() or part in "\t", f"a raw {part!r}"
            if column >= columns:
                rows.append([])
                column = 0
            row = rows[-1]
            row.extend(" " * (column + 1 - len(row)))
            row[column] = part
            column += 1
    return ["".join(row).rstrip() for row in rows]
