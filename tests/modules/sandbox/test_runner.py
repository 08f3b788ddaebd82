"""What code gives, what it may use, and what happens to a process that misbehaves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspynb.agents.sandbox import runner
from dspynb.agents.sandbox.runner import Limits, check_isolation, isolation_available, run_code
from dspynb.errors import ConfigurationError, InputError
from tests.modules.sandbox.helpers import linux, run

pytestmark = linux


@pytest.fixture
def started(monkeypatch):
    """The processes that are started, in order."""
    popen = subprocess.Popen
    processes = []

    def recording(*args, **kwargs):
        processes.append(popen(*args, **kwargs))
        return processes[-1]

    monkeypatch.setattr(runner.subprocess, "Popen", recording)
    return processes


def is_reaped(process):
    """Whether the process has ended and its status was read, so that it is no zombie."""
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return process.returncode is not None
    return False


@pytest.mark.parametrize(
    ("code", "printed", "value"),
    [
        ("", "", None),
        ("x = 1", "", None),
        ("print('a'); print('b')", "a\nb\n", None),
        ("import sys; print('a', file=sys.stderr)", "a\n", None),
        ("1 + 1", "", "2"),
        ("'text'", "", "text"),
        ("[1, 'a', None, 2.5, True]", "", '[1, "a", null, 2.5, true]'),
        ("final_answer(3); 4", "", "3"),
        ("final_answer(3)\nfinal_answer(4)", "", "4"),
        ("final_answer(a=1, b='x')", "", '{"a": 1, "b": "x"}'),
        ("final_answer(1, 2)", "", "[1, 2]"),
        ("final_answer(None)", "", "null"),
        ("import datetime; [datetime.date(2024, 2, 29)]", "", '["2024-02-29"]'),
        ("from fractions import Fraction; {(1, 2): Fraction(1, 3)}", "", "{(1, 2): Fraction(1, 3)}"),
        ("x = []; x.append(x); x", "", "[[...]]"),
        ("'über 東京'", "", "über 東京"),
        ("float('nan')", "", "NaN"),
        ("a.upper() + str(len(b['c']))", "", "X2"),
        ("def f(n):\n    return 1 if n < 2 else n * f(n - 1)\nf(20)", "", "2432902008176640000"),
        ("try:\n    import numpy\nexcept ImportError:\n    print('none')", "none\n", None),
        ("import sys; print('a'); sys.exit()", "a\n", None),
        ("final_answer(1); exit(0)", "", "1"),
        ("import json; json.dumps = None; final_answer('still')", "", "still"),
        (r"print('\d')", "\\d\n", None),
    ],
)
def test_what_code_gives(code, printed, value):
    result = run(code.replace("exit(0)", "raise SystemExit(0)"), {"a": "x", "b": {"c": [1, 2]}})
    assert (result.printed, result.value, result.failure) == (printed, value, None)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("x = 1\n1 / 0", "ZeroDivisionError: division by zero\nline 2, in <module>: 1 / 0"),
        (
            "def f():\n    return g()\ndef g():\n    return [][1]\nf()",
            "IndexError: list index out of range\nline 5, in <module>: f()\nline 2, in f: return g()\n"
            "line 4, in g: return [][1]",
        ),
        ("x = 1\nif x\n    y", "SyntaxError: expected ':'\nline 2, in <module>: if x"),
        ("raise SystemExit('why')", "SystemExit: why\nline 1, in <module>: raise SystemExit('why')"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt: \nline 1, in <module>: raise KeyboardInterrupt"),
        ("input()", "EOFError: EOF when reading a line\nline 1, in <module>: input()"),
        (
            "class E(Exception):\n    def __str__(self): 1 / 0\nraise E",
            "E: its text could not be made (ZeroDivisionError)\nline 3, in <module>: raise E",
        ),
    ],
)
def test_a_failure_has_class_message_and_lines(code, text):
    assert str(run(code).failure) == text


def test_a_null_character_a_lone_surrogate_and_endless_nesting_in_the_source_are_failures_too():
    assert run("x = '\0'").failure.kind in ("SyntaxError", "ValueError")
    assert run("x = '\ud800'").failure.kind == "UnicodeEncodeError"
    assert run("(" * 100_000).failure is not None
    assert run("-" * 1_000_000 + "1").failure is not None


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import signal\nfor n in range(1, 32):\n    try: signal.signal(n, signal.SIG_IGN)\n    except OSError: pass\n"
        "while True: pass",
        "10 ** 10 ** 10",
        "import re; re.match('(a+)+$', 'a' * 60 + 'b')",
    ],
)
def test_code_that_never_ends_is_ended_at_the_time_limit(code, started):
    began = time.monotonic()
    result = run(code, timeout=0.4)
    assert str(result.failure) == "TimeLimit: the code did not end within 0.4 s"
    assert time.monotonic() - began < 10
    assert is_reaped(started[0])


@pytest.mark.parametrize(
    "code",
    [
        "x = 'a' * 10 ** 10",
        "x = []\nwhile True: x.append('a' * 10 ** 6 + str(len(x)))",
        "x = []\nwhile True: x.append(object())",
        "def f():\n    x = {}\n    while True: x[len(x)] = [0] * 100\nf()",
        "x = 'a'\nwhile True: x += x",
        "x = list(range(10 ** 9))",
        "final_answer('a' * 90 * 2 ** 20)\nx = bytearray(100 * 2 ** 20)\ny = x * 2",
    ],
)
def test_code_that_fills_memory_gets_a_memory_error(code):
    failure = run(code, timeout=60.0, memory_mb=200).failure
    assert failure.kind == "MemoryError"
    assert failure.line in {None, *range(1, 5)}  # None: there was no memory for it


def test_a_fork_bomb_starts_nothing():
    code = "import os\nn = 0\nfor _ in range(1000):\n    try: os.fork(); n += 1\n    except PermissionError: pass\nn"
    assert run(code).value == "0"


def test_printed_text_and_the_value_are_cut():
    result = run("print('abc' * 100)\nfinal_answer('x' * 500)", output=10)
    assert result.printed == "abcabcabca … [291 more characters]"
    assert result.value == "xxxxxxxxxx … [490 more characters]"


def test_a_gigabyte_of_prints_is_no_more_than_its_beginning():
    result = run("for _ in range(10_000): print('x' * 100_000)\nfinal_answer('done')", timeout=60.0)
    assert (len(result.printed), result.value) == (10_000 + len(" … [1000000000 more characters]"), "done")


def test_a_gigabyte_written_past_python_ends_the_process(started):
    failure = run("import os\nwhile True: os.write(1, b'x' * 2 ** 20)", timeout=60.0).failure
    assert failure.kind == "OutputLimit"
    assert is_reaped(started[0])


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import os; os._exit(0)", "ended without a readable result"),
        ("import os; os.write(1, b'garbage')", "ended without a readable result"),
        ("import os; os.write(1, b'[' * 200_000); os._exit(0)", "ended without a readable result"),
        ("import os; os.write(1, b'{\"a\":' * 30_000); os._exit(0)", "ended without a readable result"),
        ("import os; os.write(1, b'\\xff\\xfe'); os._exit(0)", "ended without a readable result"),
        ("import os; os.write(1, b'{\"printed\": 1}'); os._exit(0)", "ended without a readable result"),
        ('import os; os.write(1, b\'{"printed": "\\\\ud800"}\'); os._exit(0)', "ended without a readable result"),
        ('import os; os.write(1, b\'{"other": "x"}\'); os._exit(0)', "ended without a readable result"),
        ("import os; os.write(1, b'9' * 100_000); os._exit(0)", "ended without a readable result"),
        ("import ctypes; ctypes.string_at(0)", "was ended by SIGSEGV"),
        ("import ctypes; ctypes.CDLL(None).abort()", "was ended by SIG"),
    ],
)
def test_a_process_that_ends_without_a_reply_or_with_another_is_a_crash(code, problem):
    failure = run(code, preload=["ctypes"], timeout=30.0).failure
    assert failure.kind == "Crash"
    assert problem in failure.message


def test_code_cannot_kill_even_itself():
    assert run("import os; os.kill(os.getpid(), 9)").failure.kind == "PermissionError"


def test_recursion_without_end_is_an_error_of_the_code():
    assert run("def f(): return f()\nf()").failure.kind == "RecursionError"


@pytest.mark.parametrize("code", ["def f(): f()\nf()", "x = []\nfor _ in range(10 ** 5): x = [x]\nrepr(x)"])
def test_recursion_past_python_s_own_guard_harms_only_the_process(code):
    assert run(f"import sys; sys.setrecursionlimit(10 ** 9)\n{code}", memory_mb=64, timeout=60.0).failure is not None


def test_a_reply_that_code_forges_is_no_more_than_text():
    forged = '{"printed": "<script>alert(1)</script>", "value": "__import__(\'os\')"}'
    result = run(f"import os; os.write(1, {forged.encode()!r}); os._exit(0)")
    assert result.printed == "<script>alert(1)</script>"
    assert result.value == "__import__('os')"


def test_lone_surrogates_in_what_code_gives_are_replaced():
    result = run("print('a\\ud800b'); final_answer(['\\udfff'])")
    assert (result.printed, result.value) == ("a?b\n", '["?"]')
    assert run("raise ValueError('\\ud800')").failure.message == "?"


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text() | st.text("()[]{}:=+-*'\"\\\n 0aifxn", max_size=30))
def test_any_text_is_run_or_is_a_failure(code):
    result = run(code, timeout=5.0)
    assert json.loads(result.model_dump_json())


@pytest.mark.parametrize("inputs", [{"a": object()}, {"a": {1, 2}}, {"a": [b"x"]}])
def test_inputs_that_are_not_json_able_are_refused(inputs):
    with pytest.raises(InputError, match="not JSON-able"):
        run("1", inputs)


def test_large_inputs_arrive_whole():
    assert run("len(text), text[-1]", {"text": "a" * 5_000_000 + "b"}).value == '[5000001, "b"]'


@pytest.mark.parametrize(
    "limits",
    [
        *({"timeout": wrong} for wrong in (0, -1, float("nan"), "5", True)),
        *({"memory_mb": wrong} for wrong in (1, 100.5, None)),
        *({"output": wrong} for wrong in (0, 2.5)),
    ],
)
def test_limits_out_of_range_are_refused(limits):
    with pytest.raises(ConfigurationError, match="must be a"):
        Limits(**limits)


def test_the_least_memory_is_enough_for_python():
    assert run("sum(range(1000))", memory_mb=64).value == "499500"


def test_cancelling_the_call_kills_the_process_at_once(started):
    async def main():
        task = asyncio.create_task(run_code("while True: pass", limits=Limits(timeout=60.0)))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    assert asyncio.run(main()) < 2
    assert is_reaped(started[0])


def test_a_timeout_around_the_call_stays_a_timeout(started):
    async def main():
        async with asyncio.timeout(0.2):
            await run_code("while True: pass", limits=Limits(timeout=60.0))

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert is_reaped(started[0])


KILLED = """
import asyncio, os, subprocess
from dspynb.agents.sandbox import Limits, run_code, runner

