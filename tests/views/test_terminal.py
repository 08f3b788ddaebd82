"""Runs in a real terminal: a process behind a pseudo-terminal, as a person would see it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.views.terminals import ROOT, Terminal, screen_lines

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")

HEAD = """
import asyncio, sys
import dspynb as dn
dn.configure(cache=False, runs_dir=None)
replies = []
async def model(request):
    await asyncio.sleep({pace})
    replies.append(request)
    return f"[[ ## answer ## ]]\\n{{len(replies)}} is the answer\\n[[ ## completed ## ]]"
program = dn.Predict("question -> answer", lm=dn.FunctionLM(model))
def rows(n):
    return [{{"question": f"what is {{i}}?"}} for i in range(n)]
def right(row, prediction):
    return 1.0
def better(row, prediction):
    return dn.Score(min(1.0, len(replies) / 4), feedback="try a larger number")
"""


def terminal(code, pace=0.02, **settings):
    return Terminal(HEAD.format(pace=pace) + code, **settings)


def drawn(sent):
    """The texts of the status line, one for each drawing."""
    parts = sent.decode().split("\r")
    drawings = [part for part in parts if "\x1b[K" in part and not part.startswith("\x1b[K")]
    return [screen_lines(part, 1000)[-1] for part in drawings]


def test_an_evaluation_is_a_status_line_that_is_redrawn_and_a_summary():
    with terminal("asyncio.run(dn.evaluate(program, rows(40), right, concurrency=4))", pace=0.05) as screen:
        assert screen.end() == 0, "\n".join(screen.lines)
        (line,) = [text for text in screen.lines if text]
        lines = drawn(screen.sent)
    assert line.startswith(
        "✓ finished Predict(question: str -> answer: str) 40/40 rows · mean 1 [0.912, 1] · 40 calls · "
    )
    assert len(lines) > 2
    assert any("/40 rows · mean 1" in text and "━" in text for text in lines)


def test_a_refine_ends_with_its_attempts_in_a_table():
    with terminal("asyncio.run(dn.Refine(program, better, n=4)(question='a'))") as screen:
        assert screen.end() == 0, "\n".join(screen.lines)
        lines = [text for text in screen.lines if text]
    assert "4/4 attempts · best 1 · 4 calls" in lines[0]
    assert lines[1].split() == ["#", "state", "score", "hint", "answer"]
    assert lines[2].split()[:4] == ["1", "○", "scored", "0.25"]
    assert lines[-1].split()[:5] == ["★", "4", "✓", "passed", "1"]
    assert "try a larger number" in lines[-1]
    assert lines[-1].endswith("4 is the answer")


def test_ctrl_c_leaves_the_terminal_tidy_and_keeps_the_best():
    code = """
try:
    asyncio.run(dn.Refine(program, lambda r, p: len(replies) / 100, n=50, hints="feedback")(question="a"))
except KeyboardInterrupt:
    print("BEST", dn.last_run().best.answer, dn.last_run().status)
"""
    with terminal(code, pace=0.2) as screen:
        screen.wait_for_match(r" [1-9]\d?/50 attempts")
        screen.press_ctrl_c()
        assert screen.end() == 0, "\n".join(screen.lines)
        lines = [text for text in screen.lines if text]
    assert lines[0].startswith("■ interrupted Refine(Predict(question: str -> answer: str))")
    assert re.search(r" [1-9]\d?/50 attempts · best 0\.\d+", lines[0])
    assert any(text.startswith("★") for text in lines)
    assert lines[-1].split()[0] == "BEST"
    assert lines[-1].split()[-1] == "interrupted"
    assert not any("^C" in text for text in lines)


def test_ctrl_c_in_a_script_without_async_is_tidy_too():
    with terminal(
        "dn.Refine(program, lambda r, p: 0.1, n=50, hints='feedback').run_sync(question='a')", pace=0.2
    ) as screen:
        screen.wait_for_match(r" [1-9]\d?/50 attempts")
        screen.press_ctrl_c()
        assert screen.end() != 0
        lines = [text for text in screen.lines if text]
    assert any(text.startswith("■ interrupted") for text in lines)
    assert lines[-1] == "KeyboardInterrupt"
    assert not any(text.startswith("●") for text in lines)


def test_output_of_the_program_is_written_unchanged_above_the_status_line():
    code = """
def talking(row, prediction):
    print("row", row.question)
    print("to stderr", file=sys.stderr)
    print("part of", end=" ")
    print("a line that is longer than the terminal is wide: " + "x" * 100)
    return 1.0
