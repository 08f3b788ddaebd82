"""``LM(streaming=True)``: replies to plain calls arrive as streams, and are the same as unstreamed ones."""

from __future__ import annotations

import asyncio
import copy
import pickle

import pytest

import dspynb as dn
from dspynb.errors import BadRequestError, ConfigurationError, MalformedReply
from dspynb.lm.protocol import LMRequest
from tests.helpers import chat
from tests.lm.server import Server, error, reply, sse

USAGE = {"prompt_tokens": 7, "completion_tokens": 3}
ANSWER = chat(answer="4")


def lm_at(server, **settings):
    return dn.LM("openai/m", api_base=server.base, api_key="k" * 20, streaming=True, **settings)


def call(*streamed, **settings):
    """The prediction of a plain call at a server that streams these answers, and the server."""
    with Server(lambda body, number: error(500), streamed=list(streamed)) as server:
        ask = dn.Predict("question -> answer: int", lm=lm_at(server, **settings))
        return ask.run_sync(question="2+2?"), server


def test_a_plain_call_is_streamed_and_has_the_whole_reply():
    prediction, server = call(sse(list(ANSWER), usage=USAGE), cache=False)
    assert server.bodies[0]["stream"] is True
    assert server.bodies[0]["stream_options"] == {"include_usage": True}
    assert prediction.answer == 4
    assert prediction.usage.tokens == 10
    assert prediction.run.calls.reply.tolist() == [ANSWER]
    assert prediction.run.calls.first_token.tolist() != [None]


def test_without_streaming_a_plain_call_is_not_streamed():
    with Server(lambda body, number: ANSWER) as server:
        lm = dn.LM("openai/m", api_base=server.base, api_key="k" * 20, cache=False)
        dn.Predict("question -> answer: int", lm=lm).run_sync(question="2+2?")
    assert "stream" not in server.bodies[0]


def test_a_stream_that_breaks_is_tried_again_since_no_listener_has_a_part_of_it():
    broken = sse([ANSWER[:20]], finish=None, cut=True)
    prediction, server = call(broken, sse([ANSWER]), cache=False, retries=1)
    assert prediction.answer == 4
    assert prediction.usage.retries == 1
    assert len(server.bodies) == 2


def test_a_stream_that_ends_early_is_an_error():
    with pytest.raises(MalformedReply, match="ended before it was complete"):
        call(sse([ANSWER[:20]], finish=None), cache=False, retries=0)


def test_equal_calls_at_the_same_time_are_sent_once_and_cached():
    dn.configure(cache=True)
    with Server(lambda body, number: error(500), streamed=[sse([ANSWER])]) as server:
        ask = dn.Predict("question -> answer: int", lm=lm_at(server))

        async def main():
            first = await asyncio.gather(ask(question="2+2?"), ask(question="2+2?"))
            return [*first, await ask(question="2+2?")]

        predictions = asyncio.run(main())
    assert [prediction.answer for prediction in predictions] == [4, 4, 4]
    assert len(server.bodies) == 1


def test_a_direct_call_is_streamed_too():
    with Server(lambda body, number: error(500), streamed=[sse(["It ", "is 4."])]) as server:
        lm = lm_at(server, cache=False)
        assert lm.run_sync("2+2?").text == "It is 4."
        server.streamed.append(sse(["It ", "is 5."]))
        assert asyncio.run(lm.complete(LMRequest(({"role": "user", "content": "2+3?"},)))).text == "It is 5."
    assert [body["stream"] for body in server.bodies] == [True, True]


def test_a_server_that_does_not_know_stream_options_is_called_without_them():
    refusal = error(400, "Extra inputs are not permitted, field: 'stream_options'")
    prediction, server = call(refusal, sse([ANSWER]), cache=False)
    assert prediction.answer == 4
    assert [("stream_options" in body) for body in server.bodies] == [True, False]


@pytest.mark.parametrize(
    "refusal",
    [
        "This model only support stream mode, please enable the stream parameter to access the model. ",
        "Stream must be set to true",
        "Non-streaming requests are not supported for this model",
    ],
)
def test_a_model_that_takes_streamed_requests_only_is_streamed_from_then_on(refusal):
    with Server(lambda body, number: error(400, refusal), streamed=[sse([ANSWER]), sse([ANSWER])]) as server:
        lm = dn.LM("openai/m", api_base=server.base, api_key="k" * 20, cache=False)
        ask = dn.Predict("question -> answer: int", lm=lm)
        assert not lm.streaming
        first = ask.run_sync(question="2+2?")
        assert lm.streaming
        assert ask.run_sync(question="2+2?").answer == first.answer == 4
    assert [body.get("stream", False) for body in server.bodies] == [False, True, True]
    assert first.usage.calls == 1


def test_another_refusal_is_no_reason_to_stream():
    with Server(lambda body, number: error(400, "stream is a fine word, and your prompt is too odd")) as server:
        lm = dn.LM("openai/m", api_base=server.base, api_key="k" * 20, cache=False)
        with pytest.raises(BadRequestError):
            lm.run_sync("2+2?")
    assert len(server.bodies) == 1


def test_a_server_that_does_not_stream_may_answer_at_once():
    prediction, _ = call(reply(ANSWER), cache=False)
    assert prediction.answer == 4


def test_copies_stream_too():
    lm = dn.LM("openai/m", streaming=True)
    assert copy.copy(lm).streaming
    assert pickle.loads(pickle.dumps(lm)).streaming
    assert not dn.LM("openai/m").streaming


def test_streaming_is_true_or_false():
    with pytest.raises(ConfigurationError, match="streaming"):
        dn.LM("openai/m", streaming="yes please")
