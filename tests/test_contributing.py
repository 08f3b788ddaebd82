"""Paths, names and commands in CONTRIBUTING.md, hooks, templates and workflow exist; the notebook hook works."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import dspynb as dn

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CODE = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL))
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
PROGRAMS = {"pytest", "python", "ruff", "mypy", "jupyter", "dspynb", "pip", "conda", "pre-commit", "python3"}
WITHOUT_A_CHECK = {"pip", "conda", "pre-commit", "python3", "cd", "."}  # not installed in the environment of the tests
COMMANDS = [
    part.strip()
    for text in [*BLOCKS, *(code for code in CODE if code.split()[0] in PROGRAMS or code.startswith("DSPYNB_LIVE"))]
    for line in text.splitlines()
    for part in line.split("&&")
    if part.strip()
]


def _paths():
    """The paths in the page, such as `dspynb/scope/` and `pyproject.toml`."""
    for code in CODE:
        if re.fullmatch(r"[.\w][\w./-]*", code) and ("/" in code or re.search(r"\.(py|md|toml|yml|yaml)$", code)):
            yield code


@pytest.mark.parametrize("path", sorted(set(_paths())))
def test_a_path_in_the_page_exists(path):
    assert (ROOT / path).exists()
    assert not path.endswith("/") or (ROOT / path).is_dir()


def _anchors(text):
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_in_the_page_lead_to_files_and_headings():
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT):
        path, _, anchor = link.partition("#")
        target = ROOT / (path or "CONTRIBUTING.md")
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target.read_text(encoding="utf-8")), link


def test_names_and_modules_in_the_page_exist():
    for name in re.findall(r"\bdn\.([A-Za-z_]\w*)", TEXT):
        assert name in dn.__all__, f"dn.{name}"
    for name in re.findall(r"`(dspynb(?:\.\w+)+)`", TEXT):
        exists = name.removeprefix("dspynb.") in dn.__all__ or importlib.util.find_spec(name)
        assert exists or name == "dspynb.replay", name  # the example of a module that must not exist


PYTHONS = {"Any", "UserWarning", "DeprecationWarning", "ValueError", "TYPE_CHECKING", "__all__", "__reduce__"}


def test_classes_and_tables_in_the_page_are_in_the_code():
    """For `AttemptRow`, `SMALL`, `RunReader.attempts`: the class is defined somewhere, its member in the same file."""
    files = [*(ROOT / "dspynb").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    texts = [file.read_text(encoding="utf-8") for file in files]
    for code in {code for code in CODE if re.fullmatch(r"_?[A-Z]\w+(\.[a-z]\w+)?|_\w+", code)} - PYTHONS:
        if code.endswith(".md"):
            continue
        name, _, member = code.partition(".")
        defined = re.compile(rf"^\s*(class |def )?{name}\b(?=[(:= ])", re.MULTILINE)
        homes = [text for text in texts if defined.search(text)]
        assert any(re.search(rf"\b{member}\b", text) for text in homes), code


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_a_command_in_the_page_can_be_run(command):
    words = [word for word in shlex.split(command) if not word.startswith("DSPYNB_LIVE=")]
    program = words[0]
    arguments = words[1:]
    if program in WITHOUT_A_CHECK:
        return
    if program == "pytest":
        _check_pytest(arguments)
    elif program == "python" and arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1]), command
    elif program == "python":
        compile((ROOT / arguments[0]).read_text(encoding="utf-8"), arguments[0], "exec")
    else:
        assert (Path(sys.executable).parent / program).exists() or shutil.which(program), command
        module = "dspynb.cli" if program == "dspynb" else program
        subcommand = arguments[:1] if program in {"ruff", "jupyter", "dspynb"} else []
        process = subprocess.run(
            [sys.executable, "-m", module, *subcommand, "--help"],
            capture_output=True,
            timeout=60,
            check=False,
            cwd=ROOT,
        )
        assert process.returncode == 0, process.stderr


def _check_pytest(arguments):
    paths = []
    for place, argument in enumerate(arguments):
        if argument == "-m":
            names = set(re.findall(r"\w+", arguments[place + 1])) - {"and", "or", "not"}
            markers = {line.split(":")[0] for line in PYPROJECT["tool"]["pytest"]["ini_options"]["markers"]}
            assert names <= markers
        elif not argument.startswith("-") and (place == 0 or arguments[place - 1] != "-m"):
            paths.append(argument)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_setup_is_one_command_with_the_same_extra_as_in_the_readme():
    set_up = BLOCKS[0].strip()
    assert "\n" not in set_up
    assert 'pip install -e ".[dev]"' in set_up
    assert 'pip install -e ".[dev]"' in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_package_has_a_row_with_the_tests_to_run():
    table = TEXT.partition("| you change | run |")[2].partition("\n\n")[0]
    listed = re.findall(r"`(dspynb/\w+/)", "\n".join(row.split("|")[1] for row in table.splitlines() if "|" in row))
    packages = {f"dspynb/{path.parent.name}/" for path in (ROOT / "dspynb").glob("*/__init__.py")}
    assert packages - set(listed) == set()


# ── hooks, templates, workflow ────────────────────────────────────────────────────────────────────────────────────────
YAML_FILES = [".pre-commit-config.yaml", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / ".github").rglob("*.yml")))]


@pytest.mark.parametrize("name", YAML_FILES)
def test_a_yaml_file_parses(name):
    assert isinstance(yaml.safe_load((ROOT / name).read_text(encoding="utf-8")), dict)


def test_the_workflow_calls_ci_run_and_uploads_its_screenshots():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert (job["runs-on"], job["timeout-minutes"]) == ("ubuntu-latest", 60)
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111, "it is not executable"
    settings = {step.get("uses", "").partition("@")[0]: step.get("with", {}) for step in job["steps"]}
    assert settings["actions/setup-python"]["python-version"] == "3.11"
    artifact = settings["actions/upload-artifact"]
    assert artifact["path"] == ".ci/screenshots"
    assert artifact["include-hidden-files"] is True  # without it, nothing below .ci is uploaded
    assert artifact["path"] in (ROOT / ".ci" / "run").read_text()


def test_hooks_are_the_checks_of_ci_and_need_no_other_repositories():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    hooks = {hook["id"]: hook for hook in repository["hooks"]}
    assert set(hooks) == {"ruff-check", "ruff-format", "mypy", "notebooks"}
    for hook in hooks.values():
        assert hook["language"] == "system"
        words = hook["entry"].split()
        assert (ROOT / words[1]).exists() if words[0] == "python" else words[0] in (ROOT / ".ci" / "run").read_text()
    assert re.search(hooks["notebooks"]["files"], "notebooks/00_quickstart.ipynb")
    assert not re.search(hooks["notebooks"]["files"], "tests/fixtures/v0_1/notebook.ipynb")
    assert re.search(hooks["mypy"]["files"], "dspynb/lm/client.py")


def test_issue_templates_are_valid_for_github():
    for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.name == "config.yml":
            continue
        assert form["name"]
        assert form["description"]
        ids = [item["id"] for item in form["body"] if item["type"] != "markdown"]
        assert len(set(ids)) == len(ids) > 0
        assert all(item["attributes"].get("label") or item["type"] == "markdown" for item in form["body"])


# ── notebooks ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check_notebooks", ROOT / ".ci" / "check_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_tutorial_was_run_top_to_bottom_and_its_outputs_have_no_errors_or_machine_details(check, path):
    before = path.read_bytes()
    assert check.problems(path) == []
    assert path.read_bytes() == before


def _cell(source="1", count=1, **output):
    outputs = [{"output_type": "execute_result", "execution_count": 1, "data": {"text/plain": "1"}, "metadata": {}}]
    if output:
        outputs = [output]
    return {
        "cell_type": "code",
        "id": f"cell-{count}",
        "metadata": {},
        "source": source,
        "execution_count": count,
        "outputs": outputs,
    }


def _html_output(text):
    return {"output_type": "display_data", "data": {"text/html": text}, "metadata": {}}


DAMAGED = {
    "stripped": ([_cell(count=None) | {"outputs": []}], r"code cell 1: it was not run; restart the kernel"),
    "without outputs": ([_cell() | {"outputs": []}], r"it has no outputs; run it and save it with its outputs"),
    "in another order": ([_cell(count=2), _cell(count=1)], r"code cell 1: it was run as \[2\]"),
    "an error": (
        [_cell(output_type="error", ename="ValueError", evalue="no", traceback=[])],
        r"code cell 1: it ended with ValueError: no",
    ),
    "stderr": ([_cell(output_type="stream", name="stderr", text="odd\n")], r"code cell 1: it wrote to stderr: 'odd'"),
    "a path": ([_cell(**_html_output("/home/ada/x"))], r"a detail of this machine: /home/ada/x"),
    "an address": ([_cell(**_html_output("<f at 0x7f00aa11>"))], r"a detail of this machine: 0x7f00aa11"),
    "no recording": ([_cell('dn.recorded("recordings/x.jsonl")')], r"its recording recordings/x\.jsonl is missing"),
    "no cells": ({"nbformat": 4}, r"is not a valid notebook: "),
    "no json": ("{", r"is not a valid notebook: "),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_the_hook_names_the_problem_of_a_notebook_and_changes_nothing(check, tmp_path, capsys, name):
    cells, problem = DAMAGED[name]
    body = cells
    if isinstance(cells, list):
        body = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}
    path = tmp_path / "x.ipynb"
    path.write_text(body if isinstance(body, str) else json.dumps(body))
    before = path.read_bytes()
    assert check.main([str(path)]) == 1
    output = capsys.readouterr().out
    assert str(path) in output
    assert re.search(problem, output)
    assert path.read_bytes() == before


def test_the_exit_status_of_the_hook_says_whether_notebooks_are_valid():
    command = [sys.executable, str(ROOT / ".ci" / "check_notebooks.py")]
    valid = subprocess.run([*command, "notebooks/02_scope.ipynb"], check=False, timeout=60, cwd=ROOT)
    damaged = subprocess.run([*command, "README.md"], check=False, timeout=60, cwd=ROOT, stdout=subprocess.DEVNULL)
    assert (valid.returncode, damaged.returncode) == (0, 1)
