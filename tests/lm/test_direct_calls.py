"""Direct calls of models: ``await lm("text or messages")``."""

from __future__ import annotations

import asyncio
import json
import pickle
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import BaseModel

import dspynb as dn
from dspynb import errors
from dspynb.lm.format_in_words import json_in
from tests.helpers import chat, journal
from tests.lm.server import Server, reply

KEY = "sk-a-key-of-the-direct-calls-0123"


def echo(request):
    return f"You said: {request.messages[-1]['content']}"


def at(server, **settings):
    return dn.LM("openai/m", api_base=server.base, api_key=KEY, **settings)


class Draft(dn.Module):
    """A program that calls a model directly, and then a predictor."""

    def __init__(self, lm, writer=None):
        self.lm = lm
        self.write = dn.Predict("draft -> answer", lm=writer or dn.FunctionLM(lambda request: chat(answer="Paris")))

    async def forward(self, question):
        draft = await self.lm(question)
        return await self.write(draft=draft.text)


# ── what is sent and returned ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_text_becomes_one_user_message():
    lm = dn.ScriptedLM(["Paris."])
    answer = asyncio.run(lm("The capital of France?"))
    assert (answer.text, str(answer), answer.usage.calls) == ("Paris.", "Paris.", 1)
    assert lm.requests[0] == dn.LMRequest(({"role": "user", "content": "The capital of France?"},))


def test_messages_are_sent_as_they_are():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]},
        {"role": "tool", "tool_call_id": "1", "content": ""},
    ]
    with Server(lambda body, number: "Hello!") as server:
        assert at(server).run_sync(messages).text == "Hello!"
        assert at(server).run_sync(messages=messages).text == "Hello!"
    assert server.bodies[0]["messages"] == messages


def test_later_changes_of_a_conversation_do_not_change_the_record_of_a_call():
    messages = [{"role": "user", "content": "Hi"}]
    dn.FunctionLM(echo).run_sync(messages)
    messages[0]["content"] = "changed"
    assert dn.history(1)[0].messages == ({"role": "user", "content": "Hi"},)


def test_settings_of_a_call_are_sent_and_win_over_those_of_the_model():
    with Server(lambda body, number: "ok") as server:
        lm = at(server, temperature=0.2, max_tokens=50)
        lm.run_sync("Hi", temperature=0.9, stop=["END"], n=1)
    body = server.bodies[0]
    assert (body["temperature"], body["max_tokens"], body["stop"], body["n"]) == (0.9, 50, ["END"], 1)


def test_tools_are_sent_and_the_calls_of_tools_returned():
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    with Server(lambda body, number: reply("", tool_calls=[call])) as server:
        answer = at(server).run_sync("Look.", tools=[tool], tool_choice="auto")
    assert (server.bodies[0]["tools"], server.bodies[0]["tool_choice"]) == ([tool], "auto")
    assert answer.tool_calls[0]["function"]["name"] == "look"


class City(BaseModel):
    name: str


def test_a_response_format_may_be_a_pydantic_model_or_the_format_of_openai():
    with Server(lambda body, number: '{"name": "Paris"}') as server:
        lm = at(server)
        assert City.model_validate_json(lm.run_sync("A city", response_format=City).text).name == "Paris"
        lm.run_sync("A city", response_format={"type": "json_object"})
    sent = [body["response_format"] for body in server.bodies]
    assert (sent[0]["type"], sent[0]["json_schema"]["schema"]["required"]) == ("json_schema", ["name"])
    assert sent[1] == {"type": "json_object"}


def tool(name):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


OWN = {"tools": [tool("search")], "response_format": {"type": "json_object"}}


def test_tools_and_a_response_format_of_a_call_win_over_those_of_the_model():
    with Server(lambda body, number: '{"name": "Paris"}') as server:
        lm = at(server, **OWN)
        lm.run_sync("A city", tools=[tool("look")], response_format=City)
        lm.run_sync("A city", tools=[], response_format={"type": "text"})
        lm.run_sync("A city")
    first, second, third = [(body["tools"], body["response_format"]) for body in server.bodies]
    assert first[0] == [tool("look")]
    assert (first[1]["type"], first[1]["json_schema"]["schema"]["required"]) == ("json_schema", ["name"])
    assert second == (None, {"type": "text"})
    assert third == (OWN["tools"], OWN["response_format"])


