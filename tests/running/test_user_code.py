"""User code that raises SystemExit or similar makes one row or attempt fail; what must end the process does."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest

import dspynb as dn
from dspynb.errors import HintError, ModelError, RewardError, UserCodeExit
from dspynb.exits import is_exit
from dspynb.running.aio.sync import LoopThread
from tests.campaigns.base_exceptions import draw_trial, outcome, raise_exception, silence_log


@pytest.fixture(autouse=True, scope="module")
def _collect_garbage():
    """Let tasks that nobody awaited warn now, and not during ``ast.parse`` in a later test, where Python 3.11 fails."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _quiet():
    level = logging.getLogger("dspynb").level
    silence_log()
    yield
    logging.getLogger("dspynb").setLevel(level)


def ask(answer="4"):
    return dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: f"[[ ## answer ## ]]\n{answer}"))


def caught(work):
    try:
        dn.run_sync(work)
    except Exception as error:
        return error
    return None


# ── the campaign, reduced ─────────────────────────────────────────────────────────────────────────────────────────────
def test_in_twenty_one_trials_in_this_process_only_one_row_or_attempt_fails():
    for number in range(21):  # each callback once
        name, work, expected, how = draw_trial("small", number)
        assert (name, outcome(work, how)) == (name, expected)


@pytest.mark.slow
def test_in_a_hundred_trials_in_processes_and_a_kernel_only_one_row_or_attempt_fails():
    numbers = ["--trials", "105", "--processes", "4", "--kernels", "1", "--seed", "reduced"]
    command = [sys.executable, "-m", "tests.campaigns.base_exceptions", *numbers]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.stdout.startswith("105 of 105 trials passed, 0 wrong"), done.stdout + done.stderr
    assert done.returncode == 0


# ── error texts ───────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("sys.exit", "called sys.exit(3)"),
        ("KeyboardInterrupt", "raised KeyboardInterrupt: of the user"),
        ("own", "raised Own: of the user"),
        ("GeneratorExit", "raised GeneratorExit: of the user"),
        ("group", "raised BaseExceptionGroup: several (2 sub-exceptions)"),
        ("CancelledError", "was cancelled from inside"),
    ],
)
def test_an_error_names_the_code_that_raised_it(kind, text):
    def judge(row, prediction):
        raise_exception(kind)

    def suggest(attempts, program, inputs):
        raise_exception(kind)

    class Program(dn.Module):
        async def forward(self, question):
            raise_exception(kind)

    def model(request):
        raise_exception(kind)

    reward = caught(lambda: dn.BestOfN(ask(), judge, n=1)(question="1?")).exceptions[0]
    assert type(reward) is RewardError
    assert f"the reward judge {text}" in str(reward)
    hint = caught(lambda: dn.Refine(ask(), lambda row, p: 0.5, n=2, hints=suggest)(question="1?"))
    assert type(hint) is HintError
    assert f"the hints function suggest {text}" in str(hint)
    program = caught(lambda: Program()(question="1?"))
    assert type(program) is UserCodeExit
    assert f"Program.forward {text}" in str(program)
    assert program.__cause__ is not None
    called = caught(lambda: dn.Predict("question -> answer", lm=dn.FunctionLM(model, name="mine"))(question="1?"))
    assert type(called) is ModelError
    assert f"the model mine {text}" in str(called)
    assert dn.last_run().status == "failed"
    assert f"the model mine {text}" in dn.last_run().calls.error.iloc[0]


def test_the_error_can_be_pickled():
    error = caught(lambda: _Leaves()(question="1?"))
    message = "_Leaves.forward called sys.exit('no licence'); raise an Exception in its place"
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == message


class _Leaves(dn.Module):
    async def forward(self, question):
        sys.exit("no licence")


def test_an_awaited_program_that_exits_is_a_failed_run_and_an_error():
    with pytest.raises(UserCodeExit, match="no licence"):
        asyncio.run(_Leaves()(question="1?"))
    assert dn.last_run().status == "failed"


def test_an_attempt_that_raises_a_cancellation_does_not_affect_the_others_of_its_wave():
    async def leaks(row, prediction):
        if dn.current_attempt().number == 2:
            task = asyncio.create_task(asyncio.sleep(5))
            task.cancel()
            await task
        return 0.5

    prediction = dn.BestOfN(ask(), leaks, n=3, width=3).run_sync(question="1?")
    assert ["cancelled from inside" in str(error) for error in prediction.run.attempts.error] == [False, True, False]


# ── errors that must not be caught ────────────────────────────────────────────────────────────────────────────────────
def in_script(code, *signals):
    """Run a script, and send it signals when it prints "ready". Returns its exit status and its output."""
    command, lines = [sys.executable, "-c", code], []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            lines.append(line)
            if line == "ready\n":
                for number in signals:
                    process.send_signal(number)
    return process.returncode, "".join(lines)


SCRIPT = """
import asyncio, signal, sys, time, dspynb as dn
signal.signal(signal.SIGINT, signal.default_int_handler)
dn.configure(view="off", runs_dir=None)
ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
rows = [{"question": str(i), "answer": "4"} for i in range(3)]
def busy(row, prediction):
    if row.question == "1":
        print("ready", flush=True)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            pass
    return 1.0
"""


def test_a_handler_of_sigterm_that_exits_ends_the_process_even_during_a_metric():
    code = SCRIPT + (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "asyncio.run(dn.evaluate(ask, rows, busy))\nprint('went on')"
    )
    status, output = in_script(code, signal.SIGTERM)
    assert status == 7
    assert "went on" not in output


