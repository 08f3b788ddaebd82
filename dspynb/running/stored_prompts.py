"""Long prompts, which stay in the run file: the record holds their position, and reads them when they are used."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from dspynb.errors import DamagedFileWarning

__all__ = ["LONG_LINE", "PromptFile", "StoredPrompt"]

LONG_LINE = 4096
"""Bytes. The prompts of longer lines stay in the file; shorter ones stay in memory, since reading them again takes more
time than they take memory."""
_BINARY = getattr(os, "O_BINARY", 0)


@dataclass(slots=True, eq=False)
class PromptFile:
    """A run file from which prompts are read. ``inode``: device and inode number, to detect that the file was
    replaced."""

    path: Path
    inode: tuple[int, int]
    warned: bool = field(default=False)

    @classmethod
    def of(cls, path: Path, stream: BinaryIO) -> PromptFile:
        """The file at ``path``, which is open as ``stream``."""
        stat = os.fstat(stream.fileno())
        return cls(path, (stat.st_dev, stat.st_ino))

    def read(self, offset: int, length: int) -> bytes:
        """Read ``length`` bytes from ``offset``. Raises OSError where the file was deleted or replaced."""
        descriptor = os.open(self.path, os.O_RDONLY | _BINARY)
        with os.fdopen(descriptor, "rb") as stream:
            stat = os.fstat(stream.fileno())
            if (stat.st_dev, stat.st_ino) != self.inode:
                raise OSError("it was replaced by another file")
            stream.seek(offset)
            return stream.read(length)

    def warn(self, problem: object) -> None:
        """Warn once per file that its prompts cannot be read."""
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"the long prompts of {self.path} cannot be read ({problem}); tables show a note in their place. "
                "Keep run files as long as you look at their runs",
                DamagedFileWarning,
                stacklevel=4,
            )


@dataclass(frozen=True, slots=True)
class StoredPrompt:
    """The messages of one call, in the line of a run file that has ``length`` bytes from ``offset``."""

    file: PromptFile
    offset: int
    length: int

    def load(self) -> tuple[Mapping[str, Any], ...]:
        """Read the messages. Where that fails, return one message that says so, with one DamagedFileWarning per
        file."""
        try:
            line = self.file.read(self.offset, self.length).decode("utf-8", "surrogatepass")
            messages = json.loads(line)["messages"]
            if not all(isinstance(message, dict) for message in messages):
                raise TypeError("its messages are not dicts")
            return tuple(messages)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.file.warn(error)
            return ({"role": "system", "content": f"(this prompt was in {self.file.path}, which cannot be read)"},)
