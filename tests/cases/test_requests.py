"""Requests that the model or server does not support. Servers refuse them with providers' messages (section 2)."""

from __future__ import annotations

import asyncio
import json
import logging
import warnings
from contextlib import contextmanager

import pytest
from aiohttp import web

import dspynb as dn
from dspynb import errors
from tests.cases.providers import (
    as_kimi,
    at_most_one,
    model,
    no_max_tokens,
    no_temperature,
    only_temperature_one,
    plain,
    refused,
    strict,
    without_waiting,
)
from tests.cases.refusals import NO_SCHEMA, NO_TOOLS, NOT_TOO_LONG, TOO_LONG, TOO_LONG_UNDERSTOOD
from tests.helpers import chat
from tests.lm.server import Server, error, reply

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # whether a changed request warns or logs is left open


def question(lm, signature="question -> answer", **settings):
    return dn.Predict(signature, lm=lm, **settings)


def paris(row, prediction):
    return "Paris" in prediction.answer


# ── temperature ───────────────────────────────────────────────────────────────────────────────────────────────────────

REFUSING_ONE = [("openai/o3-mini", no_temperature), ("openai/gpt-5-search-api", no_temperature)]
REFUSING_OTHERS = [
    ("openai/o1", only_temperature_one),
    ("openai/gpt-5", only_temperature_one),
    ("openai/gpt-5-mini", only_temperature_one),
    ("azure/gpt-5.2-chat", only_temperature_one),
    ("moonshot/kimi-k2.6", as_kimi),
    *REFUSING_ONE,
]