def test_ctrl_c_during_a_metric_of_a_table_ends_the_script():
    code = SCRIPT + "dn.score_table(busy, [{'question': '1', 'predicted_answer': '4'}])\nprint('went on')"
    status, output = in_script(code, signal.SIGINT)
    assert status == -signal.SIGINT
    assert "went on" not in output
    assert output.rstrip().endswith("KeyboardInterrupt")


def test_a_users_handler_that_raises_keyboard_interrupt_ends_the_script():
    code = SCRIPT + (
        "def handler(*_):\n    raise KeyboardInterrupt('mine')\n"
        "signal.signal(signal.SIGINT, handler)\n"
        "asyncio.run(dn.evaluate(ask, rows, busy))\nprint('went on')"
    )
    status, output = in_script(code, signal.SIGINT)
    assert status != 0
    assert "went on" not in output
    assert "KeyboardInterrupt: mine" in output


def test_ctrl_c_is_distinguished_from_a_keyboard_interrupt_that_code_raises():
    assert is_exit(_raised(KeyboardInterrupt))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as pressed:
            _pressed()
        assert not is_exit(pressed.value)
    finally:
        signal.signal(signal.SIGINT, before)


def _pressed():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)


def _raised(kind):
    try:
        raise kind
    except BaseException as error:
        return error


def test_closing_the_coroutine_of_a_program_is_not_an_error():
    class Waits(dn.Module):
        async def forward(self, question):
            await asyncio.Event().wait()

    async def main():
        coroutine = Waits()._inside({"question": "1?"})
        coroutine.send(None)
        coroutine.close()  # raises RuntimeError if the GeneratorExit counts as the program's error

    dn.run_sync(main)


def test_a_timeout_over_a_program_stays_a_timeout():
    class Waits(dn.Module):
        async def forward(self, question):
            await asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))

    async def main():
        async with asyncio.timeout(0.05):
            await Waits().batch([{"question": "1?"}] * 3)

    assert type(caught(main)) is TimeoutError
    assert dn.last_run().status == "cancelled"


# ── the loop of run_sync ──────────────────────────────────────────────────────────────────────────────────────────────
async def _leave_soon():
    await asyncio.sleep(0)
    sys.exit(4)


def test_run_sync_raises_if_a_task_that_nothing_awaits_ends_its_loop():
    async def main():
        task = asyncio.create_task(_leave_soon())
        await asyncio.Event().wait()
        return task

    error = caught(main)
    assert type(error) is UserCodeExit
    assert "called sys.exit(4), which nothing awaited" in str(error)
    assert ask().run_sync(question="1?").answer == "4"


def test_run_sync_raises_if_user_code_stops_its_loop():
    async def main():
        asyncio.get_running_loop().stop()
        await asyncio.Event().wait()

    assert "stopped by user code" in str(caught(main))
    assert ask().run_sync(question="1?").answer == "4"


def test_run_sync_raises_if_its_loop_is_broken_and_the_next_call_has_a_new_loop():
    async def main():
        loops.append(asyncio.get_running_loop())
        loops[0]._selector.unregister(loops[0]._ssock)
        loops[0]._run_once = broken
        await asyncio.Event().wait()

    def broken():
        raise OSError("the selector is gone")

    loops = []
    assert "the event loop of run_sync has ended: raised OSError: the selector is gone" in str(caught(main))
    assert ask().run_sync(question="1?").answer == "4"


def test_only_the_row_that_awaits_a_task_which_exits_fails_under_run_sync():
    class Gathers(dn.Module):
        async def forward(self, question):
            if question == "1":
                await asyncio.gather(_leave_soon(), asyncio.sleep(0))
            return {"answer": question}

    rows = dn.run_sync(lambda: Gathers().batch([{"question": str(i)} for i in range(3)]))
    assert [type(row).__name__ for row in rows] == ["Prediction", "UserCodeExit", "Prediction"]


def test_work_that_is_cancelled_before_it_begins_leaves_nothing_unawaited():
    thread = LoopThread("test")

    async def work():
        return 1

    futures = [thread.submit(work) for _ in range(100)]
    for future in futures:
        future.cancel()
    assert thread.submit(work).result(10) == 1
    thread.loop().call_soon_threadsafe(thread.loop().stop)


class Leaving:
    """Its repr and its copy exit the process."""

    def __repr__(self):
        sys.exit(3)

    def __deepcopy__(self, memo):
        raise KeyboardInterrupt


@pytest.mark.parametrize("key", ["", "a-key-that-is-looked-for-in-values"])
def test_a_value_whose_repr_exits_the_process_is_shown_by_its_class(key, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)

    class Holds(dn.Module):
        async def forward(self, question):
            return {"answer": Leaving()}

    table = asyncio.run(dn.evaluate(Holds(), [{"question": "1?"}], lambda row, p: 1.0)).table
    assert table.score.tolist() == [1.0]
    assert "Leaving that cannot be shown" in str(table.iloc[0].to_dict())


def test_the_text_of_a_tools_error_may_exit_the_process():
    class Odd(Exception):
        def __str__(self):
            return sys.exit(3)

    def search(query: str) -> str:
        """Find it."""
        raise Odd

    observation = asyncio.run(dn.Tool(search)({"query": "a"}))
    assert (observation.ok, observation.text) == (False, "search failed: <Odd that cannot be shown>")


def test_an_attribute_whose_copy_exits_the_process_is_shared():
    program = dn.Predict("question -> answer").map(lambda prediction: prediction)
    program.client = Leaving()
    assert copy.deepcopy(program).client is program.client