before = sys.stdout, sys.stderr
asyncio.run(dn.evaluate(program, rows(5), talking, concurrency=1))
assert (sys.stdout, sys.stderr) == before
"""
    with terminal(code, pace=0.15) as screen:
        assert screen.end() == 0, "\n".join(screen.lines)
        lines = screen.lines
    for i in range(5):
        at = lines.index(f"row what is {i}?")
        assert lines[at + 1] == "to stderr"
        assert lines[at + 2].startswith("part of a line that is longer")
        assert lines[at + 3] == "x" * (
            len(f"part of a line that is longer than the terminal is wide: {'x' * 100}") - 100
        )
    assert [text for text in lines if "●" in text] == []


def test_redirected_stdout_has_nothing_of_the_status_line():
    code = "asyncio.run(dn.evaluate(program, rows(20), right)); print('RESULT')"
    with terminal(code, stdout=subprocess.PIPE) as screen:
        output = screen.process.stdout.read()
        screen.process.stdout.close()
        screen.end()
        assert "✓ finished" in "".join(screen.lines)
    assert output == b"RESULT\n"


@pytest.mark.parametrize("columns", [20, 40])
def test_a_narrow_terminal_shows_the_most_important_facts_on_one_line(columns):
    code = "asyncio.run(dn.evaluate(program, rows(30), right, concurrency=2))"
    with terminal(code, pace=0.05, columns=columns) as screen:
        screen.end()
        lines = drawn(screen.sent)
        ended = screen.lines
    assert max(map(len, lines)) <= columns - 3
    assert any("/30 rows" in text for text in lines)
    assert max(map(len, ended)) <= columns
    assert ended[0].startswith("✓ finished")


def test_no_color_is_respected():
    with terminal("asyncio.run(dn.evaluate(program, rows(5), right))", env={"NO_COLOR": "1"}) as screen:
        screen.end()
        assert b"\x1b[3" not in screen.sent
        assert "✓ finished" in "".join(screen.lines)


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_dumb_terminal_gets_plain_lines(term):
    with terminal("asyncio.run(dn.Refine(program, better, n=4)(question='a'))", env={"TERM": term}) as screen:
        screen.end()
        assert b"\x1b" not in screen.sent
        assert [text.split("  ")[0] for text in screen.lines[:4]] == [f"attempt {n}" for n in (1, 2, 3, 4)]


def test_a_terminal_without_unicode_gets_ascii():
    settings = {"env": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}}
    with terminal("asyncio.run(dn.evaluate(program, rows(10), right))", **settings) as screen:
        assert screen.end() == 0, "\n".join(screen.lines)
        assert screen.sent.isascii()
        assert screen.lines[0].startswith("+ finished Predict(question: str -> answer: str) 10/10 rows | mean 1")
        assert "\\" not in "".join(screen.lines)


def test_hostile_texts_are_made_harmless_in_the_terminal():
    code = r"""
bad = "\x1b]0;pwned\x07\x1b[2J\x9b31m\x00\r\nnext\u202egpj.exe\u2066 [bold]markup[/bold] :boom:"
class Hostile(Exception): pass
Hostile.__name__ = Hostile.__qualname__ = bad.replace("\x00", "")
def metric(row, prediction):
    if row.question == bad: raise Hostile(bad)
    return 0.5
async def hostile(request): return "[[ ## answer ## ]]\n" + bad + "\n[[ ## completed ## ]]"
program = dn.Predict("question -> answer", lm=dn.FunctionLM(hostile))
asyncio.run(dn.evaluate(program, [{"question": bad}, *rows(2)], metric))
asyncio.run(dn.evaluate(program, [{"question": bad}, *rows(20)], metric))
asyncio.run(dn.compare({bad: program, "b": program}, rows(3), right))
asyncio.run(dn.Refine(program, lambda r, p: dn.Score(0.1, feedback=bad), n=2)(question=bad))
"""
    with terminal(code, columns=300) as screen:
        assert screen.end() == 0, "\n".join(screen.lines)
        text = "\n".join(screen.lines)  # fails for any other escape sequence or control character
    assert "[bold]markup[/bold]" in text
    assert "\u202e" not in text
    assert "\u2066" not in text
    assert "]0;pwned" in text


def test_parallel_runs_share_the_status_line_and_each_ends_in_a_line():
    code = """
async def main():
    refine = dn.Refine(program, lambda r, p: 0.5, n=3, hints="feedback")
    await asyncio.gather(*(refine(question=str(i)) for i in range(4)))
asyncio.run(main())
"""
    with terminal(code, pace=0.05) as screen:
        screen.end()
        lines = [text for text in screen.lines if text]
        assert any("+3 more" in text for text in drawn(screen.sent))
    assert len(lines) == 4
    assert all("3/3 attempts · best 0.5" in text for text in lines)


def test_runs_in_threads_share_the_status_line_without_blocking_each_other():
    code = """
import threading
def work():
    asyncio.run(dn.evaluate(program, rows(400), right, concurrency=8))
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
    with terminal(code, pace=0) as screen:
        assert screen.end() == 0, "\n".join(screen.lines)
        lines = [text for text in screen.lines if text]
    assert len(lines) == 3
    assert all("400/400 rows" in text for text in lines)


