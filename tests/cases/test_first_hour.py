"""The output that new users see first, in a notebook, in IPython and in a script."""

from __future__ import annotations

import asyncio
import inspect
import re
import signal
import subprocess
import sys
import textwrap
import time
from html import unescape
from queue import Empty
from typing import Literal

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient
from nbconvert.preprocessors import ExecutePreprocessor

import dspynb as dn
from tests.helpers import chat, field
from tests.lm.server import Server

SECONDS = 120  # of a subprocess or a cell, at most


def answering(text):
    return dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: chat(answer=text)))


def visible(html):
    """The text of a page, without scripts and styles."""
    html = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


# ── notebooks ─────────────────────────────────────────────────────────────────────────────────────────────────────────
SETUP = """
import asyncio, dspynb as dn
dn.configure(runs_dir={folder!r}, cache=False)
calls, hanging = [], []
async def answer(request):
    calls.append(request)
    number = len(calls)
    await asyncio.sleep(0.02)
    if number in hanging:
        await asyncio.Event().wait()
    return "[[ ## answer ## ]]\\nred"
program = dn.Predict("question -> answer", lm=dn.FunctionLM(answer))
rows = [{{"question": f"question {{n}}", "answer": "blue"}} for n in range(6)]
plan = dn.Evaluate(dn.metrics.exact_match(), concurrency=1)
texts = iter(range(1000))
writer = dn.FunctionLM(lambda request: f"[[ ## new_instruction ## ]]\\nTry {{next(texts)}}.")
def start():
    return plan.start(program, rows)
def resume(run):
    return plan.resume(run.id, program, rows)
"""
OPTIMIZING = """
plan = dn.GEPA(dn.metrics.exact_match(), max_steps=3, in_flight=1, prompt_lm=writer)
def start():
    return plan.start(program, rows[:3], rows[3:])
def resume(run):
    return plan.resume(run.id, program, rows[:3], rows[3:])
"""


def executed(folder, *cells, preprocessor=False):
    """The outputs of these cells in a fresh kernel, each as a list of dicts of mime types."""
    sources = [SETUP.format(folder=str(folder)), *cells]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    if preprocessor:
        ExecutePreprocessor(timeout=SECONDS).preprocess(notebook, {})
    else:
        NotebookClient(notebook, timeout=SECONDS).execute()
    return [[output.get("data", {}) for output in cell.outputs] for cell in notebook.cells[1:]]


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="part 8: a resumed run shown in the cell that resumes it is not live"
)
@pytest.mark.parametrize("more", ["", OPTIMIZING], ids=["evaluation", "optimizer"])
def test_a_resumed_run_shown_in_the_cell_that_resumes_it_is_live(tmp_path, more):
    stop = "while len(run.rollouts) < 4 or len(calls) < 5:\n    await asyncio.sleep(0.005)\nrun.stop()\n_ = await run"
    *_, shown, ended = executed(
        tmp_path,
        more,
        f"hanging.append(5)\nrun = start()\n{stop}",
        "again = resume(run)\nagain",
        "_ = await again\nagain.status",
    )
    assert ended[-1]["text/plain"] == "'finished'"
    (data,) = shown
    assert "finished" in data["text/plain"]
    assert "finished" in visible(data["text/html"])


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="part 8: a handle shown in one cell, awaited in a later one: no output"
)
@pytest.mark.parametrize("preprocessor", [False, True], ids=["nbclient", "nbconvert"])
def test_a_handle_shown_in_one_cell_and_awaited_in_a_later_one_has_its_final_view(tmp_path, preprocessor):
    shown, _ = executed(tmp_path, "run = start()\nrun", "_ = await run", preprocessor=preprocessor)
    (data,) = shown
    assert "application/vnd.jupyter.widget-view+json" not in data
    assert "6 of 6 rows" in data["text/plain"]
    assert "6 of 6 rows" in visible(data["text/html"])