@contextmanager
def everything_said(caplog):
    """Collect the texts of all warnings and log records of a block."""
    said = []
    with caplog.at_level(logging.INFO), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    said += [str(one.message) for one in caught] + [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(("name", "rule"), REFUSING_ONE)
@pytest.mark.parametrize("search", [dn.Refine, dn.BestOfN])
def test_a_default_search_works_on_a_model_that_refuses_its_temperature(search, name, rule):
    with Server(strict(rule)) as server:
        program = search(question(model(server, name)), reward=paris)
        assert program.run_sync(question="The capital of France?").answer == "Paris"


@pytest.mark.parametrize(("name", "rule"), REFUSING_OTHERS)
def test_the_refine_of_the_readme_works_on_a_model_that_allows_only_its_own_temperature(name, rule):
    with Server(strict(rule)) as server:
        refine = dn.Refine(question(model(server, name)), reward=paris, n=3, threshold=1.0, temperature=0.7)
        assert refine.run_sync(question="The capital of France?").answer == "Paris"


@pytest.mark.parametrize(("name", "rule"), REFUSING_OTHERS)
@pytest.mark.parametrize("where", ["model", "predictor"])
def test_a_call_works_on_a_model_that_allows_only_its_own_temperature(where, name, rule):
    with Server(strict(rule)) as server:
        lm = model(server, name, **({"temperature": 0.7} if where == "model" else {}))
        ask = question(lm, **({"temperature": 0.7} if where == "predictor" else {}))
        assert ask.run_sync(question="The capital of France?").answer == "Paris"


def test_a_model_that_the_map_does_not_know_is_understood_from_its_refusal():
    serve = strict(only_temperature_one)
    with Server(serve) as server:
        refine = dn.Refine(question(model(server, "openai/my-deployment")), reward=paris, temperature=0.7)
        answers = [refine.run_sync(question=f"{i}: the capital of France?").answer for i in range(3)]
    assert answers == ["Paris"] * 3
    assert len(serve.refusals) <= 1


class AsPlain:
    """Respond to streaming requests with plain responses, as servers without streaming do."""

    def __init__(self, server):
        self.server = server

    def pop(self, _):
        return self.server.answer(self.server.bodies[-1], len(self.server.bodies))


def test_a_stream_works_on_a_model_that_allows_only_its_own_temperature():
    with Server(strict(only_temperature_one)) as server:
        server.streamed = AsPlain(server)
        ask = question(model(server, "openai/gpt-5", temperature=0.7))

        async def main():
            return [part async for part in ask.stream(question="The capital of France?")]

        assert asyncio.run(main())[-1].answer == "Paris"


def test_a_temperature_that_a_model_does_not_accept_gives_one_warning(caplog):
    with Server(strict(only_temperature_one)) as server, everything_said(caplog) as said:
        ask = question(model(server, "openai/gpt-5", temperature=0.7))
        asyncio.run(ask.batch([{"question": f"{i}?"} for i in range(5)]))
    assert len([text for text in said if "temperature" in text]) == 1


def test_the_table_of_calls_shows_that_the_temperature_was_changed():
    with Server(strict(only_temperature_one)) as server:
        ask = question(model(server, "openai/gpt-5", temperature=0.7))
        run = ask.run_sync(question="The capital of France?").run
    others = run.calls.drop(columns=["messages", "reply"]).iloc[0]
    assert any("temperature" in f"{name} {cell}" and "0.7" in str(cell) for name, cell in others.items())


def optimized_by_copro(name, rule, answer):
    """A program optimized by COPRO, whose model for proposals refuses the temperature."""
    task = dn.FunctionLM(lambda r: chat(answer="4" if "digits" in r.messages[0]["content"] else "four"))
    with Server(strict(rule, answer=answer)) as server:
        writer = model(server, name)
        opt = dn.COPRO(dn.metrics.exact_match(), prompt_lm=writer)
        return opt.compile_sync(question(task), [{"question": "2+2?", "answer": "4"}])


@pytest.mark.parametrize(("name", "rule"), [*REFUSING_OTHERS, ("anthropic/claude-sonnet-4-5", at_most_one)])
def test_copro_works_with_a_model_that_allows_only_its_own_temperature(name, rule):
    written = chat(proposed_instruction="Answer in digits.")
    assert optimized_by_copro(name, rule, written).instruction == "Answer in digits."


def test_gepa_works_with_a_model_that_refuses_its_temperature():
    def judged(row, prediction):
        return dn.Score(float(prediction.answer == row.answer), feedback="Answer in digits.")

    task = dn.FunctionLM(lambda r: chat(answer="4" if "digits" in r.messages[0]["content"] else "four"))
    rows = [{"question": f"{n}+{4 - n}?", "answer": "4"} for n in range(4)]
    with Server(strict(no_temperature, answer=chat(new_instruction="Answer in digits."))) as server:
        opt = dn.GEPA(judged, max_steps=1, prompt_lm=model(server, "openai/o3-mini"))
        assert opt.compile_sync(question(task), rows[:2], val=rows[2:]).instruction == "Answer in digits."


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of litellm itself
@pytest.mark.parametrize(("name", "temperature"), [("openai/o3-mini", 0.7), ("openai/gpt-5-mini", 0.7)])
def test_a_refine_works_on_a_model_of_which_litellm_refuses_the_temperature(name, temperature):
    with Server(lambda body, number: chat(answer="Paris")) as server:
        lm = model(server, name, engine="litellm")
        refine = dn.Refine(question(lm), reward=paris, temperature=temperature)
        assert refine.run_sync(question="The capital of France?").answer == "Paris"


# ── max_tokens ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["openai/o1", "openai/o3-mini", "openai/gpt-5", "openai/gpt-5-mini", "openai/gpt-6-mini"]
)
@pytest.mark.parametrize("where", ["model", "predictor"])
def test_the_limit_of_a_reply_goes_to_the_model_under_the_name_that_it_takes(where, name):
    with Server(strict(no_max_tokens)) as server:
        lm = model(server, name, **({"max_tokens": 16000} if where == "model" else {}))
        ask = question(lm, **({"max_tokens": 16000} if where == "predictor" else {}))
        assert ask.run_sync(question="The capital of France?").answer == "Paris"
    assert server.bodies[-1]["max_completion_tokens"] == 16000


