"""The fake servers are honest: a request or a reply that the official SDK does not know is noticed."""

from __future__ import annotations

import json

import ollama
import openai
import pytest
from openai.types.chat import ChatCompletion, completion_create_params

import dspynb as dn
from dspynb import errors
from tests.doors.answers import Prompt, answer
from tests.doors.openai_server import OpenAIFormatServer
from tests.doors.providers.deepseek import DeepSeekServer
from tests.doors.providers.ollama import NativeOllamaServer, OllamaServer
from tests.doors.providers.openai import GPT5Server, OSeriesServer, PlainServer
from tests.doors.providers.vllm import BareVLLMServer, VLLMServer
from tests.doors.registry import Door, Reports
from tests.doors.suite import try_door
from tests.doors.table import row
from tests.doors.validation import check_reply, request_check

USER = {"role": "user", "content": "2+2?"}
REPLY = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "4", "refusal": None}, "finish_reason": "stop"}
    ],
}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"effort": "low"}, "effort"),
        ({"temperature": "1"}, "temperature"),
        ({"messages": [{**USER, "name_of": "x"}]}, "name_of"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "2+2?", "lang": "en"}]}]}, "lang"),
        ({"messages": [{"role": "tool", "content": "4"}]}, "tool_call_id"),
        ({"messages": None}, "messages"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, "name"),
        ({"tools": [{"type": "function", "function": {"name": "f", "arguments": {}}}]}, "arguments"),
    ],
)
def test_a_request_that_the_sdk_does_not_allow_is_an_error_at_any_depth(changes, word):
    check = request_check(completion_create_params.CompletionCreateParamsBase)
    request = {"model": "m", "messages": [USER]}
    check(json.dumps(request).encode())
    with pytest.raises(ValueError, match=word):
        check(json.dumps({**request, **changes}).encode())


def test_a_reply_with_an_unknown_key_or_a_wrong_value_does_not_parse():
    check_reply(ChatCompletion, REPLY)
    thinking = {"role": "assistant", "content": "4", "reasoning_content": "2 and 2"}
    choice = {**REPLY["choices"][0], "message": thinking}
    with pytest.raises(ValueError, match=r"ChatCompletion has no choices\.message\.reasoning_content"):
        check_reply(ChatCompletion, {**REPLY, "choices": [choice]})
    check_reply(ChatCompletion, {**REPLY, "choices": [choice]}, ["choices.message.reasoning_content"])
    with pytest.raises(ValueError, match="finish_reason"):
        check_reply(ChatCompletion, {**REPLY, "choices": [{**choice, "finish_reason": "done"}]})


def test_a_server_refuses_and_notes_a_request_that_is_not_in_the_format():
    with PlainServer() as server:
        lm = dn.LM("openai/gpt-4.1-mini", api_base=server.base, extra_body={"min_p": 0.1})
        with pytest.raises(errors.BadRequestError, match="min_p"):
            dn.Predict("question -> answer", lm=lm).run_sync(question="2+2?")
    assert "min_p" in server.problems[0]
    assert server.bodies == []


@pytest.mark.parametrize("adapter", ["chat", "json", "prefill"])
def test_the_answers_fit_the_prompts_of_each_adapter(adapter):
    def reply(request):
        messages = [(message["role"], message["content"]) for message in request.messages]
        return answer(Prompt(messages)).text

    lm = dn.FunctionLM(reply)
    signature = "text -> city, inhabitants: int, is_capital: bool"
    prediction = dn.Predict(signature, lm=lm, adapter=adapter).run_sync(text="Paris has 2102650 inhabitants.")
    assert (prediction.city, prediction.inhabitants, prediction.is_capital) == ("Paris", 2_102_650, True)
    tool = dn.Tool(lambda city: 709_037, name="population")
    agent = dn.ReAct("question -> answer", [tool])
    with dn.context(lm=lm, adapter=adapter):
        assert agent.run_sync(question="How many people live in Oslo?").answer == "709037"


