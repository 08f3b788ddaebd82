"""Ctrl-C where our handler meets those of others: plain IPython in a terminal, uvicorn, a user's own."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

import dspynb as dn
from tests.views.terminals import Terminal

IPYTHON = """
import sys
sys.argv = ["ipython", "--simple-prompt", "--no-banner", "--no-confirm-exit", "--colors=NoColor", "--quick"]
from IPython import start_ipython
start_ipython()
"""
SLOW = "dn.Predict('q -> a', lm=dn.FunctionLM(lambda r: print('be' + 'gun') or asyncio.sleep(600, 'a: 4')))"


class Cells:
    """A plain IPython in a terminal."""

    def __init__(self, terminal):
        self.terminal, self.number = terminal, 1
        terminal.wait_for("In [1]")

    def begin(self, code):
        """Type a cell."""
        os.write(self.terminal._own, f"{code}\n".encode())

    def end(self):
        """Wait for the next prompt; what was written since the last."""
        before = len(self.terminal.sent)
        self.number += 1
        self.terminal.wait_for(f"In [{self.number}]")
        return self.terminal.sent[before:].decode(errors="replace")

    def run(self, code):
        """A cell from its beginning to its end."""
        self.begin(code)
        return self.end()

    def interrupt(self, code):
        """Press Ctrl-C in a cell once it has said that it has begun; what it wrote."""
        before = len(self.terminal.sent)
        self.press(code)
        self.end()
        return self.terminal.sent[before:].decode(errors="replace")

    def interrupt_python(self, code):
        """The same for a cell that does not use dspynb, so that Python's own handler raises KeyboardInterrupt.

        Python drops it in the callback of a weak reference, and says so: a person presses again.
        """
        before = len(self.terminal.sent)
        self.press(code)
        ended = re.compile(rf"In \[{self.number + 1}\]|Exception ignored in")
        while not ended.search(self.terminal.sent[before:].decode(errors="replace")):
            assert self.terminal._read(60), self.terminal.sent[before:]
        if b"Exception ignored in: <function WeakSet" in self.terminal.sent[before:]:
            self.terminal.press_ctrl_c()
        self.end()
        return self.terminal.sent[before:].decode(errors="replace")

    def press(self, code):
        """The same, without waiting for its end."""
        before = len(self.terminal.sent)
        self.begin(code)
        while b"begun" not in self.terminal.sent[before:]:
            assert self.terminal._read(60), self.terminal.sent[before:]
        self.terminal.press_ctrl_c()
        while b"^C" not in self.terminal.sent[before:]:
            assert self.terminal._read(60), self.terminal.sent[before:]


@pytest.fixture(scope="module")
def cells():
    with Terminal(IPYTHON) as terminal:
        cells = Cells(terminal)
        cells.run("import asyncio, time, dspynb as dn; dn.configure(view='off', runs_dir=None, cache=False)")
        cells.run(f"slow = {SLOW}; quick = dn.Predict('q -> a', lm=dn.FunctionLM(lambda r: 'a: 4'))")
        cells.run("silent = dn.Predict('q -> a', lm=dn.FunctionLM(lambda r: asyncio.sleep(600, 'a: 4')))")
        yield cells
        cells.begin("exit()")
        assert terminal.end() == 0


@pytest.fixture(autouse=True)
def _works_afterwards(request):
    yield
    if "cells" in request.fixturenames:
        cells = request.getfixturevalue("cells")
        assert "Prediction(a='4')" in cells.run("await quick(q='1')")


@pytest.mark.parametrize(
    "code",
    [
        "await slow(q='1')",
        "await slow.batch([{'q': '1'}, {'q': '2'}])",
        "run = slow.start(q='1'); await run",
        "await asyncio.gather(silent(q='1'), slow(q='2'))",
        "task = asyncio.create_task(slow(q='1')); await asyncio.sleep(600)",
        "slow.run_sync(q='1')",
    ],
)
def test_one_ctrl_c_in_plain_ipython_ends_the_cell_and_the_next_press_works(cells, code):
    for _ in range(2):
        written = cells.interrupt(code)
        assert "Interrupt" in written or "CancelledError" in written
        assert "'interrupted'" in cells.run("await asyncio.sleep(0.01); dn.last_run().status")
    written = cells.interrupt_python("print('be' + 'gun'); any(time.sleep(0.01) for _ in range(60000))")
    assert "KeyboardInterrupt" in written


BUSY = """
def busy(row, prediction):
    print("be" + "gun")
    while not dn.last_run().interrupted: time.sleep(0.01)
    print("once " + "more")
    for _ in range(60000): time.sleep(0.01)
