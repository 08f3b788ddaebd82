"""Random trials of user code that raises SystemExit and similar exceptions in every callback.

    python -m tests.campaigns.base_exceptions

A trial draws a callback, an exception, whether the callback is async, how the work is called, and how many rows run at
a time. One of six rows raises. A trial passes if that row has the error and all other rows have their results. Trials
run in separate processes and kernels. Each trial has a time limit, and the process must be alive after the last trial.

``--trials`` (default: 1000), ``--processes`` and ``--kernels`` (default: 16 and 4) that share the trials, ``--seed``.
``--one FROM COUNT`` runs trials in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import dspynb as dn
from dspynb.events import RolloutEnded

ROOT = Path(__file__).parents[2]
LIMIT = 60
"""Seconds that a trial may take. Trials take less than one second, so only a trial that hangs reaches it."""

ROWS = 6
BAD = 3
"""The number of the row that raises."""


class Own(BaseException):
    """A BaseException of a library, like pytest's Exit or trio's Cancelled."""


def raise_exception(kind):
    """Raise the exception of this kind."""
    if kind == "sys.exit":
        sys.exit(3)
    if kind == "group":
        raise BaseExceptionGroup("several", [ValueError("one"), SystemExit(3)])
    raise {
        "SystemExit": SystemExit,
        "KeyboardInterrupt": KeyboardInterrupt,
        "GeneratorExit": GeneratorExit,
        "CancelledError": asyncio.CancelledError,
        "StopIteration": StopIteration,
        "StopAsyncIteration": StopAsyncIteration,
        "own": Own,
    }[kind]("of the user")


EXCEPTIONS = [
    "sys.exit", "SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError", "StopIteration",
    "StopAsyncIteration", "own", "group",
]  # fmt: skip
CALLBACKS = ["metric", "forward", "model", "stream", "adapter format", "adapter parse", "map", "then", "validator"]
SEARCHES = ["reward", "program", "hints", "wide reward", "wide program"]
OTHERS = ["tool", "parallel tools", "listener", "optimizer metric", "optimizer program", "score_table", "sample"]
PLACES = [*CALLBACKS, *SEARCHES, *OTHERS]
CALLS = ["await", "run_sync", "start", "asyncio.run"]


def bad(value):
    """Whether a value belongs to the row that raises."""
    return str(BAD) in str(value)


def function(kind, is_async, when, result):
    """A callback with any arguments that raises the exception if ``when(*arguments)`` is true."""

    def plain(*args, **_):
        if when(*args):
            raise_exception(kind)
        return result(*args)

    async def coroutine(*args, **kwargs):
        await asyncio.sleep(0)
        return plain(*args, **kwargs)

    return coroutine if is_async else plain


def request_text(request):
    """The text of a request without its system message, but with its repair."""
    return "".join(message["content"] for message in request.messages[1:])


def good_reply(*_):
    """A reply in the format of the chat adapter."""
    return "[[ ## answer ## ]]\n4"


def ask(**settings):
    """A predictor whose model replies correctly."""
    settings.setdefault("lm", dn.FunctionLM(good_reply))
    return dn.Predict("question -> answer", **settings)


def program_of(place, kind, is_async):
    """A program in which the callback at this place raises for the bad row."""
    if place in ("model", "stream"):
        predict = ask(
            lm=dn.FunctionLM(function(kind, is_async, lambda request: bad(request_text(request)), good_reply))
        )
        return Streamed(predict) if place == "stream" else predict
    if place.startswith("adapter"):
        return ask(adapter=Adapter(kind, place.split()[1]))
    if place == "map":
        return KeepsQuestion(ask()).map(
            function(kind, is_async, lambda p: bad(p.question), lambda p: {"answer": p.answer})
        )
    if place == "then":
        step = function(kind, is_async, lambda p: bad(p.question), lambda p: {"question": p.question})
        return KeepsQuestion(ask()).then(step).then(ask())
    if place == "validator":
        return dn.Predict(
            signature_with(kind), lm=dn.FunctionLM(lambda r: f"[[ ## answer ## ]]\n{bad(request_text(r))}")
        )
    return Forward(ask(), kind) if place == "forward" else ask()


class Forward(dn.Module):
    """A module that raises in ``forward``."""

    def __init__(self, predict, kind):
        self.predict = predict
        self.kind = kind

    async def forward(self, question):
        if bad(question):
            raise_exception(self.kind)
        return await self.predict(question=question)


class KeepsQuestion(dn.Module):
    """Adds its question to its outputs."""

    def __init__(self, predict):
        self.predict = predict

    async def forward(self, question):
        return {**await self.predict(question=question), "question": question}


class Streamed(dn.Module):
    """A module that streams its predictor."""

    def __init__(self, predict):
        self.predict = predict

    async def forward(self, question):
        return [part async for part in self.predict.stream(question=question)][-1]


class Adapter(dn.ChatAdapter):
    """An adapter that raises in one of its methods."""

    def __init__(self, kind, method):
        self.kind = kind
        self.method = method

    def format(self, signature, inputs, **more):
        if self.method == "format" and bad(inputs["question"]):
            raise_exception(self.kind)
        return super().format(signature, inputs, **more)

    def parse(self, signature, reply):
        if self.method == "parse" and dn.current_scope().open_row[0] == BAD:
            raise_exception(self.kind)
        return super().parse(signature, reply)


def signature_with(kind):
    """A signature whose validator raises."""
    from pydantic import field_validator

    class Question(dn.Signature):
        question: str = dn.Input()
        answer: str = dn.Output()

        @field_validator("answer")
        @classmethod
        def checked(cls, value):
            if value == "True":
                raise_exception(kind)
            return value

    return Question


def rows():
    """The rows of a trial; row BAD raises."""
    return [{"question": f"{i}?", "answer": "4"} for i in range(ROWS)]


# ── the work of a trial: an async function, and its expected result ───────────────────────────────────────────────────
def rows_work(rng, place, kind, is_async):
    """A program on rows, with ``evaluate`` or ``batch``."""
    program = program_of(place, kind, is_async)
    width = rng.choice([1, 2, 6])
    metric = function(kind, is_async and rng.random() < 0.9, lambda row, p: bad(row.question), lambda row, p: 1.0)
    metric = metric if place == "metric" else dn.metrics.exact_match()
    if place == "validator":
        metric = lambda row, p: 1.0  # noqa: E731
    if place == "metric" or rng.random() < 0.5:

        async def evaluated():
            table = (await dn.evaluate(program, rows(), metric, concurrency=width, inputs=["question"])).table
            return ["error" if isinstance(e, str) else s for e, s in zip(table.error, table.score, strict=True)]

        return evaluated, [1.0 if i != BAD else "error" for i in range(ROWS)]

    async def batch():
        results = await program.batch([{"question": row["question"]} for row in rows()], concurrency=width)
        return ["error" if isinstance(result, Exception) else "answer" for result in results]

    return batch, ["answer" if i != BAD else "error" for i in range(ROWS)]


def search_work(rng, place, kind, is_async):
    """A BestOfN or Refine whose second attempt raises, or a Refine whose hints function raises."""
    is_second = lambda *_: dn.current_attempt().number == 2  # noqa: E731
    reward = lambda row, p: 0.5  # noqa: E731
    program = ask()
    if place.endswith("reward"):
        reward = function(kind, is_async, is_second, lambda *_: 0.5)
    if place.endswith("program"):
        program = KeepsQuestion(ask(lm=dn.FunctionLM(function(kind, is_async, is_second, good_reply))))
    if place == "hints":
        refine = dn.Refine(program, reward, n=3, hints=function(kind, is_async, lambda *_: True, lambda *_: "a hint"))

        async def hinted():
            try:
                return await refine(question="1?")
            except dn.errors.HintError:
                return "HintError"

        return hinted, "HintError"
    width = 3 if place.startswith("wide") else 1
    kinds = [dn.BestOfN(program, reward, n=3, width=width), dn.Refine(program, reward, n=3, width=width)]
    search = kinds[rng.random() < 0.5]
    if isinstance(search, dn.Refine):
        search.hints = "feedback"

    async def searched():
        prediction = await search(question="1?")
        return prediction.answer, [isinstance(error, str) for error in prediction.run.attempts.error]

    return searched, ("4", [False, True, False])


def other_work(rng, place, kind, is_async):
    """The work for tools, listeners, optimizers, tables and samples."""
    if place.endswith(("tool", "tools")):
        return tool_work(kind, is_async, parallel=place == "parallel tools")
    if place == "listener":
        return listener_work(kind)
    if place == "score_table":
        return table_work(kind, is_async)
    if place == "sample":
        return sample_work(kind, is_async)
    width = rng.choice([1, 4])
    program = program_of("forward" if place.endswith("program") else "", kind, is_async)
    metric = function(kind, is_async, lambda row, p: bad(row.question), lambda row, p: 1.0)
    if place.endswith("program"):
        metric = lambda row, p: 1.0  # noqa: E731
    optimizer = dn.BootstrapFewShot(metric, concurrency=width, max_bootstrapped_demos=6)

    async def compiled():
        better = await optimizer.compile(program, rows(), val=[{"question": f"{i}", "answer": "4"} for i in (BAD, 7)])
        rollouts = [event for event in dn.last_run().record.events if isinstance(event, RolloutEnded)]
        failed_rows = {(event.split, event.row) for event in rollouts if event.error is not None}
        return isinstance(better, dn.Module), ("train", BAD) in failed_rows, failed_rows - {("train", BAD), ("val", 0)}

    return compiled, (True, True, set())


def tool_work(kind, is_async, *, parallel):
    """Tools: the model sees the error of a tool that raises."""

    def search(query: str) -> str:
        """Find it."""
        if bad(query):
            raise_exception(kind)
        return "found"

    async def search_async(query: str) -> str:
        """Find it."""
        await asyncio.sleep(0)
        return search(query)

    tool = dn.Tool(search_async if is_async else search, name="search")

    async def called():
        if parallel:
            results = await asyncio.gather(*(tool({"query": f"{i}?"}) for i in range(ROWS)))
            return [result.ok for result in results]
        return (await tool({"query": f"{BAD}?"})).ok, (await tool({"query": "1?"})).text

    return called, ([i != BAD for i in range(ROWS)] if parallel else (False, "found"))


def listener_work(kind):
    """A listener that raises is removed, and the run continues."""

    class Listener:
        def emit(self, event):
            raise_exception(kind)

    async def listened():
        run = ask().start(question="1?")
        run.listen(Listener())
        return (await run).answer, run.status

    return listened, ("4", "finished")


def table_work(kind, is_async):
    """A metric on a table."""
    metric = function(kind, is_async, lambda row, p: bad(row.question), lambda row, p: 1.0)
    table = [{"question": f"{i}?", "predicted_answer": "4"} for i in range(ROWS)]

    async def scored():
        result = await asyncio.to_thread(dn.score_table, metric, table)
        return [isinstance(error, str) for error in result.error]

    return scored, [i == BAD for i in range(ROWS)]


def sample_work(kind, is_async):
    """Three concurrent samples, the second of which raises: the call fails, and the process continues."""
    count = iter(range(100))
    model = function(kind, is_async, lambda request: next(count) == 1, good_reply)
    program = dn.MultiChainComparison("question -> answer", m=3, lm=dn.FunctionLM(model))

    async def sampled():
        try:
            await program(question="1?")
        except Exception:
            return "error"

    return sampled, "error"


# ── running trials ──────────────────────────────────────────────────
def draw_trial(seed, number):
    """Draw a trial: (description, async function, expected result, how to call the function)."""
    rng = random.Random(f"{seed} {number}")
    place = PLACES[number % len(PLACES)]
    kind = rng.choice(EXCEPTIONS)
    is_async = rng.random() < 0.5
    if place in CALLBACKS:
        make_work = rows_work
    elif place in SEARCHES:
        make_work = search_work
    else:
        make_work = other_work
    work, expected = make_work(rng, place, kind, is_async)
    how = rng.choice(CALLS)
    return f"trial {number}: {place}, {kind}, {'async' if is_async else 'sync'}, {how}", work, expected, how


async def by_task(work):
    """Run work in a separate task."""
    return await asyncio.create_task(work())


def outcome(work, how):
    """Run work where no event loop is running, and return its result."""
    if how == "run_sync":
        return dn.run_sync(work)
    return asyncio.run(by_task(work) if how == "start" else work())


async def outcome_here(work, how):
    """Run work in a kernel, where an event loop is running, and return its result."""
    if how == "run_sync":
        return await asyncio.to_thread(dn.run_sync, work)
    return await (by_task(work) if how == "start" else work())


def configure():
    """Set the settings that every trial needs."""
    dn.configure(view="off", runs_dir=None, cache=False)


def silence_log():
    """Hide the log messages about exceptions, which are expected here."""
    import logging

    logging.getLogger("dspynb").setLevel(logging.CRITICAL)


def verdict(name, expected, result):
    """The line about a trial: it passed, or its result is not the expected one."""
    if result == expected:
        return f"ok {name}"
    return f"WRONG {name}: expected {expected!r}, got {result!r}"


def failed(name, error):
    """The line about a trial that raised an exception."""
    return f"WRONG {name}: raised {type(error).__name__}: {error}"


def trials_here(seed, first, count):
    """Run trials in this process, and yield a line about each. Ends the process if a trial hangs."""
    import faulthandler

    configure()
    silence_log()
    for number in range(first, first + count):
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        name, work, expected, how = draw_trial(seed, number)
        try:
            yield verdict(name, expected, outcome(work, how))
        except BaseException as error:  # no exception may leave the work
            yield failed(name, error)
        faulthandler.cancel_dump_traceback_later()


def in_process(seed, first, count):
    """Run trials in a separate process, and return a line about each."""
    command = [
        sys.executable,
        "-m",
        "tests.campaigns.base_exceptions",
        "--seed",
        str(seed),
        "--one",
        str(first),
        str(count),
    ]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=LIMIT + 10 * count, check=False)
    lines = [line for line in process.stdout.splitlines() if line.startswith(("ok ", "WRONG "))]
    if process.returncode or len(lines) != count:
        last = lines[-1] if lines else "none"
        lines.append(f"WRONG process: status {process.returncode} after {last}: {process.stderr[-1500:]}")
    return lines


def in_kernel(seed, first, count):
    """Run trials in a kernel, one per cell, and return a line about each."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(cwd=str(ROOT))
    lines = []
    try:
        cell(client, "from tests.campaigns import base_exceptions as b\nb.configure(); b.silence_log()")
        for number in range(first, first + count):
            code = (
                f"name, work, expected, how = b.draw_trial({seed!r}, {number})\n"
                "print(b.verdict(name, expected, await b.outcome_here(work, how)))"
            )
            output, error = cell(client, code)
            lines.append(output.strip() if error is None else f"WRONG kernel trial {number}: {error}")
            if not manager.is_alive():
                break
        if cell(client, "print(1 + 1)")[0].strip() != "2":
            lines.append("WRONG kernel: it does not respond after its trials")
    except TimeoutError as error:
        lines.append(f"WRONG kernel: {error} after {lines[-1] if lines else 'none'}")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return lines