def test_the_schema_of_a_call_is_left_out_where_the_server_refuses_it_and_so_is_the_format_of_the_model():
    def serve(body, number):
        if body.get("response_format") is None:
            return "Paris"
        error = {"message": "Unknown parameter: 'response_format'.", "param": "response_format"}
        return web.json_response({"error": error}, status=400)

    with Server(serve) as server, pytest.warns(dn.ModelAdaptedWarning):
        at(server, retries=0, response_format=OWN["response_format"]).run_sync("A city", response_format=City)
    kinds = [(body.get("response_format") or {}).get("type") for body in server.bodies]
    assert (kinds[0], kinds[-1]) == ("json_schema", None)


FORMATS = ("json_schema", "json_object")


def complying(*formats, fence=False):
    """A server that takes these kinds of response formats, with a model that answers with JSON where it is asked to."""

    def serve(body, number):
        kind = (body.get("response_format") or {}).get("type")
        if kind is not None and kind not in formats:
            error = {"message": f"'response_format.type' : '{kind}' is not supported", "param": "response_format"}
            return web.json_response({"error": error}, status=400)
        text = json.dumps(body["messages"])
        if kind != "json_schema" and "JSON" not in text:
            return "It is Paris."
        return '```json\n{"name": "Paris"}\n```' if fence else '{"name": "Paris"}'

    return serve


@pytest.mark.filterwarnings("ignore::dspynb.ModelAdaptedWarning")
@pytest.mark.parametrize("formats", [FORMATS, FORMATS[1:], ()])
@pytest.mark.parametrize("fence", [False, True])
@pytest.mark.parametrize(
    "messages",
    [
        "A city",
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A city"}],
        [{"role": "user", "content": [{"type": "text", "text": "A city"}]}],
        [{"role": "system", "content": "Name a city."}],
        [{"role": "user", "content": "A city"}, {"role": "assistant", "content": "Which?"}],
    ],
)
def test_a_direct_call_gets_json_of_a_schema_whatever_formats_the_server_takes(formats, fence, messages):
    with Server(complying(*formats, fence=fence)) as server:
        lm = at(server, retries=0)
        replies = [lm.run_sync(messages, response_format=City) for _ in range(2)]
    assert [City.model_validate_json(answer.text).name for answer in replies] == ["Paris"] * 2
    sent = server.bodies[-1]
    kind = (sent.get("response_format") or {}).get("type")
    assert kind == (formats[0] if formats else None)
    texts = json.dumps(sent["messages"])
    assert ("JSON schema" in texts) == (formats != FORMATS)


@pytest.mark.filterwarnings("ignore::dspynb.ModelAdaptedWarning")
@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "city", "schema": City.model_json_schema()}},
    ],
)
@pytest.mark.parametrize("of_model", [False, True])
def test_formats_in_the_form_of_openai_are_asked_for_in_words_where_the_server_takes_none(response_format, of_model):
    with Server(complying(fence=True)) as server:
        if of_model:
            answer = at(server, response_format=response_format).run_sync("A city")
        else:
            answer = at(server).run_sync("A city", response_format=response_format)
    assert json.loads(answer.text) == {"name": "Paris"}
    assert ("JSON schema" in json.dumps(server.bodies[-1]["messages"])) == ("json_schema" in response_format)


def test_a_model_that_honours_no_response_format_is_asked_for_json_in_words():
    lm = dn.ScriptedLM(['Here it is:\n```json\n{"name": "Paris"}\n```\nGood luck!'])
    assert json.loads(lm.run_sync("A city", response_format=City).text) == {"name": "Paris"}
    assert '"required": ["name"]' in lm.requests[0].messages[0]["content"]


@pytest.mark.filterwarnings("ignore::dspynb.ModelAdaptedWarning")
def test_the_prompt_of_an_adapter_does_not_describe_the_format_twice():
    with Server(complying()) as server:
        ask = dn.Predict("question -> name", lm=at(server), adapter="json")
        assert ask.run_sync(question="JSON?").name == "Paris"
    first, last = server.bodies[0], server.bodies[-1]
    assert first["messages"] == last["messages"]


@pytest.mark.parametrize(
    "text",
    [
        "It is Paris.",
        '```json\n{"name": "Paris"\n```',
        '"a text with ```json\\n{}\\n``` inside"',
        "```\nParis\n```",
        "",
    ],
)
def test_a_text_without_json_in_fences_is_returned_as_it_is(text):
    assert json_in(text) is text


def test_taking_json_out_of_a_long_text_takes_time_linear_in_its_length():
    for text in ("```json\n" * 200_000, "a```\n" * 200_000, "```" * 500_000, "`" * 10**6, "```json" + " " * 10**6):
        assert json_in(text) is text


