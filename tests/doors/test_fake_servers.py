"""The fake servers are honest: a request or a reply that the official SDK does not know is noticed."""

from __future__ import annotations

import json

import pytest
from openai.types.chat import ChatCompletion, completion_create_params

import dspynb as dn
from dspynb import errors
from tests.doors.answers import Prompt, answer
from tests.doors.providers.openai import PlainServer
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
