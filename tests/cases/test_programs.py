"""Programs as users write them: results, states, models, usage, history, evaluation, replay (section 4)."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys

import numpy as np
import pytest

import dspynb as dn
from dspynb import errors
from tests.cases.either import warned, works_or_names
from tests.helpers import chat
from tests.lm.server import Server

RIGHT = dn.metrics.exact_match()
ROWS = [{"question": "2+2?", "answer": "4"}]


def always(**fields):
    """A model that always replies with the same fields."""
    return dn.FunctionLM(lambda request: chat(**fields))


# ── what forward returns; functions as programs ───────────────────────────────────────────────────────────────────
class Returns(dn.Module):
    """A program that returns a value unchanged."""

    def __init__(self, value):
        self.value = value

    async def forward(self, question):
        return self.value


class Around(dn.Module):
    """A program around another one."""

    def __init__(self, inner):
        self.inner = inner

    async def forward(self, question):
        return {"answer": await self.inner(question=question)}


_VALUES = ["4", 4, 0.5, True, ["4"], ("4",), None]


@pytest.mark.parametrize("value", _VALUES, ids=repr)
def test_the_value_that_forward_returns_is_passed_on(value):
    assert Returns(value).run_sync(question="2+2?") == value


@pytest.mark.parametrize("value", _VALUES, ids=repr)
def test_the_value_that_an_inner_program_returns_is_passed_on(value):
    assert Around(Returns(value)).run_sync(question="2+2?").answer == value


def test_batch_and_evaluation_accept_the_value_that_forward_returns():
    program = Returns("4")
    assert dn.run_sync(lambda: program.batch([{"question": "2+2?"}])) == ["4"]
    assert float(dn.Evaluate(lambda row, prediction: prediction == row.answer).run_sync(program, ROWS)) == 1


def plain_program(question):
    """A program that calls no model."""
    return {"answer": "4"}


async def async_program(question):
    """A program that awaits something, but calls no model."""
    await asyncio.sleep(0)
    return {"answer": "4"}


@pytest.mark.parametrize("program", [plain_program, async_program])
def test_a_function_is_a_program_that_can_be_evaluated(program):
    done = dn.run_sync(lambda: dn.evaluate(program, ROWS, RIGHT))
    assert float(done) == 1
    assert done.predictions[0]["answer"] == "4"


@pytest.mark.parametrize("program", [plain_program, async_program])
def test_best_of_n_accepts_a_function_as_program(program):
    assert dn.BestOfN(program, lambda row, prediction: 1.0, n=2).run_sync(question="2+2?").answer == "4"


# ── metrics as DSPy's users write them ────────────────────────────────────────────────────────────────────────────
def graded(row, prediction):
    """A metric for DSPy's GEPA."""
    return dn.Prediction(score=0.5, feedback="Be exact.")


def graded_dict(row, prediction):
    """A metric for DSPy's GEPA that returns a dict."""
    return {"score": 0.5, "feedback": "Be exact."}


_OUR_SCORE = r"dn\.Score\(.*feedback="


@pytest.mark.parametrize("metric", [graded, graded_dict])
def test_score_and_feedback_in_a_prediction_or_dict_work_or_the_error_says_how(metric):
    def evaluated():
        done = dn.Evaluate(metric).run_sync(dn.Predict("question -> answer", lm=always(answer="4")), ROWS)
        if done.exceptions[0] is not None:
            raise done.exceptions[0]
        return done.table

    table = works_or_names(evaluated, _OUR_SCORE)
    if table is not None:
        assert table[["score", "feedback"]].values.tolist() == [[0.5, "Be exact."]]


@pytest.mark.parametrize("metric", [graded, graded_dict])
def test_gepa_reflects_on_the_feedback_in_a_prediction_or_dict_or_the_error_says_how(metric):
    prompts = []
    writer = dn.FunctionLM(lambda request: prompts.append(str(request.messages)) or chat(new_instruction="Be brief."))
    opt = dn.GEPA(metric, max_steps=1, prompt_lm=writer)
    program = dn.Predict("question -> answer", lm=always(answer="5"))
    if works_or_names(lambda: opt.compile_sync(program, ROWS), _OUR_SCORE) is not None:
        assert "Be exact." in prompts[0]


