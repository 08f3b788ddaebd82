"""Notebooks with a story in them, opened in a real browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest

from tests.browser.jupyter import Lab, chromium

SHOTS = os.environ.get("DSPYNB_SHOTS")
"""A folder for screenshots, if they are wanted."""
HERE = Path(__file__).parent
AXE = ("axe-core@4.10.3", "0f2b4d7dcdf7d1219df8d1959ad68e565f51d14c3f0d88bb71cd59abeb956292")
"""The npm package, and its checksum."""

MARKS = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no chromium is installed"),
    pytest.mark.timeout(300),
    # Playwright's and nbformat's own clean-up, not ours
    pytest.mark.filterwarnings("default::ResourceWarning", "default::DeprecationWarning"),
]


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            for mark in MARKS:
                item.add_marker(mark)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    with Lab(tmp_path_factory.mktemp("lab")) as server:
        yield server


@pytest.fixture(scope="session")
def classic(tmp_path_factory):
    with Lab(tmp_path_factory.mktemp("notebook"), app="notebook") as server:
        yield server


def opener(server, request):
    """``open(*cells)``: a notebook with these cells after ``from story import *``, opened."""

    def made(context):
        def open_with(*cells):
            name = f"{request.node.name.replace('[', '-').replace(']', '')}.ipynb"
            shutil.copy(HERE / "story.py", server.work)
            server.write(name, "from story import *", *cells)
            opened = server.open(context, name)
            opened.page.evaluate("window.pwned = 0")
            return opened

        return open_with

    return made


@pytest.fixture
def notebook(lab, request):
    with lab.browser() as context:
        yield opener(lab, request)(context)


@pytest.fixture
def classic_notebook(classic, request):
    with classic.browser() as context:
        yield opener(classic, request)(context)


@pytest.fixture
def shot():
    """``shot(opened, name)``: keep a screenshot, where they are wanted."""

    def take(opened, name):
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            opened.page.screenshot(path=f"{SHOTS}/{name}.png")

    return take


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    """The source of axe-core, from the npm registry."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed, so axe-core cannot be fetched")
    folder = tmp_path_factory.mktemp("axe")
    package, checksum = AXE
    try:
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True, timeout=120)  # noqa: S607
    except subprocess.SubprocessError as error:
        pytest.skip(f"axe-core could not be fetched: {error}")
    (archive,) = folder.glob("*.tgz")
    assert sha256(archive.read_bytes()).hexdigest() == checksum
    with tarfile.open(archive) as files:
        return files.extractfile("package/axe.min.js").read().decode()
