"""What is kept on disk, whether more can be kept, and the keys in the environment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dspynb.contrib.doctor.report import OK, WITHOUT, WRONG, Finding
from dspynb.redact import key_names

__all__ = ["embedded_model", "keys", "reply_cache", "runs"]


def embedded_model() -> Iterator[Finding]:
    """Whether the model's file is there and whole."""
    from dspynb.lm.download import WHEEL_BYTES, cached_path, is_expected

    path = cached_path()
    facts = {"path": str(path)}
    if not path.exists():
        says = f"SmolLM2-135M is not here yet; the first use fetches it ({WHEEL_BYTES / 1e6:.0f} MB) into {path.parent}"
        yield Finding("model", WITHOUT, says, facts)
    elif is_expected(path):
        yield Finding("model", OK, f"SmolLM2-135M, checksum verified: {path}", facts)
    else:
        yield Finding(
            "model", WRONG, f"the file is damaged: remove it, and the next use fetches it anew: {path}", facts
        )


def reply_cache() -> Iterator[Finding]:
    """Where replies are kept, how much of them, and how."""
    from dspynb.lm.cache import default_cache

    path = default_cache().path
    refused = _refused(path.parent)
    size = sum(p.stat().st_size for p in (path, path.with_name(path.name + "-wal")) if p.is_file())
    facts: dict[str, Any] = {"path": str(path), "bytes": size, "writable": refused is None, "wal": None}
    if refused is not None:
        todo = "make it writable, or set DSPYNB_CACHE_DIR to a folder that is"
        yield Finding("reply cache", WRONG, f"nothing can be written in {path.parent} ({refused}): {todo}", facts)
        return
    if not size:
        yield Finding("reply cache", OK, f"begins with the first reply of a provider: {path}", facts)
        return
    with path.open("rb") as file:
        head = file.read(20)
    if not head.startswith(b"SQLite format 3\0"):
        says = f"the file is damaged; the next call puts it aside and begins another: {path}"
        yield Finding("reply cache", WITHOUT, says, facts)
        return
    facts["wal"] = head[18:20] == b"\2\2"  # of SQLite's header: the versions that may write and read it
    log = "write-ahead log" if facts["wal"] else "no write-ahead log (a network file system?), so look-ups are slower"
    yield Finding("reply cache", OK, f"{size / 1e6:.1f} MB, {log}: {path}", facts)


def runs() -> Iterator[Finding]:
    """Where runs are kept, and how many."""
    from dspynb.scope.settings import setting

    folder = Path(setting("runs_dir") or ".dspynb/runs").absolute()
    count, refused = len(list(folder.glob("*.jsonl"))), _refused(folder)
    facts = {"path": str(folder), "runs": count, "writable": refused is None}
    if refused is not None:
        todo = "start in a folder of yours, or dn.configure(runs_dir=…)"
        yield Finding("runs", WRONG, f"nothing can be written in {folder} ({refused}): {todo}", facts)
    else:
        yield Finding("runs", OK, f"{count} {'file' if count == 1 else 'files'} in {folder}", facts)


def _refused(folder: Path) -> str | None:
    """Why no file can be made in a folder, or in the nearest one above it that is there; None where it can. Tried with
    a file that has no name, since only that tells of quotas, mounts and rights alike."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def keys() -> Iterator[Finding]:
    """Which keys are set: their names, never their values."""
    names = [name for name in key_names() if name.endswith("_API_KEY")]
    facts = {"set": names, "OPENAI_BASE_URL": "OPENAI_BASE_URL" in os.environ}
    named = [name for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE") if os.environ.get(name)]
    base = f"; {named[0]} says where openai/… is asked" if named else ""
    if odd := [name for name in names if os.environ[name].strip("'\" \t\r\n") != os.environ[name]]:
        says = (
            f"{', '.join(odd)}: the value begins or ends with a space or quote, which is no part of a key: set it anew"
        )
        yield Finding("keys", WRONG, says, facts)
    elif names:
        yield Finding("keys", OK, f"set: {', '.join(names)}{base}", facts)
    else:
        says = f"none is set; a provider needs one, such as OPENAI_API_KEY, the embedded model none{base}"
        yield Finding("keys", WITHOUT, says, facts)