def cell(client, code):
    """Run a cell, and return what it prints and its error."""
    import queue

    message = client.execute(code)
    text = []
    error = None
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        try:
            reply = client.get_iopub_msg(timeout=1)
        except queue.Empty:
            continue
        if reply["parent_header"].get("msg_id") != message:
            continue
        kind = reply["msg_type"]
        content = reply["content"]
        if kind == "stream" and content["name"] == "stdout":
            text.append(content["text"])
        elif kind == "error":
            error = f"{content['ename']}: {content['evalue']}"
        elif kind == "status" and content["execution_state"] == "idle":
            return "".join(text), error
    raise TimeoutError(f"a cell did not end within {LIMIT} s: {code}")


def campaign(seed, trials, processes, kernels):
    """Run all trials, and return a line about each."""
    places = [in_process] * processes + [in_kernel] * kernels
    bounds = [round(trials * i / len(places)) for i in range(len(places) + 1)]
    jobs = collections.deque(zip(places, bounds, bounds[1:], strict=False))
    lines = []

    def work():
        while True:
            try:
                place, first, end = jobs.popleft()
            except IndexError:
                return
            lines.extend(place(seed, first, end - first))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return lines


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--kernels", type=int, default=4)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--one", type=int, nargs=2)
    options = parser.parse_args()
    if options.one:
        for line in trials_here(options.seed, *options.one):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
        return 0
    start = time.monotonic()
    lines = campaign(options.seed, options.trials, options.processes, options.kernels)
    wrong = [line for line in lines if not line.startswith("ok ")]
    passed = len(lines) - len(wrong)
    lines = [
        *wrong,
        f"{passed} of {options.trials} trials passed, {len(wrong)} wrong, {time.monotonic() - start:.0f} s",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if wrong or passed != options.trials else 0


if __name__ == "__main__":
    sys.exit(main())
