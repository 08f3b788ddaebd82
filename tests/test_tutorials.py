"""A tutorial runs on a reader's own model when its one line is changed, from nothing but the copied notebook."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.test_project import OWN_MODEL, TUTORIALS

CHAT_MODEL = '''
def chat_model(request):
    """Like a provider's model: it keeps to the markers that it is asked for, and to the limits of the request."""
    import re
    last = str(request.messages[-1]["content"])
    asked = [name for name in re.findall(r"\\[\\[ ## (\\w+) ## \\]\\]", last.rpartition("Respond with")[2])]
    topic = ("sports", "business", "science")[len(last) % 3]
    values = {"answer": "7", "topic": topic, "city": "Rome", "reasoning": "3 + 4 = 7.", "sentence": "It is large. " * 4}
    if "Hint: " in str(request.messages):
        values["sentence"] = "It is blue."
    text = "\\n\\n".join(f"[[ ## {name} ## ]]\\n{values.get(name, 'some words')}" for name in asked)
    if "one JSON object" in str(request.messages):
        text = '{"number": 48}'
    for stop in request.settings.get("stop") or ():
        text = text.partition(stop)[0]
    return text[: 4 * request.settings.get("max_tokens", 1_000)]
'''


@pytest.mark.slow
@pytest.mark.filterwarnings("default::ResourceWarning", "default::DeprecationWarning")  # the notebook client's own
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs_on_another_model_by_changing_one_line(path, tmp_path):
    shutil.copy(path, tmp_path)  # without its recording
    notebook = nbformat.read(tmp_path / path.name, as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    before, line, after = cell.source.partition(OWN_MODEL)
    cell.source = f"{before}{CHAT_MODEL}{line}dn.FunctionLM(chat_model)\n{after.partition(chr(10))[2]}"
    here = {"metadata": {"path": str(tmp_path)}}
    done = NotebookClient(notebook, timeout=120, kernel_name="python3", resources=here).execute()
    assert all(cell.execution_count for cell in done.cells if cell.cell_type == "code")
    assert not list(Path(tmp_path).rglob("recordings"))