def test_the_name_of_the_limit_is_learned_from_the_refusal_of_an_unknown_model_once():
    serve = strict(no_max_tokens)
    with Server(serve) as server:
        ask = question(model(server, "openai/my-deployment", max_tokens=16000))
        answers = [ask.run_sync(question=f"{i}: the capital of France?").answer for i in range(3)]
    assert answers == ["Paris"] * 3
    assert len(serve.refusals) <= 1


def test_a_server_that_knows_only_max_tokens_is_sent_max_tokens():
    with Server(lambda body, number: chat(answer="Paris")) as server:
        question(model(server, "openai/my-model", max_tokens=50)).run_sync(question="The capital of France?")
    assert server.bodies[0]["max_tokens"] == 50
    assert "max_completion_tokens" not in server.bodies[0]


# ── response formats ──────────────────────────────────────────────────────────────────────────────────────────────────


def kind_of_format(body):
    return (body.get("response_format") or {}).get("type")


def no_format():
    return refused("Unrecognized request argument supplied: response_format", param="response_format")


@pytest.mark.parametrize("provider", NO_SCHEMA)
def test_a_server_without_json_schema_gets_requests_for_a_json_object_after_its_refusal(provider):
    serve = strict(
        lambda body: NO_SCHEMA[provider]() if kind_of_format(body) == "json_schema" else None,
        answer='{"answer": "Paris"}',
    )
    with Server(serve) as server:
        lm = model(server)
        ask, tell = question(lm, adapter="json"), question(lm, "topic -> answer", adapter="json")
        first = ask.run_sync(question="The capital of France?")
        predictions = [first, tell.run_sync(topic="France"), ask.run_sync(question="Once more?")]
    assert [prediction.answer for prediction in predictions] == ["Paris"] * 3
    assert [kind_of_format(body) for body in server.bodies[-3:]] == ["json_object"] * 3
    assert len(serve.refusals) <= 1


def test_a_server_without_response_formats_gets_instructions_in_words_after_its_refusal():
    serve = strict(lambda body: no_format() if "response_format" in body else None, answer='{"answer": "Paris"}')
    with Server(serve) as server:
        ask = question(model(server), adapter="json")
        answers = [ask.run_sync(question=f"{i}?").answer for i in range(3)]
    assert answers == ["Paris"] * 3
    assert len(serve.refusals) <= 2


def test_no_row_of_a_batch_is_lost_to_a_server_without_json_schema():
    serve = strict(
        lambda body: NO_SCHEMA["groq"]() if kind_of_format(body) == "json_schema" else None,
        answer='{"answer": "Paris"}',
    )
    with Server(serve) as server:
        ask = question(model(server), adapter="json")
        done = asyncio.run(ask.batch([{"question": f"{i}?"} for i in range(8)], concurrency=4))
    assert [type(row).__name__ for row in done] == ["Prediction"] * 8


def test_a_server_with_json_schema_is_sent_the_schema():
    with Server(lambda body, number: '{"answer": "Paris"}') as server:
        question(model(server), adapter="json").run_sync(question="The capital of France?")
    assert kind_of_format(server.bodies[0]) == "json_schema"


# ── a context that is too long ────────────────────────────────────────────────────────────────────────────────────────


def error_of(answer, **settings):
    """The error of a call to which a server responds in this way."""
    with Server(lambda body, number: answer()) as server, pytest.raises(errors.ModelError) as caught:
        question(model(server, retries=0, **settings)).run_sync(question="A long one")
    return caught.value


@pytest.mark.parametrize("words", TOO_LONG)
def test_a_too_long_request_is_recognized_from_the_message_of(words):
    assert isinstance(error_of(TOO_LONG[words]), errors.ContextTooLong)


@pytest.mark.parametrize("words", TOO_LONG_UNDERSTOOD)
def test_a_request_that_is_too_long_is_understood_in_the_words_of(words):
    assert isinstance(error_of(TOO_LONG_UNDERSTOOD[words]), errors.ContextTooLong)


