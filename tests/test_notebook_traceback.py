"""The tracebacks that a notebook shows for errors of dspynb."""

from __future__ import annotations

import pytest
from IPython.core.interactiveshell import InteractiveShell

SETUP = """
import dspynb as dn
dn.configure(view="off", runs_dir=None, cache=False)
ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
def metric(row, prediction):
    return 1 / 0
"""


@pytest.fixture
def shown(capsys):
    """A function that runs cells in IPython and returns the lines that the last one prints."""
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(colors="nocolor")

    def run(*cells):
        for cell in (SETUP, *cells):
            capsys.readouterr()
            shell.run_cell(cell)
        return [line for line in capsys.readouterr().out.splitlines() if line.strip()]

    yield run
    InteractiveShell.clear_instance()


WRONG_INPUT = "ask.run_sync(questoin='2+2?')"


def test_an_error_is_the_users_line_and_the_message(shown):
    lines = shown(WRONG_INPUT)
    assert lines[0].endswith("line 1")
    assert lines[1].strip() == WRONG_INPUT
    assert "Verbose" in lines[2]
    assert lines[3].startswith("InputError: ")
    assert len(lines) == 4


def test_the_line_of_a_metric_that_failed_is_shown(shown):
    lines = shown("dn.Refine(ask, metric, n=2, hints='feedback').run_sync(question='2+2?')")
    assert "    return 1 / 0" in lines
    assert "ZeroDivisionError: division by zero" in lines
    assert any(line.startswith("AllAttemptsFailed: ") for line in lines)
    assert len(lines) <= 10


@pytest.mark.parametrize("mode", ["Plain", "Verbose"])
def test_the_full_traceback_is_shown_on_request(shown, mode):
    assert len(shown(WRONG_INPUT, f"%tb {mode}")) > 15
    assert len(shown(f"%xmode {mode}", WRONG_INPUT)) > 15
    assert len(shown("%xmode Context", WRONG_INPUT)) < 5


def test_an_error_of_the_user_is_left_to_ipython(shown):
    lines = shown("1 / 0")
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert any("Traceback" in line for line in lines)


def test_a_handler_of_the_users_own_remains(shown):
    lines = shown(
        "get_ipython().set_custom_exc((ExceptionGroup,), lambda *_, **__: print('my own'))",
        "dn.Refine(ask, metric, n=2, hints='feedback').run_sync(question='2+2?')",
    )
    assert "my own" in lines
