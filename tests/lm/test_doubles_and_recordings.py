"""The public test doubles and recordings: their replies and their errors."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

import dspynb as dn
from dspynb.errors import ConfigurationError, ModelAdaptedWarning, ModelError, RecordingMiss, ScriptExhausted
from dspynb.lm.protocol import LMProtocol, request_key
from tests.helpers import chat
from tests.lm.server import Server


def ask(lm, text="hi", **kwargs):
    return asyncio.run(lm.complete(dn.LMRequest(({"role": "user", "content": text},), **kwargs)))


def test_every_model_fulfils_the_protocol(tmp_path):
    models = [dn.ScriptedLM([]), dn.FunctionLM(str), dn.LM("openai/x"), dn.LocalLM()]
    models.append(dn.recorded(tmp_path / "r.jsonl", lm=models[0]))
    assert all(isinstance(model, LMProtocol) for model in models)


def test_a_scripted_model_replies_in_order_records_requests_and_ends():
    lm = dn.ScriptedLM(["a", dn.LMReply("b"), ValueError("c")])
    assert [ask(lm).text, ask(lm).text] == ["a", "b"]
    with pytest.raises(ValueError, match="c"):
        ask(lm)
    with pytest.raises(ScriptExhausted, match="has 3 replies"):
        ask(lm)
    assert len(lm.requests) == 4


def test_a_function_may_be_async_and_must_return_text():
    async def answer(request):
        return request.messages[0]["content"].upper()

    assert ask(dn.FunctionLM(answer)).text == "HI"
    with pytest.raises(ModelError, match="answered with int"):
        ask(dn.FunctionLM(lambda r: 5))
    with pytest.raises(ConfigurationError, match="takes a function"):
        dn.FunctionLM("text")


def test_a_recording_serves_what_it_has_and_records_what_is_missing(tmp_path):
    path = tmp_path / "deep" / "r.jsonl"
    inner = dn.ScriptedLM(["first", "second"], adapter="prefill")
    lm = dn.recorded(path, lm=inner)
    assert (ask(lm, "a").text, ask(lm, "a").text, ask(lm, "a", rollout=1).text) == ("first", "first", "second")
    reopened = dn.recorded(path)
    reply = ask(reopened, "a", rollout=1)
    assert (reply.text, reply.cached) == ("second", True)
    assert (reopened.name, reopened.adapter) == ("scripted", "prefill")
    with pytest.raises(RecordingMiss, match="'never asked' \\(rollout 0\\); record it"):
        ask(reopened, "never asked")


def test_an_agent_with_a_recording_falls_back_to_text_once_the_server_has_refused_tools(tmp_path):
    def serve(body, number):
        if "tools" in body:
            message = "m does not support tools"
            return web.json_response({"error": {"message": message, "type": "invalid_request_error"}}, status=400)
        if "`[[ ## next_tool_name ## ]]`" in json.dumps(body["messages"]):
            return chat(next_thought="known", next_tool_name="finish", next_tool_args="{}")
        return chat(reasoning="It is known.", answer="Paris")

    def look(word: str) -> str:
        return word

    path = tmp_path / "r.jsonl"
    agent = dn.ReAct("question -> answer", [look])
    with Server(serve) as server:
        lm = dn.recorded(path, lm=dn.LM("openai/m", api_base=server.base, retries=0))
        assert lm.native_tools
        with dn.context(lm=lm):
            with pytest.warns(ModelAdaptedWarning, match="tools were refused, and are described in the prompt"):
                answers = [agent.run_sync(question="France?").answer]
            answers.append(agent.run_sync(question="Its capital?").answer)
    assert answers == ["Paris", "Paris"]
    assert ["tools" in body for body in server.bodies] == [True, *[False] * 4]
    assert not lm.native_tools
    with dn.context(lm=dn.recorded(path)):
        assert agent.run_sync(question="France?").answer == "Paris"


def test_live_mode_bypasses_recordings_and_writes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    ask(dn.recorded(path, lm=dn.ScriptedLM(["old"])))
    before = path.read_bytes()
    monkeypatch.setenv("DSPYNB_LIVE", "1")
    assert ask(dn.recorded(path, lm=dn.ScriptedLM(["new"]))).text == "new"
    assert path.read_bytes() == before


def test_a_missing_or_damaged_recording_is_an_error(tmp_path):
    with pytest.raises(ConfigurationError, match="no recording"):
        dn.recorded(tmp_path / "none.jsonl")
    with pytest.raises(ConfigurationError, match="needs lm="):
        dn.recorded(tmp_path / "none.jsonl", strict=False)
    (tmp_path / "bad.jsonl").write_text('{"key": "k", "text": "a"}\nnonsense\n')
    with pytest.raises(ConfigurationError, match="line 2: not a recorded reply"):
        dn.recorded(tmp_path / "bad.jsonl")


def test_the_key_of_a_request_changes_with_all_that_changes_a_reply():
    base = {"messages": ({"role": "user", "content": "x"},), "settings": {"temperature": 0.5, "seed": 1}}
    keys = {
        request_key(dn.LMRequest(**base)),
        request_key(dn.LMRequest(**base, rollout=1)),
        request_key(dn.LMRequest(**{**base, "settings": {"temperature": 0.6, "seed": 1}})),
        request_key(dn.LMRequest(**base, response_format={"type": "object"})),
        request_key(dn.LMRequest(**{**base, "messages": ({"role": "user", "content": "y"},)})),
    }
    assert len(keys) == 5
    reordered = {**base, "settings": {"seed": 1, "temperature": 0.5}}
    assert request_key(dn.LMRequest(**reordered)) == request_key(dn.LMRequest(**base))


REQUEST = dn.LMRequest(({"role": "user", "content": "hi"},))


@pytest.mark.parametrize("usage", [None, "lots", [1], 5, {"prompt_tokens": "12"}, {"usd": "free"}])
def test_a_recording_without_a_valid_usage_has_an_unknown_usage(usage, tmp_path):
    body = {"key": request_key(REQUEST), "text": "hello", "usage": usage}
    (tmp_path / "r.jsonl").write_text(json.dumps(body) + "\n")
    (tmp_path / "none.jsonl").write_text(json.dumps({"key": body["key"], "text": "hello"}) + "\n")
    for name in ("r", "none"):
        reply = ask(dn.recorded(tmp_path / f"{name}.jsonl"))
        assert (reply.text, reply.usage.calls) == ("hello", 0)
    assert reply.usage.tokens is None


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({"key": "k"}),
        json.dumps({"key": "k", "text": 5}),
        json.dumps({"key": ["k"], "text": "a"}),
        json.dumps({"key": "k", "text": "a", "tool_calls": None}),
        json.dumps({"key": "k", "text": "a", "tool_calls": ["f"]}),
        json.dumps({"key": "k", "text": "a", "finish": 5}),
        json.dumps({"key": "k", "text": "a", "model": None}),
        json.dumps(["key"]),
        "[" * 100_000,
        b"\xff",
    ],
    ids=lambda line: str(line)[:40],
)
def test_a_line_that_is_no_recorded_reply_is_one_error_that_names_it(line, tmp_path):
    data = line if isinstance(line, bytes) else line.encode()
    (tmp_path / "r.jsonl").write_bytes(json.dumps({"key": "k", "text": "a"}).encode() + b"\n" + data + b"\n")
    with pytest.raises(ConfigurationError, match="line 2: not a recorded reply"):
        dn.recorded(tmp_path / "r.jsonl")


def test_a_reply_with_any_line_ends_in_it_is_recorded(tmp_path):
    text = "a\u2028b\u2029c\x85d\x0be\r\nf"
    ask(dn.recorded(tmp_path / "r.jsonl", lm=dn.ScriptedLM([text])))
    assert ask(dn.recorded(tmp_path / "r.jsonl")).text == text