@pytest.mark.parametrize("words", NOT_TOO_LONG)
def test_a_setting_that_is_too_large_is_no_request_that_is_too_long(words):
    problem = error_of(NOT_TOO_LONG[words])
    assert isinstance(problem, errors.BadRequestError)
    assert not isinstance(problem, errors.ContextTooLong)


@pytest.mark.parametrize("words", ["vllm", "anthropic", "litellm's proxy"])
def test_a_request_that_is_too_long_is_understood_within_a_stream(words):
    said = json.loads({**TOO_LONG, **TOO_LONG_UNDERSTOOD}[words]().text)
    event = f"data: {json.dumps({'error': said.get('error', said)})}\n\n"
    streamed = web.Response(text=event, content_type="text/event-stream")
    with Server(streamed=[streamed]) as server:
        ask = question(model(server, retries=0))

        async def main():
            return [part async for part in ask.stream(question="A long one")]

        with pytest.raises(errors.ModelError) as caught:
            asyncio.run(main())
    assert isinstance(caught.value, errors.ContextTooLong)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of litellm itself
@pytest.mark.parametrize("words", ["vllm, decoder", "tgi, inputs", "xai", "bedrock, titan"])
def test_a_request_that_is_too_long_is_understood_through_litellm(words):
    assert isinstance(error_of(TOO_LONG[words], engine="litellm"), errors.ContextTooLong)


def agent_step(body, *, finish):
    """The text of a ReAct step: a look-up, or the end."""
    name, args = ("finish", "{}") if finish else ("look", '{"word": "France"}')
    return chat(next_thought="On.", next_tool_name=name, next_tool_args=args)


@pytest.mark.parametrize("words", ["anthropic", "gemini", "tgi", "xai", "bedrock"])
def test_a_trajectory_that_is_too_long_is_shortened_in_the_words_of(words):
    def serve(body, number):
        text = json.dumps(body["messages"])
        if text.count("a thousand words") > 2:
            return TOO_LONG[words]()
        if "`[[ ## next_thought ## ]]`" in text:
            return agent_step(body, finish="Step 4" in text)
        return chat(answer="Paris")

    def look(word: str) -> str:
        return "a thousand words"

    with Server(serve) as server:
        agent = dn.ReAct("question -> answer", [look], native=False)
        with dn.context(lm=model(server, retries=0)):
            prediction = agent.run_sync(question="The capital of France?")
    assert prediction.answer == "Paris"
    assert len(prediction.trajectory) >= 4


# ── reflection that is too long ───────────────────────────────────────────────────────────────────────────────────────


def long_rows(count):
    return [{"question": f"{n}+{4 - n}? " + "Think of it. " * 150, "answer": "4"} for n in range(count)]


def limited_writer(characters):
    """A model for proposals that accepts prompts of up to this many characters."""
    prompt_lengths = []

    def answer(request):
        text = "\n".join(str(message["content"]) for message in request.messages)
        prompt_lengths.append(len(text))
        if len(text) > characters:
            raise errors.ContextTooLong(f"prompt is too long: {len(text)} characters > {characters} maximum")
        return chat(new_instruction="Answer in digits.")

    return dn.FunctionLM(answer), prompt_lengths


@pytest.mark.parametrize("characters", [12_000, 6_000])
def test_gepa_shortens_a_reflection_until_the_model_takes_it(characters):
    def judged(row, prediction):
        return dn.Score(float(prediction.answer == row.answer), feedback="Answer in digits.")

    task = dn.FunctionLM(lambda r: chat(answer="4" if "digits" in r.messages[0]["content"] else "four"))
    writer, prompt_lengths = limited_writer(characters)
    opt = dn.GEPA(judged, prompt_lm=writer, minibatch_size=6, budget=dn.Budget(metric_calls=200))
    program = opt.compile_sync(question(task), long_rows(24), val=long_rows(6))
    assert program.instruction == "Answer in digits."
    assert min(prompt_lengths) <= characters


# ── native tools ──────────────────────────────────────────────────────────────────────────────────────────────────────