popen = subprocess.Popen
def telling(*args, **kwargs):
    process = popen(*args, **kwargs)
    print(process.pid, flush=True)
    return process
runner.subprocess.Popen = telling

async def tell_when_isolated():
    await asyncio.sleep(WAIT)
    print("now", flush=True)

async def main():
    await asyncio.gather(run_code("while True: pass", limits=Limits(timeout=100.0)), tell_when_isolated())

asyncio.run(main())
"""


@pytest.mark.parametrize("wait", ["0", "0.5"])
def test_the_process_ends_with_its_parent(wait):
    command = [sys.executable, "-c", KILLED.replace("WAIT", wait)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == "now\n"
        parent.kill()
    deadline = time.monotonic() + 20
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(child)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"  # a container's init may not reap orphans
    except FileNotFoundError:
        return False


def test_twenty_concurrent_runs_are_independent_and_leave_nothing_behind(started):
    async def main():
        slots = asyncio.Semaphore(4)

        async def square(i):
            async with slots:
                return await run_code(f"import os; open_ = {i}; final_answer(open_ ** 2)")

        return await asyncio.gather(*(square(i) for i in range(20)))

    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    results = asyncio.run(main())
    assert [r.value for r in results] == [str(i**2) for i in range(20)]
    assert len(started) == 20
    assert all(map(is_reaped, started))
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


def test_more_runs_than_processors_wait_their_turn_without_losing_time_of_their_own(monkeypatch):
    monkeypatch.setattr(runner.os, "cpu_count", lambda: 1)

    async def main():
        code, limits = "import time; time.sleep(0.3); 'x'", Limits(timeout=1.0)
        return await asyncio.gather(*(run_code(code, limits=limits) for _ in range(5)))

    assert [r.value for r in asyncio.run(main())] == ["x"] * 5


def test_it_works_on_loops_of_several_threads_at_once():
    results = []
    threads = [threading.Thread(target=lambda: results.append(run("1 + 1").value)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["2"] * 4


def test_it_works_on_a_standard_loop_of_the_machine():
    assert asyncio.run(isolation_available())


@pytest.fixture
def _unknown(monkeypatch):
    monkeypatch.setattr(runner, "_isolated", False)


ALLOW_ALL = bytes.fromhex("060000000000ff7f")


@pytest.mark.usefixtures("_unknown")
@pytest.mark.parametrize(
    ("program", "problem"),
    [
        (ALLOW_ALL, "does not enforce it: socket went through"),
        (b"", r"prctl\(22\) failed: Invalid argument"),
        (bytes.fromhex("0600000000000080"), f"ended with status -{int(signal.SIGSYS)}"),
    ],
)
def test_without_isolation_nothing_is_run(monkeypatch, started, program, problem):
    monkeypatch.setattr(runner, "filter_program", lambda machine: program)
    with pytest.raises(ConfigurationError, match=f"so none was run: .*{problem}"):
        asyncio.run(check_isolation())
    assert not asyncio.run(isolation_available())
    assert all(map(is_reaped, started))


@pytest.mark.usefixtures("_unknown")
@pytest.mark.parametrize(
    ("python", "problem"),
    [
        ("", "sys.executable is not known"),
        ("/nowhere/python", "could not be started"),
        ("/bin/echo", "so none was run"),
        ("/bin/false", "so none was run: it ended with status 1"),
    ],
)
def test_a_python_that_cannot_be_started_is_a_configuration_error(monkeypatch, python, problem):
    monkeypatch.setattr(runner.sys, "executable", python)
    with pytest.raises(ConfigurationError, match=problem):
        asyncio.run(check_isolation())


@pytest.mark.usefixtures("_unknown")
def test_a_success_of_the_check_is_remembered(started):
    async def main():
        await check_isolation()
        await check_isolation()

    asyncio.run(main())
    assert len(started) == 1