@pytest.mark.parametrize("make", [lambda lm: lm, lambda lm: pickle.loads(pickle.dumps(lm))])
def test_recorded_models_are_called_directly_and_from_the_file(make, tmp_path):
    path = tmp_path / "replies.jsonl"
    first = dn.recorded(path, lm=dn.FunctionLM(echo)).run_sync("Hi")
    again = make(dn.recorded(path)).run_sync("Hi")
    assert (first.text, again.text, again.cached) == ("You said: Hi", "You said: Hi", True)
    with pytest.raises(errors.RecordingMiss):
        dn.recorded(path).run_sync("Something else")


def test_a_model_of_ones_own_needs_only_complete_and_a_subclass_of_lm_is_called_through_its_own():
    class Own:
        async def complete(self, request):
            return dn.LMReply("answer: 4")

    class Louder(dn.LM):
        async def complete(self, request):
            return dn.LMReply((await super().complete(request)).text.upper())

    assert dn.Predict("question -> answer", lm=Own()).run_sync(question="2+2?").answer == "4"
    assert not callable(Own())
    with Server(lambda body, number: "quiet") as server:
        assert Louder("openai/m", api_base=server.base, api_key=KEY).run_sync("Hi").text == "QUIET"


def test_an_equal_call_is_answered_from_the_cache_and_another_rollout_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path))
    with Server(lambda body, number: f"reply {number}") as server, dn.context(cache=True):
        lm = at(server)
        replies = [lm.run_sync("Hi"), lm.run_sync("Hi"), lm.run_sync("Hi", rollout=1), lm.run_sync("Hi", rollout=1)]
    assert [answer.text for answer in replies] == ["reply 1", "reply 1", "reply 2", "reply 2"]
    assert [answer.cached for answer in replies] == [False, True, False, True]


# ── wrong input ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        (None, "got None"),
        ("", "got an empty text"),
        (" \n", "got an empty text"),
        ([], "got an empty list"),
        ({}, "got dict"),
        ({"role": "user", "content": "Hi"}, "got a single message, which belongs into a list"),
        (3, "got int"),
        (b"Hi", "got bytes"),
        (dn.LMRequest(()), "got an LMRequest, which is sent with lm.complete"),
        (["Hi"], "message 1 is str and not a dict"),
        ([{"role": "user", "content": "Hi"}, {"content": "Hi"}], "message 2 has no 'role'"),
        ([{"role": "user"}], "message 1 has no 'content'"),
        ([{"role": "user", "content": 3}], "message 1 has a content of type int"),
    ],
)
def test_anything_else_than_text_or_messages_is_one_error_that_says_what_to_pass(messages, problem):
    lm = dn.ScriptedLM(["never sent"])
    with pytest.raises(errors.InputError) as caught:
        lm.run_sync(messages)
    assert f"scripted: {problem}" in str(caught.value)
    assert "Pass a text, or a list of messages such as [{'role': 'user', 'content': 'Hello'}]" in str(caught.value)
    assert not lm.requests


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"prompt": "Hi"}, "Did you mean 'messages'?"),
        ({"temprature": 1}, "Did you mean 'temperature'?"),
        ({"rollout_id": 1}, "Did you mean 'rollout'?"),
        ({"instructions": "Be brief."}, "begin the list of messages with"),
        ({"num_retries": 2}, "it is a setting of the model"),
        ({"temperature": "hot"}, "temperature must be a finite number"),
        ({"max_tokens": 0}, "max_tokens must be"),
        ({"rollout": -1}, "rollout must be"),
        ({"tools": [print]}, "a setting that is not JSON: tools="),
    ],
)
def test_a_wrong_setting_is_an_error_with_advice(settings, advice):
    with pytest.raises(errors.ConfigurationError) as caught:
        dn.FunctionLM(echo).run_sync("Hi", **settings)
    assert advice in str(caught.value)


def test_content_that_is_not_json_is_an_error_before_anything_is_sent():
    with pytest.raises(errors.ConfigurationError, match="not JSON: messages="):
        dn.FunctionLM(echo).run_sync([{"role": "user", "content": [object()]}])


def test_a_model_for_text_refuses_an_image():
    content = [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}]
    with pytest.raises(errors.ConfigurationError, match="takes text only"):
        dn.LocalLM().run_sync([{"role": "user", "content": content}])


# ── alone ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_call_outside_of_a_run_makes_no_run_and_no_file(tmp_path):
    with dn.context(runs_dir=tmp_path):
        program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: chat(answer="4")))
        run = program.run_sync(question="2+2?").run
        files = set(tmp_path.iterdir())
        dn.FunctionLM(echo).run_sync("Hi")
    assert dn.last_run() is run
    assert set(tmp_path.iterdir()) == files


