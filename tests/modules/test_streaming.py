"""Streaming: each field's text as it grows, and the prediction at the end."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

import dspynb as dn
from dspynb.errors import ConnectionFailed, MalformedReply, ParseError, ServerError
from dspynb.modules.stream import FieldText
from tests.helpers import Caption, chat
from tests.lm.server import Server, error, sse

run = asyncio.run
TWO = "subject -> title, sentence"
WHOLE = "[[ ## title ## ]]\nThe sea\n\n[[ ## sentence ## ]]\nIt is [1, 2] blue\nand wide.\n\n[[ ## completed ## ]]"


class Dripping:
    """A model that tells its reply in the pieces it was given."""

    name = "dripping"

    def __init__(self, pieces):
        self.pieces = pieces

    async def complete(self, request):
        return dn.LMReply("".join(self.pieces))

    async def stream(self, request, on_piece):
        for piece in self.pieces:
            await asyncio.sleep(0)
            on_piece(piece)
        return dn.LMReply("".join(self.pieces))


async def parts_of(predict, **inputs):
    return [part async for part in predict.stream(**inputs)]


def grown(parts, field):
    """The text that the deltas of a field make together."""
    return "".join(p.delta for p in parts if isinstance(p, FieldText) and p.field == field)


@given(cuts=st.lists(st.integers(0, len(WHOLE)), max_size=60))
def test_wherever_the_reply_is_cut_the_deltas_make_the_fields(cuts):
    edges = [0, *sorted(cuts), len(WHOLE)]
    pieces = [WHOLE[a:b] for a, b in itertools.pairwise(edges)]
    parts = run(parts_of(dn.Predict(TWO, lm=Dripping(pieces)), subject="x"))
    assert isinstance(parts[-1], dn.Prediction)
    assert not any(isinstance(p, dn.Prediction) for p in parts[:-1])
    assert {name: grown(parts, name) for name in parts[-1]} == parts[-1].to_dict()


def test_every_character_arrives_as_it_is_written():
    parts = run(parts_of(dn.Predict(TWO, lm=Dripping(list(WHOLE))), subject="x"))
    sentence = [p.text for p in parts[:-1] if p.field == "sentence"]
    assert sentence[0] == "I"
    assert sentence[-1] == "It is [1, 2] blue\nand wide."
    assert len(sentence) > 12


@pytest.mark.parametrize(
    ("adapter", "reply"),
    [("json", '{"title": "The sea", "sentence": "It is \\"blue\\"."}'), ("prefill", "The sea\nSentence: It is blue.")],
)
def test_other_adapters_stream_too(adapter, reply):
    parts = run(parts_of(dn.Predict(TWO, lm=Dripping(list(reply)), adapter=adapter), subject="x"))
    assert grown(parts, "title") == "The sea"
    assert grown(parts, "sentence").startswith("It is")
    assert parts[-1].sentence.startswith("It is")


def test_a_model_that_cannot_stream_gives_each_field_at_once():
    parts = run(parts_of(dn.Predict(TWO, lm=dn.ScriptedLM([chat(title="The sea", sentence="blue")])), subject="x"))
    assert parts[:-1] == [FieldText("title", "The sea", "The sea"), FieldText("sentence", "blue", "blue")]
    assert parts[-1].to_dict() == {"title": "The sea", "sentence": "blue"}


def test_a_stream_is_a_run_with_its_prompt_and_hints():
    predict = dn.Predict(Caption, lm=Dripping([chat(sentence="s")]))

    async def main():
        with dn.hints("Be short."):
            return await parts_of(predict, subject="x")

    prediction = run(main())[-1]
    assert prediction.run.status == "finished"
    assert prediction.calls[0].hint == "Be short."


def test_leaving_the_loop_early_ends_the_call():
    class Endless(Dripping):
        ended = False

        async def stream(self, request, on_piece):
            try:
                on_piece(WHOLE[:60])
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.ended = True
                raise

    lm = Endless([])

    async def main():
        stream = dn.Predict(TWO, lm=lm).stream(subject="x")
        async for _ in stream:
            break
        await stream.aclose()
        return len([t for t in asyncio.all_tasks() if not t.done()])

    assert run(main()) == 1
    assert lm.ended


def test_hints_of_a_block_do_not_leak_out_of_a_stream_that_is_left():
    predict = dn.Predict(Caption, lm=Dripping([chat(sentence="s")]))

    async def main():
        stream = predict.stream(subject="x")
        await anext(stream)
        return dn.current_hint(), dn.current_scope().open_run

    assert run(main()) == (None, None)


def test_errors_of_the_call_are_raised_by_the_loop():
    with pytest.raises(ParseError):
        run(
            parts_of(
                dn.Predict(Caption, lm=Dripping(["no markers"]), adapter=dn.ChatAdapter(repair=False)), subject="x"
            )
        )
    with pytest.raises(dn.DspynbError, match="input 'subject' is missing"):
        run(parts_of(dn.Predict(Caption, lm=Dripping([]))))


def test_a_stream_inside_a_program_belongs_to_its_run():
    class Program(dn.Module):
        def __init__(self):
            self.step = dn.Predict(Caption, lm=Dripping([chat(sentence="s")]))

        async def forward(self, subject):
            async for part in self.step.stream(subject=subject):
                last = part
            return last

    prediction = run(Program()(subject="x"))
    assert prediction.run.calls.predictor.tolist() == ["step"]


# ── over HTTP ───────────────────────────────────────────────────────────────────────────────────────────────────────
def over_http(streamed, **settings):
    """The parts that come from a server which answers so."""
    with Server(lambda body, number: error(500), streamed=streamed) as server:
        lm = dn.LM("openai/m", api_base=server.base, api_key="k" * 20, retries=2, **settings)
        parts = run(parts_of(dn.Predict(Caption, lm=lm), subject="x"))
    return parts, server


def test_a_server_streams_and_tells_the_tokens():
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    parts, server = over_http([sse(list(chat(sentence="blue sea")), usage=usage)])
    assert grown(parts, "sentence") == "blue sea"
    assert parts[-1].usage.tokens == 10
    assert server.bodies[0]["stream"] is True


def test_a_failure_before_the_first_piece_is_tried_again():
    parts, server = over_http([error(500), sse([chat(sentence="s")])])
    assert parts[-1].usage.retries == 1
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (sse(["[[ ## sentence ## ]]\nblu"], finish=None), MalformedReply),
        (sse(["[[ ## sentence ## ]]\nblu"], finish=None, cut=True), (ConnectionFailed, MalformedReply)),
    ],
)
def test_a_stream_that_is_cut_after_it_began_is_an_error_and_not_tried_again(answer, kind):
    with pytest.raises(kind):
        over_http([answer, sse([chat(sentence="s")])])


def test_an_error_in_the_stream_is_raised():
    async def answer(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"error": {"message": "overloaded"}}\n\n')
        return response

    with pytest.raises(ServerError, match="overloaded"):
        over_http([answer] * 3)


def test_the_cache_answers_a_stream(tmp_path, monkeypatch):
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path))
    with Server(streamed=[sse(list(chat(sentence="s")))]) as server, dn.context(cache=True):
        predict = dn.Predict(Caption, lm=dn.LM("openai/m", api_base=server.base))
        first, second = (run(parts_of(predict, subject="x")) for _ in range(2))
    assert len(server.bodies) == 1
    assert grown(second, "sentence") == grown(first, "sentence") == "s"
    assert second[-1].calls[0].cached


def test_a_long_reply_that_comes_in_one_piece_is_streamed():
    with Server() as server:
        server.streamed = [sse([chat(sentence="a" * 1_000_000)])]
        lm = dn.LM("openai/m", api_base=server.base, retries=0)
        assert len(run(streamed(lm))[-1].sentence) == 1_000_000


def test_a_line_without_end_is_a_malformed_reply(monkeypatch):
    monkeypatch.setattr("dspynb.lm.providers.sse.MAX_EVENT_BYTES", 1000)
    with Server() as server:
        server.streamed = [sse(["a" * 2_000_000])]
        lm = dn.LM("openai/m", api_base=server.base, retries=0)
        with pytest.raises(MalformedReply, match="too long"):
            run(streamed(lm))


async def streamed(lm):
    return [part async for part in dn.Predict(Caption, lm=lm).stream(subject="x")]
