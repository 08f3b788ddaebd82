"""Each tutorial, copied as a user would do it, runs in JupyterLab."""

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
def test_a_tutorial_runs_in_jupyterlab_with_the_same_kinds_of_outputs_as_in_its_file(lab, tutorials, name, shot):
    committed = json.loads((ROOT / "notebooks" / name).read_text())
    with lab.browser() as context:
        opened = lab.open(context, f"{FOLDER}/{name}")
        assert broken_outputs(opened, None) == []  # as it was saved, before the kernel runs
        opened.clear_outputs()
        opened.run_all()
        saved = opened.wait_for_end()
        assert broken_outputs(opened, lambda part: shot(opened, f"tutorial-{name[:2]}-{part}") if SHOTS else None) == []
        assert opened.errors == []
    lab.shut_down_kernels()
    numbers = [cell["execution_count"] for cell in code(saved)]
    assert [number or at for at, number in enumerate(numbers, 1)] == list(range(1, len(code(committed)) + 1))
    # One cell may stay without a number. If a message of a widget arrives just as an awaiting cell ends, ipykernel 7.4
    # (Kernel.shell_main) sets the parent of the next cell's messages back to that cell, so JupyterLab does not notice
    # the end of the next cell. Cells are so short because the replies are recorded.
    assert numbers.count(None) <= 1
    assert [kinds(cell) for cell in code(saved)] == [kinds(cell) for cell in code(committed)]


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def kinds(cell):
    """The type of each output of a cell, and its stream or MIME types. Parts of one stream count once."""
    all_kinds = [(o["output_type"], o.get("name") or sorted(o.get("data", ()))) for o in cell["outputs"]]
    return [kind for kind, _ in groupby(all_kinds)]


BROKEN = ("Error displaying widget", "Traceback (most recent call last)", "Loading widget")


def broken_outputs(opened, each):
    """The messages of broken outputs in a notebook. Scrolls through it, since only visible cells are on the page."""
    messages = []
    part = 0
    opened.top()
    while True:
        messages += [text for text in BROKEN if opened.page.get_by_text(text).count()]
        if each:
            each(part)
        if not opened.further():
            return messages
        part += 1
