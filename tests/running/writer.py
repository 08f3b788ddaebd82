"""A process that resumes or starts runs on command, for tests of two writers.

It reads commands from its input, one per line: ``start`` (a new run), ``resume PATH``, ``end``. Its answers are
``writing PATH`` at the first call of a run, which then waits for the file ``go`` in the folder; ``done STATUS`` when
the run has ended; or ``refused MESSAGE``. Each call of the model adds a line to the file ``calls``.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import dspynb as dn
from dspynb.errors import JournalError
from dspynb.running.journal import flush_journals
from tests.helpers import chat

FOLDER = Path(sys.argv[1])
ROWS = [{"subject": str(i)} for i in range(8)]


def say(*words):
    """Answer the process that sends the commands."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def program():
    """A predictor that reports its first call, logs each call, and waits for the file ``go``."""
    first = [True]

    async def answer(request):
        with (FOLDER / "calls").open("a") as calls:
            calls.write("x\n")
        if first:
            first.clear()
            flush_journals()
            say("writing", dn.last_run().path)
        while not (FOLDER / "go").exists():  # noqa: ASYNC110  # created by another process
            await asyncio.sleep(0.005)
        return chat(sentence="s")

    return dn.Predict("subject -> sentence", lm=dn.FunctionLM(answer))


def score(row, prediction):
    """A metric whose source is the same in every process."""
    return 1.0


async def main() -> None:
    loop = asyncio.get_running_loop()
    while command := (await loop.run_in_executor(None, sys.stdin.readline)).split():
        if command[0] == "end":
            return
        evaluate = dn.Evaluate(score, concurrency=2)
        try:
            if command[0] == "start":
                run = evaluate.start(program(), ROWS)
            else:
                run = evaluate.resume(command[1], program(), ROWS)
        except JournalError as error:
            say("refused", error)
            continue
        await run
        flush_journals()
        say("done", run.status)


if __name__ == "__main__":
    dn.configure(runs_dir=str(FOLDER / "runs"), cache=False, view="off")
    say("ready")
    asyncio.run(main())
