"""Saved programs: states as JSON files, which are written atomically."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from dspynb.errors import StateError, shorten

__all__ = ["read_state", "write_state"]


def write_state(path: str | Path, state: object) -> None:
    """Write a state to a file. A concurrent reader sees the old file or the new one. Raises StateError."""
    target = _file(path)
    new = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        body = json.dumps(state, ensure_ascii=False, indent=1).encode() + b"\n"
        target.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(body)
        os.replace(new, target)  # noqa: PTH105
    except (OSError, ValueError, TypeError) as error:
        raise StateError(f"cannot write {target}: {shorten(error, 300)}") from error
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)


def read_state(path: str | Path) -> Any:
    """The content of a JSON file that ``write_state`` or DSPy wrote. It is not validated. Raises StateError."""
    source = _file(path)
    try:
        return json.loads(source.read_bytes())
    except OSError as error:
        raise StateError(f"cannot read {source}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise StateError(
            f"{source} is not JSON, or is cut off ({shorten(error, 200)}); save the program again"
        ) from None


def _file(path: str | Path) -> Path:
    if not isinstance(path, str | Path) or not str(path):
        raise StateError(f"give the path of a file such as 'program.json', got {path!r}")
    if Path(path).is_dir():
        raise StateError(f"{path} is a folder; give a file such as {Path(path) / 'program.json'}")
    if Path(path).suffix in (".pkl", ".pickle"):
        raise StateError(
            f"{path}: programs are saved as JSON, since reading a pickle runs code; in DSPy, save as .json"
        )
    return Path(path)
