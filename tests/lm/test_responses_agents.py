"""OpenAI's Responses API: the double of the provider, and agents that hand encrypted reasoning back."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import openai
import pytest

import dspynb as dn
from dspynb.views.details import build_detail
from tests.doors.providers.openai_responses import CodexServer, O3ProServer
from tests.lm.responses_server import (
    TOOL,
    USER,
    ResponsesServer,
    call_item,
    chat_model,
    model,
    openai_error,
    reasoning_item,
    response,
    text_item,
)
from tests.lm.server import Server

# ── the double of the provider ────────────────────────────────────────────────────────────────────────────────────────
CHAT_PROMPT = "[[ ## question ## ]]\nWhat is 2 + 2?\n\nRespond with `[[ ## answer ## ]]`."
CHAT_PROMPT_ITEMS = [{"role": "user", "content": CHAT_PROMPT}]


@pytest.mark.parametrize("server_type", [CodexServer, O3ProServer])
def test_the_official_client_reads_replies_and_streams_of_the_double(server_type):
    with server_type() as server, openai.OpenAI(base_url=server.base, api_key="none", max_retries=0) as client:
        whole = client.responses.create(model=server.model, input=CHAT_PROMPT_ITEMS)
        with client.responses.stream(model=server.model, input=CHAT_PROMPT_ITEMS) as stream:
            pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
            final = stream.get_final_response()
    assert "".join(pieces) == final.output_text == whole.output_text
    assert whole.output_text.endswith("[[ ## answer ## ]]\n4\n\n[[ ## completed ## ]]")
    assert final.usage == whole.usage
    assert server.problems == []


def test_the_double_refuses_a_call_without_output_and_reasoning_without_encryption():
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": "4"}
    bare = {"type": "reasoning", "id": "rs_1", "summary": []}
    with CodexServer() as server, openai.OpenAI(base_url=server.base, api_key="none", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError, match="No tool output found"):
            client.responses.create(model=server.model, input=[*CHAT_PROMPT_ITEMS, call])
        with pytest.raises(openai.NotFoundError, match="not persisted"):
            client.responses.create(model=server.model, input=[*CHAT_PROMPT_ITEMS, bare, call, output])
    assert server.problems == []


# ── agents ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def population(city: str) -> int:
    """How many people live in a city."""
    return {"Oslo": 709_037, "Bergen": 294_029}[city]


def encrypted(number, *output):
    """An output with encrypted reasoning before its other items."""
    return response(reasoning_item(id=f"rs_{number}", encrypted_content=f"secret {number}"), *output)


def town_call(number, city):
    return call_item(json.dumps({"city": city}), call_id=f"call_{number}", id=f"fc_{number}")


def agent_of(outputs, **settings):
    """The prediction of a ReAct whose model replies with these outputs, and the input items of each request."""
    with ResponsesServer(lambda body, number: outputs[number - 1]) as server:
        with dn.context(lm=model(server, **settings)):
            prediction = dn.ReAct("question -> answer", [population]).run_sync(question="Which city is larger?")
    return prediction, [body["input"] for body in server.bodies]


FINISHED = response(text_item("Oslo is larger."))
ANSWERED = response(text_item("[[ ## answer ## ]]\nOslo\n\n[[ ## completed ## ]]"))


def kinds(items):
    return [item.get("type", item.get("role")) for item in items]


def test_an_agent_hands_encrypted_reasoning_back_before_the_call_that_it_led_to():
    outputs = [
        encrypted(1, town_call(1, "Oslo")),
        encrypted(2, text_item("Now Bergen."), town_call(2, "Bergen")),
        FINISHED,
        ANSWERED,
    ]
    prediction, inputs = agent_of(outputs)
    assert prediction.answer == "Oslo"
    assert [step["observation"] for step in prediction.trajectory] == ["709037", "294029", "Finished."]
    assert kinds(inputs[0]) == ["system", "user"]
    assert inputs[1][2:] == [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "secret 1"},
        {"type": "function_call", "call_id": "call_1", "name": "population", "arguments": '{"city": "Oslo"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "709037"},
    ]
    turns = ["reasoning", "function_call", "function_call_output"]
    assert kinds(inputs[2]) == ["system", "user", *turns, "reasoning", "assistant", *turns[1:]]
    assert inputs[2][:2] == inputs[1][:2] == inputs[0]  # the prompt does not repeat these steps as text
    assert "secret" not in json.dumps(inputs[3])
    assert "709037" in json.dumps(inputs[3])  # the outputs are written from the whole trajectory


def test_a_call_has_the_whole_trajectory_as_its_input_on_record():
    prediction, _ = agent_of([encrypted(1, town_call(1, "Oslo")), FINISHED, ANSWERED])
    call = prediction.run.record.calls[1]
    assert "709037" in call.inputs["trajectory"]
    assert call.messages[2]["tool_calls"][0]["reasoning_items"][0]["encrypted_content"] == "secret 1"


def test_the_view_of_a_call_shows_no_encrypted_reasoning():
    prediction, _ = agent_of([encrypted(1, town_call(1, "Oslo")), FINISHED, ANSWERED])
    record = prediction.run.record
    details = [str(build_detail(SimpleNamespace(item=call), record)) for call in record.calls]
    assert "population" in details[0]
    assert not [detail for detail in details if "secret" in detail]


def test_parallel_calls_are_handed_back_with_their_outputs():
    outputs = [encrypted(1, town_call(1, "Oslo"), town_call(2, "Bergen")), FINISHED, ANSWERED]
    _, inputs = agent_of(outputs)
    expected = ["reasoning", "function_call", "function_call", "function_call_output", "function_call_output"]
    assert kinds(inputs[1][2:]) == expected
    assert [item["output"] for item in inputs[1][-2:]] == ["709037", "294029"]


def test_steps_before_the_first_encrypted_reasoning_are_text():
    outputs = [
        response(town_call(1, "Oslo")),
        encrypted(2, town_call(2, "Bergen")),
        response(town_call(3, "Bergen")),
        FINISHED,
        ANSWERED,
    ]
    _, inputs = agent_of(outputs)
    assert kinds(inputs[1]) == ["system", "user"]
    assert "709037" in inputs[1][1]["content"]
    assert "709037" in inputs[3][1]["content"]
    assert "294029" not in inputs[3][1]["content"]
    turns = ["function_call", "function_call_output"]
    assert kinds(inputs[3][2:]) == ["reasoning", *turns, *turns]


def test_a_turn_without_a_native_call_ends_the_messages():
    written = '<tool_call>{"name": "population", "arguments": {"city": "Bergen"}}</tool_call>'
    outputs = [encrypted(1, town_call(1, "Oslo")), response(text_item(written)), FINISHED, ANSWERED]
    prediction, inputs = agent_of(outputs)
    assert [step["observation"] for step in prediction.trajectory] == ["709037", "294029", "Finished."]
    assert kinds(inputs[2]) == ["system", "user"]
    assert "709037" in inputs[2][1]["content"]


def test_an_agent_whose_turns_are_too_long_leaves_the_oldest_out_as_text():
    too_long = {"code": "context_length_exceeded", "param": "input"}
    outputs = [
        encrypted(1, town_call(1, "Oslo")),
        encrypted(2, town_call(2, "Bergen")),
        openai_error(400, "Your input exceeds the context window of this model.", **too_long),
        FINISHED,
        ANSWERED,
    ]
    prediction, inputs = agent_of(outputs)
    assert prediction.answer == "Oslo"
    assert kinds(inputs[2][2:])[0] == "reasoning"
    assert kinds(inputs[3]) == ["system", "user"]
    assert "The first 1 steps are left out" in inputs[3][1]["content"]


def test_a_conversation_of_direct_calls_hands_reasoning_back():
    outputs = [encrypted(1, town_call(1, "Oslo")), FINISHED]
    with ResponsesServer(lambda body, number: outputs[number - 1]) as server:
        lm = model(server)
        first = lm.run_sync("How many people live in Oslo?", tools=[TOOL])
        turn = {"role": "assistant", "content": first.text, "tool_calls": list(first.tool_calls)}
        result = {"role": "tool", "tool_call_id": first.tool_calls[0]["id"], "content": "709037"}
        lm.run_sync([USER, turn, result], tools=[TOOL])
    assert kinds(server.bodies[1]["input"]) == ["user", "reasoning", "function_call", "function_call_output"]
    with Server(lambda body, number: "It is Oslo.") as chat_server:
        chat_model(chat_server).run_sync([USER, turn, result], tools=[TOOL])
    assert chat_server.bodies[0]["messages"][1]["tool_calls"][0].keys() == {"id", "type", "function"}


def test_a_run_with_encrypted_reasoning_is_replayed_exactly(tmp_path):
    outputs = [encrypted(1, town_call(1, "Oslo")), FINISHED, ANSWERED]
    agent = dn.ReAct("question -> answer", [population])
    with ResponsesServer(lambda body, number: outputs[number - 1]) as server:
        with dn.context(lm=model(server)), dn.trace() as trace:
            prediction = agent.run_sync(question="Which city is larger?")
        assert asyncio.run(dn.replay(prediction.run, agent)).exact
        trace.save(tmp_path / "trace.jsonl")
        assert asyncio.run(dn.replay(tmp_path / "trace.jsonl", agent)).exact
    assert len(server.bodies) == 3
