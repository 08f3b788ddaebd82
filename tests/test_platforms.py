"""dspynb works on platforms without fork and POSIX, such as Windows and Pyodide."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT_POSIX = """
import asyncio, importlib.abc, os, selectors, signal, socket, ssl, subprocess, sys, tempfile, uuid
import pandas, platformdirs  # these have a build for each platform

for name in (
    "fork", "forkpty", "register_at_fork", "getuid", "geteuid", "getgid", "getegid", "setsid", "setpgid", "getpgid",
    "killpg", "posix_spawn", "posix_spawnp", "uname", "fchmod", "fchown", "chown", "sysconf", "WNOHANG", "getloadavg",
):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGKILL", "SIGSTOP", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGCHLD", "pthread_sigmask", "setitimer", "alarm"):
    delattr(signal, name)
POSIX = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline", "_posixshmem"}

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in POSIX:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in POSIX:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Missing())
"""

PROGRAM = """
import dspynb as dn
for name in dn.__all__:
    getattr(dn, name)
folder = tempfile.mkdtemp()
dn.configure(view="off", runs_dir=folder)
ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
assert ask.run_sync(question="2+2?").answer == "4"
assert asyncio.run(ask(question="2+2?")).answer == "4"
tool = dn.Tool(lambda n: n, name="same")
assert dn.run_sync(lambda: tool({"n": 1})).text == "1"
evaluation = dn.run_sync(lambda: dn.evaluate(ask, [{"question": "2+2?", "answer": "4"}], dn.metrics.exact_match()))
assert (float(evaluation), dn.open_run(evaluation.run.id).status, len(dn.runs())) == (1.0, "finished", 1)
ask.instruction = "Be brief."
ask.save(folder + "/ask.json")
loaded = dn.Predict("question -> answer")
loaded.load(folder + "/ask.json")
assert loaded.instruction == "Be brief."
with dn.snapshot().enter():
    pass
print("works")
"""


def test_everything_except_the_sandbox_works_without_fork_and_posix():
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT_POSIX + PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    assert (process.stdout, process.stderr) == ("works\n", "")


@pytest.mark.parametrize("name", ["sandbox.runner", "sandbox.seccomp", "program_of_thought", "tools.mcp"])
def test_modules_that_need_posix_can_be_imported(name):
    code = WITHOUT_POSIX + f"import dspynb.agents.{name}\nprint('works')"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (process.stdout, process.stderr) == ("works\n", "")
