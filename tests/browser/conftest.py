"""Notebooks that import ``story.py``, opened in a real browser."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.browser.jupyter import Lab, chromium
from tests.js.node import node_program
from tests.js.packages import node_modules

SHOTS = os.environ.get("DSPYNB_SHOTS")
"""A folder for screenshots; None: take none."""
HERE = Path(__file__).parent

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
    """A function that opens a notebook with these cells, after ``from story import *``."""

    def with_context(context):
        def open_with(*cells):
            name = f"{request.node.name.replace('[', '-').replace(']', '')}.ipynb"
            shutil.copy(HERE / "story.py", server.work)
            server.write(name, "from story import *", *cells)
            opened = server.open(context, name)
            opened.page.evaluate("window.pwned = 0")
            return opened

        return open_with

    return with_context


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
    """``shot(opened, name)`` saves a screenshot if ``SHOTS`` is set."""

    def take(opened, name):
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            opened.page.screenshot(path=f"{SHOTS}/{name}.png")

    return take


@pytest.fixture(scope="session")
def axe():
    """The source of axe-core, from the npm registry."""
    node_program()  # skips the test without Node.js; if npm fails, the test fails
    return (node_modules() / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