@pytest.fixture
def kernel(tmp_path):
    """A function ``kernel(code)`` that returns the outputs of a cell as dicts of mime types, in order."""
    manager, client = start_new_kernel()

    def run(code):
        message, sent, until = client.execute(code), [], time.monotonic() + SECONDS
        while time.monotonic() < until:
            try:
                reply = client.get_iopub_msg(timeout=1)
            except Empty:
                continue
            if reply["parent_header"].get("msg_id") != message:
                continue
            assert reply["msg_type"] != "error", reply["content"]
            if "data" in reply["content"] and not reply["msg_type"].startswith("comm"):
                sent.append(reply["content"]["data"])
            if reply["msg_type"] == "status" and reply["content"]["execution_state"] == "idle":
                return sent
        raise TimeoutError(code)

    run.kill = lambda: manager.shutdown_kernel(now=True)
    run(SETUP.format(folder=str(tmp_path)))
    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="part 8: a kernel restarted in the middle: saved views are only widgets"
)
def test_the_output_of_a_run_whose_kernel_was_restarted_shows_its_progress_and_how_to_resume(kernel):
    sent = kernel(
        "hanging.append(4)\nrun = start()\ndisplay(run)\n"
        "while len(calls) < 4:\n    await asyncio.sleep(0.01)\nawait asyncio.sleep(0.5)"
    )
    (name,) = kernel("run.id")
    kernel.kill()
    last = sent[-1]  # what a front end has, and saves
    saved = " ".join(visible(text) for kind, text in last.items() if kind.startswith("text/"))
    assert name["text/plain"].strip("'") in saved
    assert "resume" in saved
    assert "3 of 6 rows" in saved


# ── a killed run, opened again ────────────────────────────────────────────────────────────────────────────────────────
KILLED = """
import asyncio, os, signal, sys, dspynb as dn
dn.configure(view="off", runs_dir=sys.argv[1], cache=False)
calls = []
async def answer(request):
    calls.append(request)
    if len(calls) == 3:
        await asyncio.sleep(0.3)  # what is done is in the file by now
        os.kill(os.getpid(), signal.SIGKILL)
    return "[[ ## answer ## ]]\\nred"
program = dn.Predict("question -> answer", lm=dn.FunctionLM(answer))
plan = dn.Evaluate(dn.metrics.exact_match(), concurrency=1)
plan.run_sync(program, [{"question": f"question {n}", "answer": "red"} for n in range(6)])
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The run file of a process that was killed at the third row."""
    folder = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)], capture_output=True, timeout=SECONDS, check=False
    )
    assert done.returncode == -signal.SIGKILL
    (path,) = folder.glob("*.jsonl")
    return path


@pytest.mark.parametrize("shown", [repr, lambda run: visible(run._repr_html_())], ids=["repr", "html"])
def test_a_killed_run_opened_again_is_unfinished(killed, shown):
    run = dn.open_run(killed)
    assert run.status == "unfinished"
    assert "unfinished" in shown(run)


def test_a_killed_run_opened_again_says_how_to_resume_it(killed):
    run = dn.open_run(killed)
    text = visible(run._repr_html_())
    assert run.id in text
    assert "2 of 6 rows" in text
    assert re.search(r"\bresume\b", text)


def test_the_clock_of_a_killed_run_stands_at_its_last_event(killed, monkeypatch):
    now = dn.open_run(killed)._repr_html_()
    later = time.time() + 780
    monkeypatch.setattr(time, "time", lambda: later)
    assert dn.open_run(killed)._repr_html_() == now


def test_a_run_that_is_alive_is_listed_and_opened_as_running(tmp_path):
    async def main():
        started, release = asyncio.Event(), asyncio.Event()

        async def wait(request):
            started.set()
            await release.wait()
            return chat(answer="red")

        program = dn.Predict("question -> answer", lm=dn.FunctionLM(wait))
        run = dn.Evaluate(dn.metrics.exact_match()).start(program, [{"question": "sky", "answer": "red"}])
        await started.wait()
        during = dn.runs().status.tolist(), dn.open_run(run.id).status
        release.set()
        await run
        return during, (dn.runs().status.tolist(), dn.open_run(run.id).status)

    with dn.context(runs_dir=str(tmp_path)):
        during, afterwards = asyncio.run(main())
    assert during == (["running"], "running")
    assert afterwards == (["finished"], "finished")


# ── seconds ───────────────────────────────────────────────────────────────────────────────────────────────────────────
ROWS = 20


@pytest.fixture(scope="module")
def through_one_slot(tmp_path_factory):
    """An evaluation of 20 concurrent rows with a model of one slot, and the seconds that its server worked."""
    worked = []

    async def slow(body, number):
        began = time.perf_counter()
        await asyncio.sleep(0.03)
        worked.append(time.perf_counter() - began)
        return chat(answer="red")

    with Server(slow) as server, dn.context(view="off", runs_dir=None, cache=False):
        program = dn.Predict("question -> answer", lm=dn.LM("openai/m", api_base=server.base, concurrency=1))
        rows = [{"question": str(n)} for n in range(ROWS)]
        evaluation = asyncio.run(dn.evaluate(program, rows, lambda row, p: 1.0, concurrency=ROWS))
    assert len(worked) == ROWS
    return evaluation, sum(worked)


