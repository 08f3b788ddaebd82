"""Prompts that stay in the run file: a record keeps where a long one is, and reads it when somebody asks for it."""

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
"""Bytes of a line whose prompt stays in the file: to read a shorter one again takes longer than keeping it costs."""
_BINARY = getattr(os, "O_BINARY", 0)


@dataclass(slots=True, eq=False)
class PromptFile:
    """A run file that prompts are read from. ``inode``: its device and number, so that another file in its place is
    noticed."""

    path: Path
    inode: tuple[int, int]
    warned: bool = field(default=False)

    @classmethod
    def of(cls, path: Path, stream: BinaryIO) -> PromptFile:
        """The file at a path, which is open as ``stream``."""
        stat = os.fstat(stream.fileno())
        return cls(path, (stat.st_dev, stat.st_ino))

    def read(self, offset: int, length: int) -> bytes:
        """The bytes at a place. Raises OSError where the file is gone, or is another one now."""
        descriptor = os.open(self.path, os.O_RDONLY | _BINARY)
        with os.fdopen(descriptor, "rb") as stream:
            stat = os.fstat(stream.fileno())
            if (stat.st_dev, stat.st_ino) != self.inode:
                raise OSError("it was replaced by another file")
            stream.seek(offset)
            return stream.read(length)

    def warn(self, problem: object) -> None:
        """Say once that the prompts cannot be read."""
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"the long prompts of {self.path} cannot be read ({problem}); tables show this in their place. "
                "Keep run files as long as you look at their runs",
                DamagedFileWarning,
                stacklevel=4,
            )


@dataclass(frozen=True, slots=True)
class StoredPrompt:
    """The messages of one call, in a line of a run file: ``length`` bytes from ``offset``."""

    file: PromptFile
    offset: int
    length: int

    def load(self) -> tuple[Mapping[str, Any], ...]:
        """The messages. Where the file is gone, one message that says so, and a DamagedFileWarning once a file."""
        try:
            line = self.file.read(self.offset, self.length).decode("utf-8", "surrogatepass")
            messages = json.loads(line)["messages"]
            if not all(isinstance(message, dict) for message in messages):
                raise TypeError("its messages are no dicts")
            return tuple(messages)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.file.warn(error)
            return ({"role": "system", "content": f"(this prompt was in {self.file.path}, which cannot be read)"},)
