"""Fields that a response lacks are empty in the record, and never an error; thinking that only a stream has, or only
the provider can read."""

from __future__ import annotations

import asyncio
import pickle
import warnings
from collections.abc import Mapping

import pytest

import dspynb as dn
from tests.doors.answers import THINKING
from tests.doors.providers.anthropic import SonnetServer
from tests.doors.providers.deepseek import DeepSeekServer
from tests.doors.providers.mistral import SmallServer
from tests.doors.providers.openai import PlainServer
from tests.doors.providers.openai_responses import RESPONSES, CodexServer
from tests.doors.providers.vllm import VLLMServer
from tests.doors.test_doors import FAKE_DOORS

QUESTION = {"question": "What is the capital of France?"}
IDS = ("id", "responseId")


def ask(server, lm, *, streamed=False, **settings):
    """A call, as the record has it."""

    async def main(program):
        async for _ in program.stream(**QUESTION):
            pass

    program = dn.Predict("question -> answer", lm=lm, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if streamed:
            asyncio.run(main(program))
        else:
            program.run_sync(**QUESTION)
    (call,) = dn.last_run().record.calls
    assert call.outputs == {"answer": "Paris"}
    return call


def model_at(server, name=None):
    """The model of a server. ``name``: in place of ``openai/…``."""
    settings = RESPONSES if isinstance(server, CodexServer) else {}
    return dn.LM(name or f"openai/{server.model}", api_base=server.base, cache=False, **settings)


def without(value, names):
    """A body without the keys of these names, at any depth."""
    if isinstance(value, Mapping):
        return {name: without(part, names) for name, part in value.items() if name not in names}
    if isinstance(value, list | tuple):
        return [without(part, names) for part in value]
    return value


def server_without(server_type, names):
    """A server whose responses lack these keys, and have no header with an id."""

    class Server(server_type):
        request_id_header = None

        def reply(self, body, reply):
            return without(super().reply(body, reply), names)

        def chunks(self, body, reply):
            return [without(chunk, names) for chunk in super().chunks(body, reply)]

        def check_reply(self, body):
            """It is no reply of the SDK."""

        check_chunk = check_reply

    return Server


@pytest.mark.parametrize("door", FAKE_DOORS)
def test_a_response_without_ids_leaves_them_empty(door):
    with server_without(door.server, IDS)() as server:
        calls = [ask(server, door.lm(server), streamed=streamed) for streamed in (False, True)]
    for call in calls:
        assert (call.request_id, call.response_id, call.finish) == (None, None, "stop")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("value", [None, "", 7, ["id"], "x" * 10_000])
@pytest.mark.parametrize("server_type", [PlainServer, CodexServer])
def test_an_id_or_a_model_that_is_no_name_counts_as_missing(server_type, value, streamed):
    names = {"id": value, "model": value}

    class Server(server_type):
        def reply(self, body, reply):
            return {**super().reply(body, reply), **names}

        def chunks(self, body, reply):
            chunks = [{**chunk, **names} for chunk in super().chunks(body, reply)]
            return [{**c, "response": {**c["response"], **names}} if "response" in c else c for c in chunks]

    with Server() as server:
        call = ask(server, model_at(server), streamed=streamed)
    assert (call.response_id, call.response_model) == (None, None)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("server_type", [PlainServer, DeepSeekServer, VLLMServer, CodexServer])
def test_a_response_without_usage_leaves_the_tokens_unknown(server_type, streamed):
    with server_without(server_type, ("usage",))() as server:
        call = ask(server, model_at(server), streamed=streamed)
    usage = call.usage
    assert (usage.calls, usage.tokens, usage.reasoning_tokens, usage.usd) == (1, None, None, None)


def test_the_usage_that_litellm_invents_for_a_response_without_usage_is_unknown():
    with server_without(SmallServer, ("usage",))() as server:
        assert ask(server, model_at(server, "mistral/mistral-small-latest")).usage.tokens is None


class ThinksInStreams(DeepSeekServer):
    """Its plain replies have no thinking."""

    def message(self, reply):
        message = super().message(reply)
        del message["reasoning_content"]
        return message


def test_thinking_that_only_streams_have_is_on_record_for_streams():
    with ThinksInStreams() as server:
        plain, streamed = [ask(server, model_at(server), streamed=streamed) for streamed in (False, True)]
    assert server.problems == []
    assert (plain.reasoning, plain.usage.reasoning_tokens) == (None, 14)
    assert (streamed.reasoning, streamed.usage.reasoning_tokens) == (THINKING, 14)


class RedactingServer(SonnetServer):
    """Its thinking can be read by Anthropic only."""

    def blocks(self, body, reply):
        for block in super().blocks(body, reply):
            if block["type"] == "thinking":
                yield {"type": "redacted_thinking", "data": "c2VjcmV0"}
            else:
                yield block


class EncryptingServer(PlainServer):
    """The reasoning is in OpenRouter's form, encrypted as that of OpenAI's models is."""

    thinks = True
    added = ("choices.message.reasoning_details",)
    details = ({"type": "reasoning.encrypted", "data": "gAAAA", "id": "rs_1", "format": "openai-responses-v1"},)

    def message(self, reply):
        return {**super().message(reply), "reasoning_details": self.details}

    def deltas(self, reply):
        yield {"role": "assistant", "content": "", "reasoning_details": self.details}
        yield from super().deltas(reply)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("server_type", "name"),
    [(RedactingServer, "anthropic/claude-sonnet-5-5"), (EncryptingServer, None), (CodexServer, None)],
)
def test_thinking_that_only_the_provider_can_read_has_tokens_and_no_text(server_type, name, streamed):
    with server_type() as server:
        call = ask(server, model_at(server, name), streamed=streamed)
    assert server.problems == []
    assert (call.reasoning, call.usage.reasoning_tokens) == (None, 14)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_summary_of_the_reasoning_is_on_record_where_it_is_requested(streamed):
    with CodexServer() as server:
        call = ask(server, model_at(server), streamed=streamed, extra_body={"reasoning": {"summary": "auto"}})
    assert server.problems == []
    assert call.reasoning == THINKING


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("STOP", "stop"),
        ("end_turn", "stop"),
        ("eos_token", "stop"),
        ("FinishReason.STOP", "stop"),
        ("function_call", "tool_calls"),
        ("tool_use", "tool_calls"),
        ("something-new", "something_new"),
        (None, None),
    ],
)
def test_a_finish_reason_is_on_record_in_the_words_of_openai(word, reason):
    lm = dn.FunctionLM(lambda request: dn.LMReply("answer: 4", finish=word))
    (call,) = dn.Predict("question -> answer", lm=lm).run_sync(question="2+2?").calls
    assert call.finish == reason


@pytest.mark.parametrize(
    ("word", "reason"), [("max_tokens", "length"), ("model_length", "length"), ("SAFETY", "content_filter")]
)
def test_the_finish_reason_of_a_reply_that_is_no_answer_is_on_record(word, reason):
    reply = dn.LMReply("No", finish=word, reasoning="I think.", response_id="r-1", request_id="q-1", response_model="m")
    with pytest.raises(dn.errors.ModelError) as caught:
        dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: reply)).run_sync(question="2+2?")
    (call,) = dn.last_run().record.calls
    facts = (call.finish, call.reasoning, call.response_id, call.request_id, call.response_model)
    assert facts == (reason, "I think.", "r-1", "q-1", "m")
    assert (call.reply, call.truncated) == (None, False)
    assert caught.value.finish == word
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.finish, copy.response_id, copy.request_id, str(copy)) == (word, "r-1", "q-1", str(caught.value))
