"""A process that resumes or starts runs on command, for tests of two writers.

It reads commands from its input, one a line: ``start`` (a new run), ``resume PATH``, ``end``. It answers ``writing PATH``
when the first call of a run is made, and waits then for the file ``go`` in its folder; ``done STATUS`` when the run has
ended; ``refused MESSAGE``. Each call of the model adds a line to the file ``calls``.
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


def program(tell=lambda: None, wait=lambda: True):
    """A predictor that notes each call, and waits before it answers."""

    async def answer(request):
        with (FOLDER / "calls").open("a") as calls:
            calls.write("x\n")
        tell()
        while not wait():
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
        evaluate, told = dn.Evaluate(score, concurrency=2), []

        def tell():
            if not told:
                told.append(True)
                flush_journals()
                print("writing", dn.last_run().path, flush=True)

        work = program(tell, (FOLDER / "go").exists)
        try:
            if command[0] == "start":
                run = evaluate.start(work, ROWS)
            else:
                run = evaluate.resume(command[1], work, ROWS)
        except JournalError as error:
            print("refused", error, flush=True)
            continue
        await run
        flush_journals()
        print("done", run.status, flush=True)
        del run


if __name__ == "__main__":
    dn.configure(runs_dir=str(FOLDER / "runs"), cache=False, view="off")
    print("ready", flush=True)
    asyncio.run(main())
