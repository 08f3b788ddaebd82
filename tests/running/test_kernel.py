"""A real kernel: the stop button ends the cell, keeps what is done, and leaves the kernel healthy."""

from __future__ import annotations

import time

import ipykernel
import pytest
from jupyter_client.manager import start_new_kernel

SETUP = """
import asyncio, time, dspynb as dn
dn.configure(view="off", runs_dir=None)
seconds = [0.0]
async def answer(request):
    calls.append(time.time())
    await asyncio.sleep(seconds[0])
    return "[[ ## sentence ## ]]\\nred"
calls = []
predict = dn.Predict("subject -> sentence", lm=dn.FunctionLM(answer))
reward = lambda row, p: dn.Score(0.5, "again")
def refine(n=100, **kw):
    return dn.Refine(predict, reward, n=n, **kw)
"""


class Kernel:
    """A kernel that runs cells and can be interrupted while one runs."""

    def __init__(self, manager, client):
        self.manager, self.client = manager, client

    def run(self, code, *presses, timeout=20):
        """(output text, error name or None, seconds); ``presses``: seconds after the start to interrupt at."""
        began = time.perf_counter()
        message = self.client.execute(code)
        presses = list(presses)
        text, error = [], None
        while True:
            elapsed = time.perf_counter() - began
            if presses and elapsed >= presses[0]:
                self.manager.interrupt_kernel()
                presses.pop(0)
            assert elapsed < timeout, f"the cell did not end: {''.join(text)}"
            try:
                reply = self.client.get_iopub_msg(timeout=0.02)
            except Exception:  # noqa: S112  # queue.Empty
                continue
            if reply["parent_header"].get("msg_id") != message:
                continue
            kind, content = reply["msg_type"], reply["content"]
            if kind == "stream":
                text.append(content["text"])
            elif kind == "execute_result":
                text.append(content["data"]["text/plain"])
            elif kind == "error":
                error = content["ename"]
            elif kind == "status" and content["execution_state"] == "idle":
                self.client.get_shell_msg(timeout=5)
                return "".join(text), error, time.perf_counter() - began


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel()
    running = Kernel(manager, client)
    assert running.run(SETUP) == ("", None, pytest.approx(0, abs=30))
    yield running
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.fixture(autouse=True)
def _healthy_afterwards(kernel):
    yield
    assert kernel.run("1 + 1")[:2] == ("2", None)
    assert kernel.run("await asyncio.sleep(0.01, 'fine')")[:2] == ("'fine'", None)
    assert kernel.run("seconds[0] = 0.0; (await predict(subject='x')).sentence")[:2] == ("'red'", None)
    calls = kernel.run("len(calls)")[0]
    assert kernel.run("await asyncio.sleep(0.15); len(calls)")[0] == calls


def test_the_kernel_is_the_expected_one(kernel):
    assert kernel.run("import ipykernel; ipykernel.__version__")[0] == repr(ipykernel.__version__)


@pytest.mark.parametrize(
    "code",
    [
        "await predict(subject='x')",
        "await refine()(subject='x')",
        "await refine(width=4)(subject='x')",
        "run = refine().start(subject='x')\nawait run",
        "await asyncio.gather(*(refine()(subject=str(i)) for i in range(5)))",
        "for i in range(100):\n    await refine(n=2)(subject=str(i))",
        "for i in range(100):\n    try:\n        await refine(n=2)(subject=str(i))\n"
        "    except Exception:\n        pass",
        "while True:\n    await asyncio.gather(*(refine(n=2)(subject=str(i)) for i in range(5)))",
        "while True:\n    async with asyncio.TaskGroup() as group:\n"
        "        for i in range(5):\n            group.create_task(refine(n=2)(subject=str(i)))",
        "await predict.batch([{'subject': str(i)} for i in range(50)])",
        "task = asyncio.create_task(refine()(subject='x'))\nawait asyncio.sleep(60)",
    ],
    ids=[
        "predict", "refine", "wide refine", "handle", "gather", "loop", "loop that catches", "loop of gathers",
        "loop of task groups", "batch", "task beside",
    ],
)  # fmt: skip
def test_one_interrupt_ends_the_cell_at_once(kernel, code):
    kernel.run("seconds[0] = 60")
    _, error, elapsed = kernel.run(code, 0.7)
    assert error in ("RunInterrupted", "CancelledError", "KeyboardInterrupt")
    assert elapsed < 30  # the target is 1.2 s; time decides no test, so only a call that is waited for fails here
    assert kernel.run("dn.last_run().status")[0] == "'interrupted'"


def test_attempts_before_the_interrupt_are_in_the_run(kernel):
    kernel.run("seconds[0] = 0.1")
    _, error, _ = kernel.run("await refine()(subject='x')", 0.7)
    assert error == "RunInterrupted"
    scores = kernel.run("dn.last_run().attempts.score.notna().sum() >= 2, dn.last_run().best.sentence")[0]
    assert "True" in scores
    assert "'red'" in scores


