"""A copied tutorial runs on a reader's own model after one line is changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.test_project import OWN_MODEL, TUTORIALS

CHAT_MODEL = '''
def chat_model(request):
    """Like a provider's model: it uses the requested markers, and respects the limits of the request."""
    import re
    last = str(request.messages[-1]["content"])
    output_names = re.findall(r"\\[\\[ ## (\\w+) ## \\]\\]", last.rpartition("Respond with")[2])
    topic = ("sports", "business", "science")[len(last) % 3]
    values = {"answer": "7", "topic": topic, "city": "Rome", "reasoning": "3 + 4 = 7.", "sentence": "It is large. " * 4}
    if "Hint: " in str(request.messages):
        values["sentence"] = "It is blue."
    text = "\\n\\n".join(f"[[ ## {name} ## ]]\\n{values.get(name, 'some words')}" for name in output_names)
    if "one JSON object" in str(request.messages):
        text = '{"number": 48}'
    for stop in request.settings.get("stop") or ():
        text = text.partition(stop)[0]
    return text[: 4 * request.settings.get("max_tokens", 1_000)]
'''


@pytest.mark.slow
@pytest.mark.filterwarnings("default::ResourceWarning", "default::DeprecationWarning")  # of the notebook client itself
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs_on_another_model_by_changing_one_line(path, tmp_path):
    shutil.copy(path, tmp_path)  # without its recording
    notebook = nbformat.read(tmp_path / path.name, as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    before, line, after = cell.source.partition(OWN_MODEL)
    cell.source = f"{before}{CHAT_MODEL}{line}dn.FunctionLM(chat_model)\n{after.partition(chr(10))[2]}"
    here = {"metadata": {"path": str(tmp_path)}}
    executed = NotebookClient(notebook, timeout=120, kernel_name="python3", resources=here).execute()
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    assert not list(Path(tmp_path).rglob("recordings"))