def test_history_and_traces_have_the_call():
    with dn.trace() as trace:
        dn.FunctionLM(echo).run_sync("Hi")
    (call,) = trace.calls
    assert dn.history(1) == (call,)
    assert (call.predictor, call.model, call.reply) == ("lm()", "function", "You said: Hi")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (dn.LMReply("The capital is Par", finish="length"), dn.ReplyTruncated),
        (ValueError("broken"), ValueError),
        (errors.AuthenticationError("wrong key"), errors.AuthenticationError),
    ],
)
def test_a_failed_call_raises_and_is_recorded(answer, error):
    with pytest.raises(error):
        dn.ScriptedLM([answer]).run_sync("Hi", max_tokens=4)
    assert dn.history(1)[0].error.startswith(f"{error.__name__}: ")


def test_a_model_that_exits_raises_an_error_and_ends_no_process():
    def leave(request):
        raise SystemExit(3)

    with pytest.raises(errors.ModelError, match="the model function called sys.exit"):
        dn.FunctionLM(leave).run_sync("Hi")


# ── inside runs ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_call_inside_a_program_is_a_call_of_its_run():
    with dn.trace() as trace:
        prediction = Draft(dn.FunctionLM(echo)).run_sync(question="Hi")
    assert list(prediction.run.calls["predictor"]) == ["lm()", "write"]
    assert (prediction.usage.calls, prediction.run.usage.calls) == (2, 2)
    assert [call.predictor for call in trace.calls] == ["lm()", "write"]
    assert [call.predictor for call in prediction.calls] == ["lm()", "write"]


def test_a_saved_page_shows_the_call(tmp_path):
    run = Draft(dn.FunctionLM(echo)).run_sync(question="Hi").run
    assert "lm()" in run.save_html(tmp_path / "run.html").read_text()


def test_a_reopened_run_has_the_call():
    asyncio.run(dn.evaluate(Draft(dn.FunctionLM(echo)), [{"question": "Hi", "answer": "Paris"}], lambda r, p: 1.0))
    run = dn.last_run()
    assert '"lm()"' in journal(run)
    reopened = dn.open_run(run.path)
    assert list(reopened.calls["predictor"]) == ["lm()", "write"]
    assert reopened.calls["reply"][0] == "You said: Hi"


def test_a_call_of_a_metric_belongs_to_the_metric():
    judge = dn.FunctionLM(lambda request: "1")

    async def judged(row, prediction):
        return float((await judge(f"Rate {prediction.answer}")).text)

    program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: chat(answer="4")))
    evaluation = asyncio.run(dn.evaluate(program, [{"question": "2+2?"}, {"question": "3+1?"}], judged))
    assert (float(evaluation), evaluation.usage.calls, evaluation.metric_usage.calls) == (1.0, 2, 2)


def test_a_call_of_a_tool_is_a_call_of_the_agent():
    helper = dn.FunctionLM(lambda request: "Paris")

    async def look(word: str) -> str:
        return (await helper(word)).text

    lm = dn.ScriptedLM(
        [
            chat(next_thought="Look.", next_tool_name="look", next_tool_args='{"word": "France"}'),
            chat(next_thought="Known.", next_tool_name="finish", next_tool_args="{}"),
            chat(answer="Paris"),
        ]
    )
    with dn.context(lm=lm):
        prediction = dn.ReAct("question -> answer", [look]).run_sync(question="The capital of France?")
    assert prediction.trajectory[0]["observation"] == "Paris"
    assert prediction.usage.calls == 4


def test_a_budget_counts_the_call_and_is_never_exceeded():
    lm = dn.ScriptedLM(["one", "two", "three"])
    with dn.Budget(calls=2) as meter:
        lm.run_sync("Hi")
        lm.run_sync("Hi")
        with pytest.raises(errors.BudgetExhausted):
            lm.run_sync("Hi")
    assert meter.spent["calls"] == len(lm.requests) == 2


def test_a_budget_of_tokens_counts_the_call():
    with Server(lambda body, number: "ok") as server, dn.Budget(tokens=100) as meter:
        lm = at(server)
        lm.run_sync("Hi")
        lm.run_sync("Hi there")
        with pytest.raises(errors.BudgetExhausted, match="20 are used, and the next call may need 8"):
            lm.run_sync("Once more")
    assert meter.spent["tokens"] == 20


def test_attempts_of_a_search_get_samples_and_a_temperature_of_their_own():
    lm = dn.FunctionLM(lambda request: f"{request.rollout} {request.settings['temperature']}")
    samples = []

    class Sampled(dn.Module):
        async def forward(self, question):
            samples.append((await lm(question, temperature=0)).text)
            return {"answer": samples[-1]}

    dn.BestOfN(Sampled(), reward=lambda row, prediction: 0.0, n=3, temperature=0.7).run_sync(question="Hi")
    assert sorted(samples) == ["0 0.7", "1 0.7", "2 0.7"]


