"""Server-sent events of the WHATWG standard: lines, fields, and chunks that end anywhere."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

import dspynb as dn
from dspynb.errors import MalformedReply, ReplyTruncated, ServerError
from dspynb.lm.providers.sse import EventParser
from tests.lm.server import Server


def events(*chunks):
    parser = EventParser()
    events_of_chunks = [event for chunk in chunks for event in parser.feed(chunk)]
    return [(event.name.decode(), event.data.decode()) for event in (*events_of_chunks, *parser.end())]


@pytest.mark.parametrize(
    ("sent", "data"),
    [
        (b"data: a\n\n", ["a"]),
        (b"data:a\n\n", ["a"]),
        (b"data:  a\n\n", [" a"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", ["a\nb", "c"]),
        (b"data: a\rdata: b\r\rdata: c\r\r", ["a\nb", "c"]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b": keep-alive\n\n: x\ndata: a\n: y\n\n", ["a"]),
        (b"id: 1\nretry: 10\nnothing\ndata: a\n\n", ["a"]),
        (b"data\n\ndata: a\n\n", ["", "a"]),
        (b"event: ping\n\ndata: a\n\n", ["a"]),
        (b"data: a\n\ndata: b", ["a", "b"]),
        (b"", []),
    ],
)
def test_events_are_read_by_the_standard(sent, data):
    assert [text for _, text in events(sent)] == data
    assert [text for _, text in events(*(sent[i : i + 1] for i in range(len(sent))))] == data


EXAMPLES = [
    ("data: YHOO\ndata: +2\ndata: 10\n\n", [("", "YHOO\n+2\n10")], []),
    (
        ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
        [("", "first event"), ("", "second event")],
        [("", " third event")],
    ),
    ("data\n\ndata\ndata\n\ndata:", [("", ""), ("", "\n")], [("", "")]),
    ("data:test\n\ndata: test\n\n", [("", "test"), ("", "test")], []),
    (
        "data: This is the first message.\n\ndata: This is the second message, it\ndata: has two lines.\n\n",
        [("", "This is the first message."), ("", "This is the second message, it\nhas two lines.")],
        [],
    ),
    (
        "event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [("add", "73857293"), ("remove", "2153"), ("add", "113411")],
        [],
    ),
]


@pytest.mark.parametrize(("sent", "complete", "unfinished"), EXAMPLES)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_examples_of_the_standard_are_read_as_it_says(sent, complete, unfinished, end):
    """The examples of https://html.spec.whatwg.org/multipage/server-sent-events.html.

    The standard drops an event without an empty line after it. Some servers of models end a stream in this way, so here
    it is read when the stream ends; whether the reply is complete is judged by its finish reason.
    """
    parser = EventParser()
    events_so_far = parser.feed(sent.replace("\n", end).encode())
    assert [(event.name.decode(), event.data.decode()) for event in events_so_far] == complete
    assert [(event.name.decode(), event.data.decode()) for event in parser.end()] == unfinished


def standard_events(stream):
    """The events of a stream by the steps of the standard, in its words; an event at the end needs no empty line."""
    lines = re.split("\r\n|\n|\r", stream.removeprefix("\ufeff"))
    data_buffer = ""
    type_buffer = ""
    dispatched = []
    for line in [*lines, ""]:
        if not line:
            if data_buffer:
                dispatched.append((type_buffer, data_buffer.removesuffix("\n")))
            data_buffer = ""
            type_buffer = ""
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                type_buffer = value
            elif field == "data":
                data_buffer += f"{value}\n"
    return dispatched


STREAM_PIECES = st.sampled_from(
    [
        "data",
        "event",
        "id",
        "retry",
        "Data",
        ":",
        ": ",
        " ",
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\ufeff",
        "x",
        "é",
        "data: a\n",
    ]
)


@given(st.lists(STREAM_PIECES, max_size=30).map("".join), st.data())
def test_any_stream_has_the_events_of_the_standard(stream, data):
    sent = stream.encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, max(len(sent), 1)), max_size=10)))
    chunks = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert events(*chunks) == standard_events(stream)


def test_comments_that_keep_a_stream_alive_belong_to_no_event():
    parser = EventParser()
    for _ in range(100):
        parser.feed(b": keep-alive\n\n" * 100)
        parser.feed(b": keep-")
        parser.feed(b"alive\n\n")
    assert parser.pending == 0
    parser.feed(b"data: abc\nda")
    assert parser.pending > 0


def test_an_event_has_a_name():
    assert events(b"event: error\ndata: a\n\ndata: b\n\n") == [("error", "a"), ("", "b")]


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)


@given(st.data(), st.lists(TEXTS, min_size=1, max_size=5), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_any_way_to_cut_the_bytes_and_any_end_of_lines_gives_the_same_text(data, texts, end, bom):
    pieces = [{"choices": [{"delta": {"content": text}}]} for text in texts]
    written = [json.dumps(piece, ensure_ascii=False, indent=1).split("\n") for piece in pieces]
    sent = "".join("".join(f"data: {line}{end}" for line in lines) + f": no{end}{end}" for lines in written)
    whole = (b"\xef\xbb\xbf" if bom else b"") + sent.encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole)), max_size=30)))
    chunks = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert [json.loads(text) for _, text in events(*chunks)] == pieces


def streaming(*chunks):
    async def answer(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(0.005)
        return response

    return answer


def piece(text, finish=None):
    return json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": finish}]}, ensure_ascii=False).encode()


def stream(server, received, **settings):
    model = dn.LM("openai/m", api_base=server.base, **settings)
    return asyncio.run(model.stream(dn.LMRequest(({"role": "user", "content": "hi"},)), received.append))


def test_a_stream_is_the_same_text_wherever_a_character_or_the_end_of_a_line_is_cut():
    whole = b"data: " + piece("Übe") + b"\r\n\r\ndata: " + piece("r\u2028€", "stop") + b"\r\n\r\ndata: [DONE]\r\n\r\n"
    at = whole.index("Ü".encode()) + 1
    with Server(streamed=[streaming(whole[:at], whole[at : at + 70], whole[at + 70 :])]) as server:
        received = []
        assert stream(server, received).text == "Über\u2028€"
        assert "".join(received) == "Über\u2028€"


def test_an_event_of_several_lines_is_one_piece():
    lines = json.dumps(json.loads(piece("blue", "stop")), indent=2).split("\n")
    sent = "".join(f"data: {line}\n" for line in lines).encode() + b"\n"
    with Server(streamed=[streaming(sent, b"data: [DONE]\n\n")]) as server:
        assert stream(server, []).text == "blue"


@pytest.mark.parametrize(
    "damage",
    [b"data: {oops\n\n", b"data: 12\n\n", b'data: ["x"]\n\n', b"data: \xff{}\n\n", b'data: {"choices": {"a": 1}}\n\n'],
)
def test_a_damaged_chunk_is_retried_before_the_first_piece_and_never_cached(damage, monkeypatch, tmp_path):
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("dspynb.lm.limits._FIRST_WAIT", 0.001)
    good = streaming(b"data: " + piece("fine", "stop") + b"\n\n", b"data: [DONE]\n\n")
    half = streaming(b"data: " + piece("ha") + b"\n\n", damage, b"data: " + piece("lf", "stop") + b"\n\n")
    with dn.context(cache=True), Server(streamed=[half, streaming(damage), good]) as server:
        received = []
        with pytest.raises(MalformedReply, match="a piece of the stream is damaged"):
            stream(server, received)
        assert received == ["ha"]
        assert len(server.bodies) == 1
        assert stream(server, received).text == "fine"
        assert received == ["ha", "fine"]
        assert len(server.bodies) == 3


@pytest.mark.parametrize(
    "choices",
    [
        [{"index": "0", "delta": {"content": "lost"}}],
        [{"index": 0, "text": "lost"}],
        [{"index": 0, "delta": None, "message": {"content": "lost"}}],
    ],
)
def test_text_in_an_unknown_place_is_an_error_and_not_dropped(choices):
    lost = b"data: " + json.dumps({"choices": choices}).encode() + b"\n\n"
    answer = streaming(b"data: " + piece("ha") + b"\n\n", lost, b"data: " + piece("lf", "stop") + b"\n\n")
    with Server(streamed=[answer]) as server, pytest.raises(MalformedReply, match="damaged"):
        stream(server, [], retries=0)


def test_every_choice_of_a_piece_is_read_and_other_completions_are_not():
    choices = [{"index": i, "delta": {"content": text}} for i, text in ((0, "a"), (1, "x"), (0, "b"))]
    answer = streaming(b"data: " + json.dumps({"choices": choices}).encode() + b"\n\ndata: " + piece("c", "stop"))
    with Server(streamed=[answer]) as server:
        assert stream(server, []).text == "abc"


def test_a_later_stop_does_not_hide_that_the_reply_was_cut():
    answer = streaming(b"data: " + piece("ha", "length") + b"\n\ndata: " + piece("", "stop") + b"\n\n")
    with Server(streamed=[answer]) as server, pytest.raises(ReplyTruncated):
        stream(server, [])


@pytest.mark.parametrize("empty", [b"data:\n\n", b"data: \n\n", b"data\n\n"])
def test_an_event_without_data_is_no_damage(empty):
    answer = streaming(empty, b"data: " + piece("fi") + b"\n\n", empty, b"data: " + piece("ne", "stop") + b"\n\n")
    with Server(streamed=[answer]) as server:
        assert stream(server, [], retries=0).text == "fine"


@pytest.mark.parametrize(
    "sent",
    [
        b'data: {"error": {"message": "overloaded"}}\n\n',
        b"event: error\ndata: overloaded\n\n",
        b'data: {"object": "error", "message": "overloaded", "code": 500}\n\n',
    ],
)
def test_an_error_event_is_the_servers_error(sent):
    with Server(streamed=[streaming(sent)]) as server, pytest.raises(ServerError, match="overloaded"):
        stream(server, [], retries=0)