def test_a_paused_run_says_so():
    code = """
async def main():
    task = asyncio.ensure_future(dn.Refine(program, lambda r, p: 0.5, n=9, hints="feedback")(question="a"))
    await asyncio.sleep(0.3)
    dn.last_run().pause()
    await asyncio.sleep(1.5)
    dn.last_run().stop()
    await task
asyncio.run(main())
"""
    with terminal(code, pace=0.1) as screen:
        screen.end()
        assert any(text.startswith("● paused Refine") for text in drawn(screen.sent))
        assert screen.lines[0].startswith("■ stopped Refine")


def test_quick_rows_are_drawn_ten_times_a_second_at_most():
    code = """
import time
began = time.monotonic()
asyncio.run(dn.evaluate(program, rows(2000), right))
print("SECONDS", time.monotonic() - began)
"""
    with terminal(code, pace=0) as screen:
        screen.end()
        (seconds,) = [float(text.split()[1]) for text in screen.lines if text.startswith("SECONDS")]
        assert "2,000/2,000 rows" in screen.lines[0]
        assert 2 <= len(drawn(screen.sent)) <= 10 * seconds + 2


def test_the_clock_is_updated_during_a_long_call():
    with terminal("asyncio.run(dn.evaluate(program, rows(1), right))", pace=5) as screen:
        screen.end()
        lines = drawn(screen.sent)
    clocks = [clock for clock in ("0:00", "0:01", "0:02", "0:03", "0:04") if any(clock in text for text in lines)]
    assert len(clocks) >= 3  # a busy machine may skip one


def test_a_stream_proxy_that_the_program_stored_goes_on_working():
    code = """
stored = []
def store(row, prediction):
    stored.append((sys.stdout, sys.stderr))
    return 1.0
asyncio.run(dn.evaluate(program, rows(1), store))
sys.stdout, sys.stderr = stored[0]
asyncio.run(dn.evaluate(program, rows(1), right))
print("AFTER", file=sys.stdout)
print("ALL", file=sys.stderr)
"""
    with terminal(code) as screen:
        assert screen.end() == 0, "\n".join(screen.lines)
        lines = [text for text in screen.lines if text]
    assert len([text for text in lines if "1/1 row" in text]) == 2
    assert lines[-2:] == ["AFTER", "ALL"]


def test_a_forked_child_writes_to_plain_streams():
    code = """
import os
def forking(row, prediction):
    if os.fork() == 0:
        print("CHILD", type(sys.stdout).__name__)
        sys.stdout.flush()
        os._exit(0)
    os.wait()
    return 1.0
asyncio.run(dn.evaluate(program, rows(1), forking))
"""
    with terminal(code) as screen:
        assert screen.end() == 0, "\n".join(screen.lines)
        assert any("CHILD TextIOWrapper" in text for text in screen.lines)


def test_a_process_that_ends_before_its_run_leaves_no_status_line():
    code = """
async def main():
    task = asyncio.ensure_future(dn.evaluate(program, rows(5), right))
    await asyncio.sleep(0.3)
    sys.stdout.flush()
    raise SystemExit(3)
asyncio.run(main())
"""
    with terminal(code, pace=5) as screen:
        assert screen.end() == 3
        assert not any(text.startswith("●") for text in screen.lines)


# ── choosing a view ───────────────────────────────────────────────────────────────────────────────────────────────────
def stderr_of(code, pace=0.0, **env):
    """What a process without a terminal writes to stderr."""
    import os

    removed = ("CI", "PYTEST_VERSION", "PYTEST_CURRENT_TEST")
    variables = {name: value for name, value in os.environ.items() if name not in removed}
    variables |= {"PYTHONPATH": str(ROOT), **env}
    code = HEAD.format(pace=pace) + code
    return subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    ).stderr


EVALUATE = "asyncio.run(dn.evaluate(program, rows(12), right, concurrency=2))"
REFINE = "asyncio.run(dn.Refine(program, better, n=2)(question='a'))"


def test_without_a_terminal_long_runs_write_plain_lines():
    also = f"assert 'rich' not in sys.modules\n{REFINE}\nasyncio.run(program(question='a'))"
    lines = stderr_of(f"{EVALUATE}\n{also}", pace=0.3).splitlines()
    assert lines[-1] == "Predict(question: str -> answer: str): finished, 12 of 12 rows, mean 1"
    assert lines[0].endswith(" of 12 rows done, 0 failed, mean 1")
    assert "attempt 1  scored" in stderr_of(f"dn.configure(view='text')\n{REFINE}")


@pytest.mark.parametrize("env", [{"CI": "true"}, {"PYTEST_VERSION": "8"}])
def test_under_tests_nothing_is_written_unless_text_is_configured(env):
    assert stderr_of(EVALUATE, **env) == ""
    assert stderr_of(f"dn.configure(view='off')\n{EVALUATE}") == ""
    assert "finished" in stderr_of(f"dn.configure(view='text')\n{EVALUATE}", **env)


def test_in_a_terminal_nothing_is_written_with_off_or_in_ci():
    for before, env in (("dn.configure(view='off')\n", {}), ("", {"CI": "1"})):
        with terminal(before + EVALUATE, env=env) as screen:
            assert screen.end() == 0, "\n".join(screen.lines)
            assert screen.sent == b""