def test_a_computing_reward_stops_at_the_second_press(kernel):
    kernel.run(
        "def busy(row, p):\n    end = time.time() + 30\n    while time.time() < end:\n        pass\n    return 0.0\n"
        "hard = dn.Refine(predict, busy, n=3)"
    )
    _, error, elapsed = kernel.run("await hard(subject='x')", 0.5, 1.0)
    assert error in ("RunInterrupted", "CancelledError")
    assert elapsed < 25


def test_a_reward_in_a_thread_is_not_waited_for(kernel):
    kernel.run(
        "async def in_thread(row, p):\n    await asyncio.to_thread(time.sleep, 15)\n    return 0.0\n"
        "threaded = dn.Refine(predict, in_thread, n=3)"
    )
    _, error, elapsed = kernel.run("await threaded(subject='x')", 0.5)
    assert error == "RunInterrupted"
    assert elapsed < 12


def test_run_sync_in_a_cell_ends_too(kernel):
    kernel.run("seconds[0] = 60")
    _, error, elapsed = kernel.run("predict.run_sync(subject='x')", 0.5)
    assert error in ("KeyboardInterrupt", "RunInterrupted", "CancelledError")
    assert elapsed < 30
    assert kernel.run("dn.last_run().status")[0] == "'interrupted'"


def test_configure_in_an_async_cell_affects_the_next_cell_and_a_context_block_does_not(kernel):
    kernel.run("await asyncio.sleep(0); dn.configure(concurrency=11)")
    show = "from dspynb.scope import setting\nsetting('concurrency')"
    assert kernel.run(show)[0] == "11"
    kernel.run("with dn.context(concurrency=12):\n    await asyncio.sleep(0)")
    assert kernel.run(show)[0] == "11"
    assert kernel.run("await asyncio.sleep(0)\n" + show)[0] == "11"


def test_a_block_held_open_across_async_cells_reaches_no_other_cell(kernel):
    kernel.run("block = dn.hints('h')\nawait asyncio.sleep(0)\nblock.__enter__();")
    assert kernel.run("await asyncio.sleep(0)\nrepr(dn.current_hint())")[0] == "'None'"
    assert kernel.run("await asyncio.sleep(0)\nblock.__exit__(None, None, None)")[1] is None
    assert kernel.run("repr(dn.current_hint())")[0] == "'None'"


def test_a_foreign_cancellation_is_no_interrupt(kernel):
    kernel.run("seconds[0] = 60")
    code = (
        "try:\n    async with asyncio.timeout(0.2):\n        await refine()(subject='x')\n"
        "except TimeoutError:\n    print('timeout')"
    )
    assert kernel.run(code)[:2] == ("timeout\n", None)
    assert kernel.run("dn.last_run().status")[0] == "'cancelled'"


def test_stop_from_another_thread_gives_the_best_so_far(kernel):
    kernel.run("seconds[0] = 0.1")
    code = (
        "import threading\nthreading.Timer(0.5, lambda: dn.last_run().stop()).start()\n"
        "(await refine()(subject='x')).sentence, dn.last_run().status"
    )
    assert kernel.run(code)[0] == "('red', 'stopped')"


@pytest.mark.parametrize("n", [1, 4])
def test_an_interrupt_during_a_reward_that_blocks_ends_the_cell_and_a_loop(kernel, n):
    kernel.run("def blocking(row, p):\n    time.sleep(0.6)\n    return 0.1\nwent_on = []")
    code = (
        f"hard = dn.Refine(predict, blocking, n={n}, hints='feedback')\n"
        "for i in range(5):\n    await hard(subject='x')\n    went_on.append(i)"
    )
    _, error, _ = kernel.run(code, 0.3)
    assert error == "RunInterrupted"
    assert kernel.run("went_on")[0] == "[]"
    assert kernel.run("dn.last_run().status")[0] == "'interrupted'"


@pytest.mark.parametrize(
    "exits", ["raise SystemExit(3)", "raise KeyboardInterrupt", "raise type('Own', (BaseException,), {})"]
)
def test_a_metric_that_exits_makes_its_row_fail_and_not_the_kernel(kernel, exits):
    kernel.run("seconds[0] = 0.0")
    kernel.run(f"def metric(row, p):\n    if row.subject == '2':\n        {exits}\n    return 1.0")
    code = "(await dn.evaluate(predict, [{'subject': str(i)} for i in range(4)], metric)).table.score.tolist()"
    assert kernel.run(code)[:2] == ("[1.0, 1.0, 0.0, 1.0]", None)
    assert kernel.run("dn.last_run().status")[0] == "'finished'"


def test_an_awaited_program_that_exits_shows_an_error_and_the_kernel_lives(kernel):
    kernel.run("class Leaves(dn.Module):\n    async def forward(self, subject):\n        raise SystemExit(3)")
    assert kernel.run("await Leaves()(subject='x')")[1] == "UserCodeExit"
    assert kernel.run("Leaves().run_sync(subject='x')")[1] == "UserCodeExit"
    assert kernel.run("dn.last_run().status")[0] == "'failed'"
