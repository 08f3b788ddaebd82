"""Check that notebooks were run from top to bottom and can be published. Changes nothing.

    python .ci/check_notebooks.py notebooks/*.ipynb

prints one line per problem, and exits with status 1 if there are any. A notebook without outputs is a problem, because
outputs are part of a tutorial and must not be stripped.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import nbformat

MACHINE_DETAILS = re.compile(r"(?:/root|/home|/tmp|/Users)/[^\s\"']*|[A-Z]:\\\\Users\\\\[^\s\"']*|0x[0-9a-f]{6,}")
RECORDING = re.compile(r"dn\.recorded\(\"([^\"]+)\"")


def problems(path: Path) -> list[str]:
    """The problems of a notebook, one line each. The list is empty if the notebook can be committed."""
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=nbformat.NO_CONVERT)
        nbformat.validate(notebook)
    except (OSError, ValueError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        reason = str(error).splitlines()[0]
        return [f"{path} is not a valid notebook: {reason}"]
    if notebook.nbformat != nbformat.current_nbformat:
        return [f"{path} has format {notebook.nbformat}; open and save it in JupyterLab for format 4"]
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    messages = [*_run_problems(cells), *_output_problems(cells), *_recording_problems(cells, path)]
    return [f"{path}{message}" for message in messages]


def _run_problems(cells: list[nbformat.NotebookNode]) -> list[str]:
    messages = []
    for number, cell in enumerate(cells, 1):
        if cell.execution_count != number:
            count = "was not run" if cell.execution_count is None else f"was run as [{cell.execution_count}]"
            messages.append(f", code cell {number}: it {count}; restart the kernel and run all cells")
    if not any(cell.outputs for cell in cells):
        messages.append(": it has no outputs; run it and save it with its outputs")
    return messages


def _output_problems(cells: list[nbformat.NotebookNode]) -> list[str]:
    messages = []
    for number, cell in enumerate(cells, 1):
        for output in cell.outputs:
            if output.output_type == "error":
                messages.append(f", code cell {number}: it ended with {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                text = " ".join(output.text.split())[:100]
                messages.append(f", code cell {number}: it wrote to stderr: {text!r}")
        names = sorted(set(MACHINE_DETAILS.findall(json.dumps(cell.outputs))))
        messages += [f", code cell {number}: an output contains a detail of this machine: {name}" for name in names]
    return messages


def _recording_problems(cells: list[nbformat.NotebookNode], path: Path) -> list[str]:
    messages = []
    for cell in cells:
        missing = [name for name in RECORDING.findall(cell.source) if not (path.parent / name).exists()]
        messages += [f": its recording {name} is missing; run the notebook and commit the file" for name in missing]
    return messages


def main(paths: list[str]) -> int:
    """Check notebooks, print their problems, and return the exit status."""
    status = 0
    for path in paths:
        for problem in problems(Path(path)):
            sys.stdout.write(f"{problem}\n")
            status = 1
    return status


if __name__ == "__main__":
    if not sys.argv[1:] or sys.argv[1].startswith("-"):
        sys.exit((__doc__ or "").strip())
    sys.exit(main(sys.argv[1:]))