"""


def test_a_reward_that_computes_in_plain_ipython_ends_at_the_second_press(cells):
    cells.run(f"exec({BUSY!r})")
    cells.press("await dn.BestOfN(quick, busy, n=1)(q='1')")
    cells.terminal.wait_for("once more")  # two presses in one instant are one signal
    cells.terminal.press_ctrl_c()
    cells.end()


@pytest.mark.timeout(60)
def test_a_press_right_before_the_loop_waits_wakes_it():
    cancelled = []

    async def answer(request):
        threading.Thread(target=press, daemon=True).start()
        try:
            return await asyncio.sleep(600, "answer: 4")
        except asyncio.CancelledError:
            cancelled.append(request)
            raise

    def press():
        time.sleep(0.2)  # the main thread waits by now; if it does not, this is an ordinary press
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # not to the main thread: its wait is not broken off

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(dn.Predict("question -> answer", lm=dn.FunctionLM(answer))(question="2+2?"))
    assert len(cancelled) == 1
    assert dn.last_run().status == "interrupted"


def test_after_a_run_the_wakeup_descriptor_is_unset():
    ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    asyncio.run(ask(question="2+2?"))
    assert signal.set_wakeup_fd(-1) == -1


def test_a_wakeup_descriptor_of_other_code_stays_set():
    async def main():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, lambda: None)
        before = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(before)
        await dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))(question="2+2?")
        after = signal.set_wakeup_fd(before)
        loop.remove_signal_handler(signal.SIGUSR1)
        return before, after

    before, after = asyncio.run(main())
    assert before == after != -1


PRESSES = """
import signal, sys, threading
import dspynb as dn

dn.configure(view="off", runs_dir=None, cache=False)
quick = dn.Predict("q -> a", lm=dn.FunctionLM(lambda request: "a: 4"))
quick.run_sync(q="the loop begins")


def press_after(steps):
    remaining = steps

    def trace(frame, event, argument):
        nonlocal remaining
        frame.f_trace_opcodes = True
        if event in ("line", "opcode"):
            remaining -= 1
            if remaining == 0:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return trace

    sys.settrace(trace)
    try:
        quick.run_sync(q="1")
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    assert remaining > 0, f"the press after {steps} steps was lost"
    return False


presses = 1
while press_after(presses):
    thread = threading.Thread(target=quick.run_sync, kwargs={"q": "2"}, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), f"after a press at step {presses} no call returns any more"
    quick.run_sync(q="3")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, presses
    presses += 1
print("presses", presses)
"""


def test_ctrl_c_at_any_step_ends_run_sync_and_the_next_call_works():
    done = subprocess.run([sys.executable, "-c", PRESSES], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 200


SERVER = """
import asyncio, sys, uvicorn, dspynb as dn
dn.configure(view="off", runs_dir=None)
go = None
async def answer(request):
    print("begun", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, go.wait)
    return "answer: 4"
import threading
go = threading.Event()
ask = dn.Predict("question -> answer", lm=dn.FunctionLM(answer))
async def app(scope, receive, send):
    prediction = await ask(question="2+2?")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": prediction.answer.encode()})
threading.Thread(target=lambda: (sys.stdin.readline(), go.set()), daemon=True).start()
uvicorn.run(app, fd=int(sys.argv[1]), log_level="error", lifespan="off")
"""


def test_ctrl_c_on_a_uvicorn_server_lets_requests_in_progress_end():
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port, number = listening.getsockname()[1], listening.fileno()
        command = [sys.executable, "-c", SERVER, str(number)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, pass_fds=[number], **pipes) as server:
            answers = []
            clients = []
            for _ in range(10):
                clients.append(threading.Thread(target=_get, args=(f"http://127.0.0.1:{port}/", answers)))
                clients[-1].start()
            assert [server.stdout.readline() for _ in range(10)] == ["begun\n"] * 10
            server.send_signal(signal.SIGINT)
            server.stdin.write("answer now\n")
            server.stdin.flush()
            for thread in clients:
                thread.join(60)
            assert answers == [(200, b"4")] * 10
            assert server.wait(60) == 0


def _get(url, answers):
    with urllib.request.urlopen(url, timeout=60) as reply:  # noqa: S310  # the test's server
        answers.append((reply.status, reply.read()))


class Server:
    """A server like that of uvicorn."""

    def handle_exit(self, signum, frame):
        raise AssertionError


@pytest.mark.parametrize(
    "handler",
    [Server().handle_exit, functools.partial(print), lambda *_: None, signal.SIG_IGN, signal.SIG_DFL],
    ids=["a server's", "a partial", "a function", "ignored", "the default of the system"],
)
@pytest.mark.parametrize("how", ["await", "run_sync"])
def test_handlers_of_other_code_stay_in_place(handler, how):
    handlers = []

    def answer(request):
        handlers.append(signal.getsignal(signal.SIGINT))
        return "answer: 4"

    ask = dn.Predict("question -> answer", lm=dn.FunctionLM(answer))
    before = signal.signal(signal.SIGINT, handler)
    try:
        if how == "await":
            asyncio.run(ask(question="2+2?"))
        else:
            ask.run_sync(question="2+2?")
    finally:
        signal.signal(signal.SIGINT, before)
    assert handlers == [handler]