def five_arguments(gold, pred, trace=None, pred_name=None, pred_trace=None):
    """A metric for DSPy's GEPA with the parameters for feedback on one predictor."""
    return dn.Score(0.0, feedback=f"of {pred_name}")


def five_required_arguments(gold, pred, trace, pred_name, pred_trace):
    """A metric for DSPy's GEPA with these parameters, but without defaults."""
    return dn.Score(0.0, feedback=f"of {pred_name}")


@pytest.mark.parametrize(
    "metric",
    [
        five_arguments,
        five_required_arguments,
    ],
)
def test_a_metric_with_five_parameters_gets_the_predictors_name_or_an_error_names_ours(metric):
    prompts = []

    def compiled():
        writer = dn.FunctionLM(
            lambda request: prompts.append(str(request.messages)) or chat(new_instruction="Be brief.")
        )
        opt = dn.GEPA(metric, max_steps=1, prompt_lm=writer)
        return opt.compile_sync(dn.Predict("question -> answer", lm=always(answer="5")), ROWS)

    with warned() as said:
        works_or_names(compiled, r"\bpredictor\b")
    assert not prompts or "of self" in prompts[0] or any("predictor" in str(warning.message) for warning in said)


# ── models ────────────────────────────────────────────────────────────────────────────────────────────────────────
class Twice(dn.Module):
    """Two predictors, each with its own model; the second one is inside a ChainOfThought."""

    def __init__(self, lm):
        self.first = dn.Predict("question -> draft", lm=lm)
        self.second = dn.ChainOfThought("draft -> answer", lm=lm)

    async def forward(self, question):
        drafted = await self.first(question=question)
        return await self.second(draft=drafted.draft)


def test_one_call_sets_the_model_of_all_predictors_of_a_program():
    own, other = dn.ScriptedLM([]), always(draft="d", reasoning="easy", answer="4")
    program = Twice(own)  # a setting that overrides a predictor's own model would do as well: then change this test
    changed = program.with_lm(other)
    assert changed.run_sync(question="2+2?").answer == "4"
    assert all(predictor.lm is own for _, predictor in program.named_predictors())


@pytest.mark.parametrize("text", [None, 3])
def test_a_reply_without_text_is_one_clear_error(text):
    ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: dn.LMReply(text)))
    with pytest.raises(errors.DspynbError, match="text"):
        ask.run_sync(question="2+2?")


def with_setting(name, value, own):
    """Calls a server with a setting of the predictor (``own``) or of the model."""
    with Server(lambda body, number: chat(answer="4")) as server:
        lm = dn.LM("openai/m", api_base=server.base, api_key="k", retries=0, **({} if own else {name: value}))
        return dn.Predict("question -> answer", lm=lm, **({name: value} if own else {})).run_sync(question="2+2?")


@pytest.mark.parametrize("own", [False, True])
def test_a_setting_that_is_not_json_is_one_clear_error(own):
    with pytest.raises(errors.DspynbError, match="stop"):
        with_setting("stop", object(), own)


@pytest.mark.parametrize("own", [False, True])
def test_a_number_of_numpy_as_a_setting_is_sent_or_one_clear_error(own):
    works_or_names(lambda: with_setting("temperature", np.float32(0.5), own), "temperature")


@pytest.mark.parametrize("own", [False, True])
def test_nan_as_a_setting_is_one_clear_error(own):
    with pytest.raises(errors.DspynbError, match="temperature"):
        with_setting("temperature", float("nan"), own)


def test_mipro_takes_demos_from_a_teacher_model():
    requests = []
    teacher = dn.FunctionLM(lambda request: requests.append(request) or chat(answer="4"))
    writer = always(proposed_instruction="Add.", summary="sums", observations="sums")
    rows = [{"question": f"{n}+{4 - n}?", "answer": "4"} for n in range(4)]
    opt = dn.MIPROv2(RIGHT, auto=None, num_candidates=2, num_trials=1, prompt_lm=writer, teacher_lm=teacher)
    opt.compile_sync(dn.Predict("question -> answer", lm=always(answer="5")), rows[:2], val=rows[2:])
    assert requests