MESSAGES = [{"role": "user", "content": "[[ ## question ## ]]\nWhat is 2 + 2?\n\nRespond with `[[ ## answer ## ]]`."}]
SCHEMA = {"name": "reply", "schema": {"type": "object", "properties": {"answer": {"type": "string"}}}}
TOOL = {"type": "function", "function": {"name": "population", "parameters": {"type": "object", "properties": {}}}}
SERVERS = [PlainServer, OSeriesServer, GPT5Server, DeepSeekServer, VLLMServer, BareVLLMServer, OllamaServer]


def client_of(server):
    """The official client, for a fake server."""
    return openai.OpenAI(base_url=server.base, api_key="none", max_retries=0)


@pytest.mark.parametrize("server_type", SERVERS)
def test_the_official_client_reads_replies_and_streams(server_type):
    with server_type() as server, client_of(server) as client:
        completion = client.chat.completions.create(model=server.model, messages=MESSAGES)
        stream = client.chat.completions.create(
            model=server.model, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        *chunks, last = stream
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == completion.choices[0].message.content
    assert text.endswith("[[ ## answer ## ]]\n4\n\n[[ ## completed ## ]]")
    assert last.usage == completion.usage
    assert server.problems == []


def test_the_official_client_of_ollama_reads_replies_and_streams():
    with NativeOllamaServer() as server, ollama.Client(host=server.base) as client:
        reply = client.chat(server.model, MESSAGES)
        chunks = list(client.chat(server.model, MESSAGES, stream=True))
        called = client.chat(server.model, MESSAGES, tools=[TOOL])
    assert "".join(chunk.message.content or "" for chunk in chunks) == reply.message.content
    assert "".join(chunk.message.thinking or "" for chunk in chunks) == reply.message.thinking
    assert called.message.tool_calls[0].function.arguments == {"city": "Oslo"}
    assert server.problems == []


@pytest.mark.parametrize(
    ("server_type", "settings", "words"),
    [
        (PlainServer, {"reasoning_effort": "low"}, "Unrecognized request argument supplied: reasoning_effort"),
        (PlainServer, {"temperature": 2.5}, "Expected a value <= 2, but got 2.5 instead"),
        (OSeriesServer, {"max_tokens": 10}, "Use 'max_completion_tokens' instead"),
        (OSeriesServer, {"top_p": 0.5}, "Unsupported parameter: 'top_p'"),
        (GPT5Server, {"temperature": 0.7}, "'temperature' does not support 0.7 with this model"),
        (GPT5Server, {"stop": "x"}, "Unsupported parameter: 'stop'"),
        (DeepSeekServer, {"response_format": {"type": "json_schema", "json_schema": SCHEMA}}, "unavailable now"),
        (DeepSeekServer, {"response_format": {"type": "json_object"}}, "Prompt must contain the word 'json'"),
        (BareVLLMServer, {"tools": [TOOL]}, "requires --enable-auto-tool-choice"),
        (OllamaServer, {"tools": [TOOL]}, "does not support tools"),
        (OllamaServer, {"reasoning_effort": "low"}, "does not support thinking"),
        (VLLMServer, {"model": "other"}, "The model `other` does not exist"),
    ],
)
def test_each_server_refuses_what_its_provider_refuses(server_type, settings, words):
    with server_type() as server, client_of(server) as client, pytest.raises(openai.APIStatusError, match=words):
        client.chat.completions.create(**{"model": server.model, "messages": MESSAGES, **settings})
    assert len(server.refusals) == 1
    assert server.problems == []


class FailingServer(OpenAIFormatServer):
    """Refuses everything, and says nothing of use."""

    model = "m"

    def refusal(self, body):
        return self.invalid("no")


def test_a_door_that_fails_is_shown_as_failing():
    door = Door(name="failing", model="openai/m", server=FailingServer, reports=Reports())
    report = try_door(door)
    assert {result.outcome for result in report.results} == {"fails"}
    assert row(door, report) == f"| failing |{' fails |' * 10} nothing |"
