"""Each tutorial, copied as a user copies them, opened in JupyterLab and run there."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import groupby

import pytest

from tests.browser.conftest import SHOTS
from tests.browser.jupyter import ROOT

NAMES = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
FOLDER = "tutorials"


@pytest.fixture(scope="session")
def tutorials(lab):
    """The folder in JupyterLab into which ``dspynb tutorials`` has copied them."""
    folder = lab.work / FOLDER
    command = [sys.executable, "-m", "dspynb", "tutorials", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_runs_in_jupyterlab_and_shows_what_its_file_shows(lab, tutorials, name, shot):
    committed = json.loads((ROOT / "notebooks" / name).read_text())
    with lab.browser() as context:
        opened = lab.open(context, f"{FOLDER}/{name}")
        assert looked_through(opened, None) == []  # as it was saved, before its kernel has done anything
        opened.clear_outputs()
        opened.run_all()
        saved = opened.wait_for_end()
        assert looked_through(opened, lambda part: shot(opened, f"tutorial-{name[:2]}-{part}") if SHOTS else None) == []
        assert opened.errors == []
    lab.shut_down_kernels()
    numbers = [cell["execution_count"] for cell in code(saved)]
    assert [number or at for at, number in enumerate(numbers, 1)] == list(range(1, len(code(committed)) + 1))
    # One cell may keep its star: where a message of a widget arrives just as a cell that awaits ends, ipykernel 7.4
    # (Kernel.shell_main) sets the parent of the next cell's messages back to that cell, and JupyterLab is not told that
    # the next one has ended. Replies from a recording make cells that short.
    assert numbers.count(None) <= 1
    assert [kinds(cell) for cell in code(saved)] == [kinds(cell) for cell in code(committed)]


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def kinds(cell):
    """The outputs of a cell: type, then stream or media types. How a stream was cut into pieces is not told."""
    told = [(o["output_type"], o.get("name") or sorted(o.get("data", ()))) for o in cell["outputs"]]
    return [kind for kind, _ in groupby(told)]


BROKEN = ("Error displaying widget", "Traceback (most recent call last)", "Loading widget")


def looked_through(opened, each):
    """What is broken in a notebook from top to end, a screen at a time: only what is in sight is on the page."""
    found, part = [], 0
    opened.top()
    while True:
        found += [text for text in BROKEN if opened.page.get_by_text(text).count()]
        if each:
            each(part)
        if not opened.further():
            return found
        part += 1