@pytest.mark.parametrize("table", [lambda done: done.table, lambda done: done.run.calls], ids=["rows", "calls"])
def test_seconds_are_those_of_the_work(through_one_slot, table):
    evaluation, worked = through_one_slot
    assert table(evaluation).seconds.sum() < 4 * worked  # 10 times as much, with what each waited for the slot


@pytest.mark.parametrize("table", [lambda done: done.table, lambda done: done.run.calls], ids=["rows", "calls"])
def test_the_wait_for_a_slot_has_a_separate_column(through_one_slot, table):
    evaluation, worked = through_one_slot
    others = (
        table(evaluation).select_dtypes("number").drop(columns=["seconds", "tokens", "score"], errors="ignore").sum()
    )
    assert others.max() > 4 * worked


# ── the embedded model ────────────────────────────────────────────────────────────────────────────────────────────────
class Triage(dn.Signature):
    """Say how urgent the message is."""

    message: str = dn.Input()
    urgency: Literal["low", "medium", "high"] = dn.Output()


@pytest.mark.slow
def test_a_literal_classifier_on_the_embedded_model_always_parses():
    rows = ["The server is down!", "Could you send me the invoice?", "Thanks for lunch.", "My order is late again."]
    with dn.context(lm=dn.LocalLM(), view="off"):
        evaluation = asyncio.run(
            dn.evaluate(dn.Predict(Triage), [{"message": row} for row in rows], lambda row, p: 1.0)
        )
    assert evaluation.exceptions == [None] * len(rows)
    assert {prediction.urgency for prediction in evaluation.predictions} <= {"low", "medium", "high"}


# ── comparisons ───────────────────────────────────────────────────────────────────────────────────────────────────────
def compared():
    """A comparison of a program that is right on 2 of 8 rows with one that is right on the other 6."""
    rows = [{"question": str(n), "answer": "red" if n % 4 == 0 else "blue"} for n in range(8)]
    programs = {"plain": answering("red"), "better": answering("blue")}
    asyncio.run(dn.compare(programs, rows, dn.metrics.exact_match()))
    return dn.last_run()


def as_page(capsys):
    return visible(compared()._repr_html_())


def as_text(capsys):
    with dn.context(view="text"):
        compared()
    return capsys.readouterr().err


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="part 8: a compare of two programs has one mean over both"
)
@pytest.mark.parametrize("shown", [as_page, as_text])
def test_the_view_of_a_comparison_has_no_mean_over_both_programs(shown, capsys):
    text = shown(capsys)
    assert "plain" in text
    assert not re.search(r"\bmean 0?\.5\b", text)


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="part 8: a compare of two programs has one mean over both"
)
@pytest.mark.parametrize("shown", [as_page, as_text])
def test_the_view_of_a_comparison_has_a_mean_for_each_program_and_the_difference(shown, capsys):
    text = shown(capsys)
    assert re.search(r"plain\D{1,60}0?\.250*\b", text)
    assert re.search(r"better\D{1,60}0?\.750*\b", text)
    assert re.search(r"\+0?\.50*\b", text)


# ── the names of candidates ───────────────────────────────────────────────────────────────────────────────────────────
def optimized():
    """An optimizer's run of three candidates, the last of which is the best."""

    def answer(request):
        good = "Be good" in request.messages[0]["content"]
        return chat(answer="blue" if good and field(request, "question") else "red")

    texts = iter(["No better.", "Be good."])
    writer = dn.FunctionLM(lambda request: chat(new_instruction=next(texts)))
    optimizer = dn.GEPA(
        lambda row, p: dn.Score(p.answer == "blue", "Wrong."), max_steps=2, in_flight=1, prompt_lm=writer
    )
    program = dn.Predict("question -> answer", lm=dn.FunctionLM(answer))
    optimizer.compile_sync(program, *([{"question": f"{name} {n}"} for n in range(4)] for name in ("train", "val")))
    run = dn.last_run()
    assert run.candidates.best.tolist() == [False, False, True]
    return run