def test_an_advisor_reads_what_the_model_was_asked_and_what_it_said():
    advisor = dn.ScriptedLM([chat(advice='{"write": "Name another city."}')])
    refine = dn.Refine(
        Draft(dn.FunctionLM(echo)), reward=lambda row, prediction: 0.0, n=2, hints="advisor", advisor_lm=advisor
    )
    refine.run_sync(question="The capital?")
    attempts = advisor.requests[0].messages[-1]["content"]
    assert "lm() got prompt = The capital?\nlm() gave text = You said: The capital?" in attempts


def test_demos_and_reflections_are_about_predictors_and_not_about_direct_calls():
    program = Draft(dn.FunctionLM(echo))
    rows = [{"question": f"{i}?", "answer": "Paris"} for i in range(2)]
    better = dn.BootstrapFewShot(dn.metrics.exact_match(), max_labeled_demos=0).compile_sync(program, rows)
    assert [demo["draft"] for demo in better.write.demos] == ["You said: 0?", "You said: 1?"]


def test_a_call_that_outlives_a_stopped_run_is_not_sent():
    lm = dn.ScriptedLM(["one", "two"])

    class Late(dn.Module):
        async def forward(self, question):
            await lm(question)
            dn.last_run().stop()
            await lm(question)

    async def main():
        run = Late().start(question="Hi")
        with pytest.raises(errors.RunStopped):
            await run

    asyncio.run(main())
    assert len(lm.requests) == 1


# ── replays and resumed runs ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_replay_answers_the_call_from_the_record():
    with dn.trace() as trace:
        Draft(dn.FunctionLM(echo)).run_sync(question="Hi")
    silent = dn.ScriptedLM([])
    replay = asyncio.run(dn.replay(trace, Draft(silent, silent)))
    assert (replay.prediction.answer, replay.exact) == ("Paris", True)
    assert not silent.requests


def test_a_replay_of_a_changed_call_says_what_differs():
    with dn.trace() as trace:
        Draft(dn.FunctionLM(echo)).run_sync(question="Hi")

    class Changed(Draft):
        async def forward(self, question):
            return await super().forward(f"Briefly: {question}")

    with pytest.raises(errors.ReplayDiverged, match=r"lm\(\): message 1 of the prompt is not the recorded one"):
        asyncio.run(dn.replay(trace, Changed(dn.ScriptedLM([]))))


def test_a_resumed_evaluation_calls_only_for_the_rows_that_are_missing():
    rows = [{"question": f"{i}?", "answer": "Paris"} for i in range(4)]
    metric = dn.metrics.exact_match()
    requests = []

    def answer(request):
        requests.append(request.messages[-1]["content"])
        return echo(request)

    async def stopped_and_resumed():
        program = Draft(dn.FunctionLM(answer))
        with dn.context(concurrency=1), dn.Budget(calls=4):
            partial = await dn.evaluate(program, rows, metric)
        assert partial.run.status == "exhausted"
        return await dn.Evaluate(metric).resume(partial.run.id, program, rows)

    assert float(asyncio.run(stopped_and_resumed())) == 1.0
    assert requests == ["0?", "1?", "2?", "3?"]


@pytest.mark.parametrize("calls_in_file", [1, 2, 3])
def test_a_killed_optimizer_answers_direct_calls_from_its_file_when_it_is_resumed(calls_in_file):
    requests = []

    def answer(request):
        requests.append(request.messages[-1]["content"])
        return echo(request)

    rows = [{"question": f"{i}?", "answer": "Paris"} for i in range(4)]
    settings = {"max_bootstrapped_demos": 2, "max_labeled_demos": 0, "concurrency": 1}
    program = Draft(dn.FunctionLM(answer))
    first = dn.BootstrapFewShot(dn.metrics.exact_match(), **settings).compile_sync(program, rows)
    assert requests == ["0?", "1?"]
    run = dn.last_run()
    lines = journal(run).splitlines(keepends=True)
    places = [i for i, line in enumerate(lines) if '"PredictorCalled"' in line]
    Path(run.path).write_text("".join(lines[: places[calls_in_file - 1] + 1]))
    optimizer = dn.BootstrapFewShot(dn.metrics.exact_match(), **settings, budget=dn.Budget(calls=4))
    resumed = dn.run_sync(lambda: optimizer.resume(run.id, program, rows))
    assert len(requests) == 2 + (2 - (calls_in_file + 1) // 2)
    assert resumed.dump_state() == first.dump_state()