_SCRIPT = """
import sys, dspynb as dn
dn.configure(view="off", runs_dir=None, cache=False)
lm = dn.LM("openai/m", api_base=sys.argv[1], api_key="k", timeout=float(sys.argv[2]), retries=0)
try:
    dn.Predict("question -> answer", lm=lm).run_sync(question="2+2?")
except dn.errors.ModelTimeout as error:
    last = error
"""


def script_on_a_server(answer, timeout):
    """The standard error of a script that calls a server."""
    with Server(answer) as server:
        run = [sys.executable, "-c", _SCRIPT, server.base, timeout]
        return subprocess.run(run, capture_output=True, text=True, check=True, timeout=60).stderr


async def silent(body, number):
    """A response that never arrives."""
    await asyncio.Event().wait()


def test_a_script_ends_silently():
    assert script_on_a_server(lambda body, number: chat(answer="4"), "60") == ""


def test_a_script_whose_call_timed_out_ends_silently():
    assert script_on_a_server(silent, "0.1") == ""


# ── calls that were cancelled, and the history of calls ───────────────────────────────────────────────────────────
class SecondHangs:
    """A model whose second call never ends; it calls ``on_second_call`` when that call begins."""

    name = "hanging"

    def __init__(self):
        self.calls = 0
        self.on_second_call = lambda: None

    async def complete(self, request):
        self.calls += 1
        if self.calls == 2:
            self.on_second_call()
            await asyncio.Event().wait()
        return dn.LMReply(chat(draft="d", reasoning="easy", answer="4"))


async def timed_out(lm):
    """Call a program under ``asyncio.timeout``, which expires while the second call hangs."""
    loop = asyncio.get_running_loop()
    clock = asyncio.timeout(None)
    lm.on_second_call = lambda: clock.reschedule(loop.time())
    with pytest.raises(TimeoutError):
        async with clock:
            await Twice(lm)(question="2+2?")


async def cancelled(lm):
    """Call a program in a task that is cancelled while the second call hangs."""
    task = asyncio.create_task(Twice(lm)(question="2+2?"))
    lm.on_second_call = task.cancel
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("end", [timed_out, cancelled])
def test_a_call_that_was_cancelled_is_in_the_trace(end):
    with dn.trace() as recorded:
        asyncio.run(end(SecondHangs()))
    assert [call.predictor for call in recorded.calls] == ["first", "second.predict"]
    assert "cancel" in recorded.calls[1].error.lower()


@pytest.mark.parametrize("end", [timed_out, cancelled])
def test_a_call_that_was_cancelled_is_in_the_calls_of_the_run(end):
    asyncio.run(end(SecondHangs()))
    calls = dn.last_run().calls
    assert calls.predictor.tolist() == ["first", "second.predict"]
    assert "cancel" in calls.error.tolist()[1].lower()


class CallsTools:
    """A model that makes a native tool call, then finishes and answers."""

    name, native_tools = "native", True

    def __init__(self):
        function = {"name": "look", "arguments": '{"name": "zebra"}'}
        call = {"id": "1", "type": "function", "function": function}
        self.replies = [dn.LMReply("", tool_calls=(call,)), dn.LMReply("Known."), dn.LMReply(chat(answer="4"))]

    async def complete(self, request):
        return self.replies.pop(0)


@pytest.mark.parametrize("shown", [repr, lambda calls: calls._repr_html_()], ids=["text", "html"])
def test_the_history_shows_tool_calls(shown):
    def look(name: str) -> str:
        """Look a name up."""
        return "found"

    with dn.context(lm=CallsTools()):
        dn.ReAct("question -> answer", [look]).run_sync(question="2+2?")
    before_its_result = type(dn.history(1))(dn.history(3)[:1])
    assert "zebra" in shown(before_its_result)


def test_history_says_that_it_has_fewer_calls_than_requested():
    dn.configure(history=3)
    ask = dn.Predict("question -> answer", lm=always(answer="4"))
    for _ in range(5):
        ask.run_sync(question="2+2?")
    with warned() as said:
        calls = dn.history(5)
        texts = [repr(calls), *(str(warning.message) for warning in said)]
    assert len(calls) == 3
    assert any(re.search(r"\bhistory\b", text) for text in texts)  # the setting that says how many are there