def names_in_the_view(run):
    return [unescape(name).strip() for name in re.findall(r"dspynb-label'>\s*<b>([^<]+)", run._repr_html_())]


def test_the_table_of_candidates_has_the_names_of_the_view():
    run = optimized()
    names = names_in_the_view(run)
    assert len(names) == 3
    for name, row in zip(names, run.candidates.itertuples(index=False), strict=True):
        assert name in [value for value in row if isinstance(value, str)]


@pytest.mark.parametrize("place", ["matrix", "rollouts", "plot"])
def test_a_candidate_has_the_name_of_the_view_wherever_it_is_named(place):
    run = optimized()
    names = names_in_the_view(run)
    if place == "matrix":
        named = set(run.matrix.index)
    elif place == "rollouts":
        named = set(run.rollouts.candidate)
    else:
        named = {label.get_text().strip("★ ") for label in run.plot("heatmap").get_yticklabels()}
    assert named
    assert named <= set(names)


def test_the_summary_names_the_best_candidate_as_the_view_does():
    run = optimized()
    best = names_in_the_view(run)[-1]
    assert re.search(rf"candidates \([^)]*\) is {re.escape(best)}\b|best[^.]*\b{re.escape(best)}\b", run.summary)


# ── a forgotten await ─────────────────────────────────────────────────────────────────────────────────────────────────
def metric(row, prediction):
    return dn.Score(1.0, "fine")


FORGOTTEN = {
    "call": lambda: answering("4")(question="2+2?"),
    "Refine": lambda: dn.Refine(answering("4"), metric)(question="2+2?"),
    "batch": lambda: answering("4").batch([{"question": "2+2?"}]),
    "evaluate": lambda: dn.evaluate(answering("4"), [{"question": "2+2?"}], metric),
    "Evaluate": lambda: dn.Evaluate(metric)(answering("4"), [{"question": "2+2?"}]),
    "compile": lambda: dn.GEPA(metric).compile(answering("4"), [{"question": "2+2?"}]),
}


@pytest.fixture
def forgotten(request):
    value = FORGOTTEN[request.param]()
    yield value
    if inspect.iscoroutine(value) or hasattr(value, "close"):
        value.close()  # so that nothing warns that it was never awaited


@pytest.mark.parametrize("forgotten", FORGOTTEN, indirect=True)
def test_a_coroutine_that_was_not_awaited_says_so_when_it_is_shown(forgotten):
    assert re.search(r"\bawait\b", repr(forgotten))


@pytest.mark.parametrize("forgotten", FORGOTTEN, indirect=True)
def test_an_attribute_of_a_coroutine_that_was_not_awaited_says_so(forgotten):
    with pytest.raises(AttributeError) as caught:
        forgotten.answer  # noqa: B018
    assert re.search(r"\bawait\b", str(caught.value))


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────────
IPYTHON = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(colors="NoColor")
shell.run_cell('''
import sys, dspynb as dn
dn.configure(view="off", runs_dir=None, cache=False)
ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
closed = dn.Predict("question -> answer", lm=dn.LM("openai/m", api_base=sys.argv[2], api_key="none", retries=0))
''')
print("=====")
shell.run_cell(sys.argv[1])
"""


def traceback_of(cell):
    """The non-empty lines that plain IPython shows for the error of a cell."""
    with Server() as server:
        base = server.base  # closed before the request
    command = [sys.executable, "-c", IPYTHON, cell, base]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    return [line for line in done.stdout.split("=====\n")[1].splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("await ask(questoin='2+2?')", "Did you mean 'question'"),
        ("ask.run_sync(questoin='2+2?')", "Did you mean 'question'"),
        ("await dn.evaluate(ask, [{'questoin': '2+2?'}], lambda row, p: 1.0)", "questoin"),
        ("await closed(question='2+2?')", "127.0.0.1"),
    ],
)
def test_an_error_in_ipython_is_a_few_lines_with_the_users_own_and_the_message_last(cell, message):
    lines = traceback_of(cell)
    assert message in lines[-1]
    assert any(cell in line for line in lines)
    assert len(lines) <= 12


@pytest.mark.parametrize("name", ["optimise", "evalute", "Predct"])
def test_a_misspelled_name_is_suggested_once(name):
    code = textwrap.dedent(f"""
        import dspynb as dn
        dn.{name}
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 1
    assert done.stderr.count("Did you mean") == 1
