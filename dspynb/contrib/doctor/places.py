"""Checks of files (embedded model, reply cache, runs) and of the keys in the environment."""

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
    """Whether the file of the embedded model exists and is complete."""
    from dspynb.lm.download import WHEEL_BYTES, cached_path, is_expected

    path = cached_path()
    facts = {"path": str(path)}
    if not path.exists():
        megabytes = f"{WHEEL_BYTES / 1e6:.0f} MB"
        message = f"SmolLM2-135M is not here yet; the first use fetches it ({megabytes}) into {path.parent}"
        yield Finding("model", WITHOUT, message, facts)
    elif is_expected(path):
        yield Finding("model", OK, f"SmolLM2-135M, checksum verified: {path}", facts)
    else:
        message = f"the file is damaged: remove it, and the next use fetches it anew: {path}"
        yield Finding("model", WRONG, message, facts)


def reply_cache() -> Iterator[Finding]:
    """Where the reply cache is, its size, and whether it can be read and written."""
    from dspynb.lm.cache import default_cache

    path = default_cache().path
    write_error = _write_error(path.parent)
    files = (path, path.with_name(path.name + "-wal"))
    size = sum(file.stat().st_size for file in files if file.is_file())
    facts: dict[str, Any] = {"path": str(path), "bytes": size, "writable": write_error is None, "wal": None}
    if write_error is not None:
        advice = "make it writable, or set DSPYNB_CACHE_DIR to a folder that is"
        message = f"nothing can be written in {path.parent} ({write_error}): {advice}"
        yield Finding("reply cache", WRONG, message, facts)
        return
    if not size:
        yield Finding("reply cache", OK, f"begins with the first reply of a provider: {path}", facts)
        return
    with path.open("rb") as stream:
        header = stream.read(20)
    if not header.startswith(b"SQLite format 3\0"):
        message = f"the file is damaged; the next call puts it aside and begins another: {path}"
        yield Finding("reply cache", WITHOUT, message, facts)
        return
    has_log = header[18:20] == b"\2\2"  # in SQLite's header: the write and read versions of the file format
    facts["wal"] = has_log
    log = "write-ahead log" if has_log else "no write-ahead log (a network file system?), so look-ups are slower"
    yield Finding("reply cache", OK, f"{size / 1e6:.1f} MB, {log}: {path}", facts)


def runs() -> Iterator[Finding]:
    """Where run files are written, and how many there are."""
    from dspynb.scope.settings import setting

    folder = Path(setting("runs_dir") or ".dspynb/runs").absolute()
    count = len(list(folder.glob("*.jsonl")))
    write_error = _write_error(folder)
    facts = {"path": str(folder), "runs": count, "writable": write_error is None}
    if write_error is not None:
        advice = "start in a folder of yours, or dn.configure(runs_dir=…)"
        yield Finding("runs", WRONG, f"nothing can be written in {folder} ({write_error}): {advice}", facts)
    else:
        yield Finding("runs", OK, f"{count} {'file' if count == 1 else 'files'} in {folder}", facts)


def _write_error(folder: Path) -> str | None:
    """Why no file can be written in a folder, or in its nearest parent that exists; None if it is possible.

    It writes a temporary file, since only that shows quotas, mounts and permissions alike.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def keys() -> Iterator[Finding]:
    """Which keys are set in the environment: their names, never their values."""
    names = [name for name in key_names() if name.endswith("_API_KEY")]
    facts = {"set": names, "OPENAI_BASE_URL": "OPENAI_BASE_URL" in os.environ}
    base_variables = [name for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE") if os.environ.get(name)]
    address_note = ""
    if base_variables:
        address_note = f"; {base_variables[0]} sets the address for openai/…"
    malformed = [name for name in names if os.environ[name].strip("'\" \t\r\n") != os.environ[name]]
    if malformed:
        message = (
            f"{', '.join(malformed)}: the value begins or ends with a space or quote, which is no part of a key: "
            "set it anew"
        )
        yield Finding("keys", WRONG, message, facts)
    elif names:
        yield Finding("keys", OK, f"set: {', '.join(names)}{address_note}", facts)
    else:
        message = f"none is set; a provider needs one, such as OPENAI_API_KEY, the embedded model none{address_note}"
        yield Finding("keys", WITHOUT, message, facts)
