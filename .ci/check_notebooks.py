"""Check that notebooks were run from top to bottom and can be shown as they are; nothing is changed.

    python .ci/check_notebooks.py notebooks/*.ipynb

prints one line for each problem and exits with 1 if there is one. A notebook without outputs is a problem: outputs are
part of a tutorial, and are never stripped.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import nbformat

OF_A_MACHINE = re.compile(r"(?:/root|/home|/tmp|/Users)/[^\s\"']*|[A-Z]:\\\\Users\\\\[^\s\"']*|0x[0-9a-f]{6,}")
RECORDING = re.compile(r"dn\.recorded\(\"([^\"]+)\"")


def problems(path: Path) -> list[str]:
    """What is wrong with a notebook, one line each; empty for one that can be committed."""
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=nbformat.NO_CONVERT)
        nbformat.validate(notebook)
    except (OSError, ValueError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        reason = str(error).splitlines()[0]
        return [f"{path} is not a valid notebook: {reason}"]
    if notebook.nbformat != nbformat.current_nbformat:
        return [f"{path} has format {notebook.nbformat}; open and save it in JupyterLab for format 4"]
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [f"{path}{problem}" for problem in [*_not_run(cells), *_in_outputs(cells), *_recordings(cells, path)]]


def _not_run(cells: list[nbformat.NotebookNode]) -> list[str]:
    found = []
    for number, cell in enumerate(cells, 1):
        if cell.execution_count != number:
            count = "was not run" if cell.execution_count is None else f"was run as [{cell.execution_count}]"
            found.append(f", code cell {number}: it {count}; restart the kernel and run all cells")
    if not any(cell.outputs for cell in cells):
        found.append(": it has no outputs; run it and save it with its outputs")
    return found


def _in_outputs(cells: list[nbformat.NotebookNode]) -> list[str]:
    found = []
    for number, cell in enumerate(cells, 1):
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f", code cell {number}: it ended with {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                text = " ".join(output.text.split())[:100]
                found.append(f", code cell {number}: it wrote to stderr: {text!r}")
        names = sorted(set(OF_A_MACHINE.findall(json.dumps(cell.outputs))))
        found += [f", code cell {number}: an output names something of this machine: {name}" for name in names]
    return found


def _recordings(cells: list[nbformat.NotebookNode], path: Path) -> list[str]:
    found = []
    for cell in cells:
        missing = [name for name in RECORDING.findall(cell.source) if not (path.parent / name).exists()]
        found += [f": its recording {name} is not there; run the notebook and commit the file" for name in missing]
    return found


def main(paths: list[str]) -> int:
    """Check these files; the exit status."""
    found = [problem for path in paths for problem in problems(Path(path))]
    for problem in found:
        sys.stdout.write(f"{problem}\n")
    return 1 if found else 0


if __name__ == "__main__":
    if not sys.argv[1:] or sys.argv[1].startswith("-"):
        sys.exit((__doc__ or "").strip())
    sys.exit(main(sys.argv[1:]))
