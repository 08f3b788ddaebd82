"""The command line: demo, tutorials, version and errors."""

from __future__ import annotations

from pathlib import Path

import pytest

import dspynb as dn
from dspynb.cli import main
from dspynb.demo import run_demo

ROOT = Path(__file__).parent.parent


def follows_hints(request):
    if "blue" in str(request.messages):
        return " A small blue thing."
    return " A thing that is red and rather too long to pass."


def test_the_demo_prints_attempts_and_the_table_it_measured(capsys):
    assert run_demo(dn.FunctionLM(follows_hints, adapter="prefill"), subjects=("a", "b", "c")) == 0
    out = capsys.readouterr().out
    assert "attempt 2   score 1.0 <- best" in out
    assert "hint:     Use fewer than 10 words and the word 'blue'." in out
    rows = {
        line.split(",")[0]: line.split()
        for line in map(str.strip, out.splitlines())
        if line.startswith(("BestOfN", "Refine,"))
    }
    assert "0%" in rows["BestOfN"]
    assert "100%" in rows["Refine"]


def test_the_demo_survives_a_model_that_always_fails(capsys):
    def broken(request):
        raise RuntimeError("down")

    with pytest.raises(dn.AllAttemptsFailed):
        run_demo(dn.FunctionLM(broken, adapter="prefill"), subjects=("a",))


def test_tutorials_are_copied_with_their_recordings_and_never_overwrite_files_of_the_user(tmp_path, capsys):
    assert main(["tutorials", str(tmp_path)]) == 0
    copied = tmp_path / "01_refine.ipynb"
    for part in ("*.ipynb", "recordings/*.jsonl"):
        names = {path.name for path in (ROOT / "notebooks").glob(part)}
        assert names
        assert {path.name for path in tmp_path.glob(part)} == names
    copied.write_text("mine")
    main(["tutorials", str(tmp_path)])
    assert copied.read_text() == "mine"


def test_runs_and_checkpoints_in_the_folder_of_the_tutorials_are_not_copied(tmp_path, monkeypatch):
    source = tmp_path / ".checkout" / "notebooks"
    folder = tmp_path / "mine"
    for name in ("a.ipynb", "recordings/a.jsonl", ".dspynb/runs/b.jsonl", ".ipynb_checkpoints/a-checkpoint.ipynb"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("{}")
    monkeypatch.setattr("dspynb.cli._notebooks", lambda: source)
    main(["tutorials", str(folder)])
    copied = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert copied == {"a.ipynb", "recordings/a.jsonl"}


def test_an_error_of_dspynb_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("dspynb.cli._demo", None)
    monkeypatch.setattr("dspynb.cli._notebooks", lambda: (_ for _ in ()).throw(dn.DspynbError("no tutorials here")))
    assert main(["tutorials", "x"]) == 1
    assert capsys.readouterr().err == "dspynb: no tutorials here\n"


def test_no_command_or_a_wrong_one_shows_the_usage(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "demo" in capsys.readouterr().err


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"dspynb {dn.__version__}\n"