# ── evaluation, replay ────────────────────────────────────────────────────────────────────────────────────────────
class FailsOnB(dn.Module):
    """Fails on one question."""

    async def forward(self, question):
        if question == "b":
            raise ValueError("no b")
        return {"answer": "4"}


def cut_by_max_errors():
    """An evaluation of two of four rows."""
    rows = [{"question": question, "answer": "4"} for question in "abcd"]
    return dn.Evaluate(RIGHT, max_errors=0, concurrency=1).run_sync(FailsOnB(), rows)


def test_an_evaluation_that_max_errors_ended_has_its_own_status():
    run = cut_by_max_errors().run
    assert run.status not in {"running", "finished", "stopped", "exhausted", "interrupted", "cancelled"}
    assert dn.open_run(run.path).status == run.status


def test_an_evaluation_that_max_errors_ended_says_so():
    done = cut_by_max_errors()
    assert len(done) == 2
    assert "max_errors" in repr(done)
    assert "max_errors" in done._repr_html_()


class Outer(dn.Module):
    """A program that contains another program and a predictor."""

    def __init__(self, lm):
        self.inner = Twice(lm)
        self.check = dn.Predict("answer -> verdict", lm=lm)

    async def forward(self, question):
        done = await self.inner(question=question)
        return await self.check(answer=done.answer)


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("Twice", lambda program: program.inner),
        ("inner.first", lambda program: program.inner.first),
        ("inner.second.predict", lambda program: program.inner.second.predict),
        ("check", lambda program: program.check),
    ],
)
@pytest.mark.parametrize("saved", [False, True])
def test_a_part_of_a_program_is_replayed_on_its_span_of_a_trace(path, part, saved, tmp_path):
    program = Outer(always(draft="d", reasoning="easy", answer="4", verdict="right"))
    with dn.trace() as recorded:
        program.run_sync(question="2+2?")
    span = next(span for span in recorded.spans if span.path == path)
    if saved:
        recorded.save(tmp_path / "trace.jsonl")
        recorded = dn.Trace.load(tmp_path / "trace.jsonl")
    again = dn.run_sync(lambda: dn.replay(recorded, part(program), span=span.span))
    assert again.exact
    assert again.prediction.to_dict() == span.outputs


# ── states ────────────────────────────────────────────────────────────────────────────────────────────────────────
def first_tool(name: str) -> str:
    """Look a name up."""
    return name


def second_tool(name: str) -> str:
    """Look a name up elsewhere."""
    return name


def test_a_state_of_an_agent_loads_where_a_tool_was_added_since():
    saved = dn.ReAct("question -> answer", [first_tool])
    saved.react.instruction = "Be quick."
    program = dn.ReAct("question -> answer", [first_tool, second_tool])
    program.load_state(saved.dump_state(), strict=False)
    assert program.react.instruction == "Be quick."
    assert "second_tool" in str(program.react.signature.output_fields["next_tool_name"].annotation)


class Before(dn.Signature):
    """Answer."""

    question: str = dn.Input()
    answer: str = dn.Output()


class After(dn.Signature):
    """Answer the question."""

    question: str = dn.Input()
    answer: str = dn.Output()


def loaded(strict):
    """A predictor that loaded a state whose signature has another docstring, and the warnings of loading."""
    state = dn.Predict(Before, instruction="Add the numbers.", demos=[{"question": "1+1?", "answer": "2"}]).dump_state()
    program = dn.Predict(After)
    with warned() as said:
        program.load_state(state, strict=strict)
    return program, said


def test_a_state_with_its_own_instruction_loads_though_the_docstring_has_changed():
    program, _ = loaded(strict=True)
    assert program.instruction == "Add the numbers."
    assert len(program.demos) == 1


@pytest.mark.parametrize(
    "strict",
    [
        True,
        False,
    ],
)
def test_that_the_docstring_of_a_loaded_state_differs_is_a_warning(strict):
    _, said = loaded(strict)
    assert len(said) == 1