def as_text(body):
    """A model that replies to an agent in text."""
    text = json.dumps(body["messages"])
    if "`[[ ## next_tool_name ## ]]`" in text:
        return agent_step(body, finish="Observation: Paris" in text)
    return chat(answer="Paris" if "Observation: Paris" in text else "unknown")


@pytest.mark.parametrize("words", NO_TOOLS)
def test_an_agent_falls_back_to_text_once_a_server_has_refused_tools_in_the_words_of(words):
    serve = strict(lambda body: NO_TOOLS[words]() if "tools" in body else None, answer=as_text)
    looked = []

    def look(word: str) -> str:
        looked.append(word)
        return "Paris"

    with Server(serve) as server, dn.context(lm=model(server, retries=0)):
        agent = dn.ReAct("question -> answer", [look])
        answers = [agent.run_sync(question=f"{i}: the capital of France?").answer for i in range(2)]
    assert (answers, looked) == (["Paris"] * 2, ["France"] * 2)
    assert len(serve.refusals) == 1


def test_an_agent_falls_back_to_text_where_llama_cpp_has_no_templates():
    def rule(body):
        error = {"code": 500, "message": "tools param requires --jinja flag", "type": "server_error"}
        return plain({"error": error}, 500) if "tools" in body else None

    def look(word: str) -> str:
        return "Paris"

    with Server(strict(rule, answer=as_text)) as server, dn.context(lm=model(server, retries=0)):
        assert dn.ReAct("question -> answer", [look]).run_sync(question="The capital of France?").answer == "Paris"


def test_a_tool_is_called_where_a_server_without_a_parser_gives_the_call_as_text():
    def serve(body, number):
        text = json.dumps(body["messages"])
        if "tools" in body and "Observation: Paris" not in text:
            return reply('<tool_call>\n{"name": "look", "arguments": {"word": "France"}}\n</tool_call>')
        return as_text(body)

    looked = []

    def look(word: str) -> str:
        looked.append(word)
        return "Paris"

    with Server(serve) as server, dn.context(lm=model(server, retries=0)):
        dn.ReAct("question -> answer", [look]).run_sync(question="The capital of France?")
    assert looked[:1] == ["France"]


# ── names of models ───────────────────────────────────────────────────────────────────────────────────────────────────


def serving(name):
    """A server like vLLM, which serves one model."""

    def serve(body, number):
        if body["model"] == name:
            return chat(answer="Paris")
        message = f"The model `{body['model']}` does not exist."
        return plain({"object": "error", "message": message, "type": "NotFoundError", "param": None, "code": 404}, 404)

    return serve


@pytest.mark.parametrize("name", ["Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B-Instruct", "mistralai/Mistral-7B-v0.3"])
def test_a_model_on_a_private_server_is_requested_by_its_name_or_the_error_explains_the_prefix(name):
    with Server(serving(name)) as server:
        try:
            said = question(model(server, name)).run_sync(question="The capital of France?").answer
        except errors.DspynbError as problem:
            said = str(problem)
    assert said == "Paris" or f"openai/{name}" in said


@pytest.mark.parametrize("name", ["Qwen/Qwen3-8B", "my-model"])
@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_a_provider_before_the_name_is_not_sent(provider, name):
    with Server(serving(name)) as server:
        ask = question(model(server, f"{provider}/{name}"))
        assert ask.run_sync(question="The capital of France?").answer == "Paris"


# ── Retry-After ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "header",
    [{"Retry-After": "86400"}, {"retry-after-ms": "86400000"}, {"Retry-After": "1e400"}],
    ids=["seconds", "milliseconds", "infinite"],
)
def test_a_call_does_not_wait_for_a_day(monkeypatch, header, status):
    without_waiting(monkeypatch)
    with Server(lambda body, number: error(status, "come back tomorrow", **header)) as server:
        with pytest.raises(errors.ModelError) as caught:
            question(model(server)).run_sync(question="The capital of France?")
    assert isinstance(caught.value, errors.RateLimited if status == 429 else errors.ServerError)
    assert "1e400" in header.values() or "86400" in str(caught.value).replace(",", "")
