"""OpenAI's Responses API: streamed replies."""

from __future__ import annotations

import asyncio

import pytest

from dspynb import errors
from dspynb.lm.protocol import LMRequest
from dspynb.lm.providers.responses_stream import ResponseAssembler
from tests.lm.responses_server import (
    USER,
    ResponsesServer,
    completed,
    delta,
    model,
    reasoning_item,
    response,
    stream_of,
    text_item,
)


def streamed(*events, **settings):
    """The pieces and the reply of a streamed request."""
    pieces = []
    with ResponsesServer() as server:
        server.streamed.append(stream_of(*events))
        lm = model(server, **settings)
        answer = asyncio.run(lm.stream(LMRequest((USER,)), pieces.append))
    assert server.bodies[0]["stream"] is True
    assert "stream_options" not in server.bodies[0]
    return pieces, answer


def added(item, index=0, kind="added"):
    return {"type": f"response.output_item.{kind}", "output_index": index, "item": item}


def test_a_stream_gives_the_pieces_of_the_text_and_the_whole_reply():
    pieces, answer = streamed(
        {"type": "response.created", "response": response(status="in_progress")},
        delta("I add.", "reasoning_summary_text", 0),
        delta("It ", index=1),
        delta("is 4.", index=1),
        {"type": "response.new_event", "anything": 1},
        completed(reasoning_item("I add."), text_item("It is 4.")),
    )
    assert pieces == ["It ", "is 4."]
    assert (answer.text, answer.reasoning, answer.finish, answer.response_id) == (
        "It is 4.",
        "I add.",
        "stop",
        "resp_1",
    )
    assert answer.usage.reasoning_tokens == 60


def test_a_stream_whose_last_event_has_no_output_is_made_of_its_pieces():
    function = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "population", "arguments": ""}
    encrypted = reasoning_item("I look it up.", encrypted_content="abc")
    events = [
        added(reasoning_item(), 0),
        delta("I look it up.", "reasoning_summary_text", 0),
        added(encrypted, 0, "done"),
        added({"type": "message", "role": "assistant", "content": []}, 1),
        delta("One moment.", index=1),
        added(function, 2),
        delta('{"city": ', "function_call_arguments", 2),
        delta('"Oslo"}', "function_call_arguments", 2),
        completed(),
    ]
    _, answer = streamed(*events)
    assert (answer.text, answer.reasoning) == ("One moment.", "I look it up.")
    assert answer.tool_calls[0]["function"] == {"name": "population", "arguments": '{"city": "Oslo"}'}
    assert answer.tool_calls[0]["reasoning_items"][0]["encrypted_content"] == "abc"


def test_a_comment_is_not_streamed():
    comment = text_item("Let me think.", phase="commentary")
    pieces, answer = streamed(
        added({**comment, "content": []}, 0),
        delta("Let me think.", index=0),
        delta("4", index=1),
        completed(comment, text_item("4")),
    )
    assert pieces == ["4"]
    assert answer.text == "4"


def test_a_stream_can_end_incomplete_or_failed_or_with_an_error():
    details = {"reason": "max_output_tokens"}
    with pytest.raises(errors.ReplyTruncated, match="cut at max_tokens=20"):
        streamed(delta("It"), completed(text_item("It"), kind="incomplete", incomplete_details=details), max_tokens=20)
    with pytest.raises(errors.ServerError, match="went wrong") as caught:
        streamed(completed(kind="failed", error={"code": "server_error", "message": "It went wrong."}))
    assert caught.value.usage.prompt_tokens == 1000
    with pytest.raises(errors.RateLimited, match="Slow down"):
        streamed({"type": "error", "code": "rate_limit_exceeded", "message": "Slow down.", "param": None})
    with pytest.raises(errors.Refused, match="I cannot"):
        streamed(
            added({"type": "message", "role": "assistant", "content": []}),
            delta("I cannot.", "refusal"),
            completed(),
        )


@pytest.mark.parametrize(
    "event",
    [
        "not json",
        "[]",
        {"no": "type"},
        {"choices": [{"index": 0, "delta": {"content": "4"}}]},
        delta(4),
        delta("4", index=-1),
        delta("4", index=10**9),
        delta("4", index="a"),
        {"type": "response.output_item.added", "output_index": 0, "item": None},
        {"type": "response.completed", "response": None},
    ],
)
def test_a_damaged_piece_of_a_stream_is_an_error(event):
    with pytest.raises(errors.MalformedReply, match="a piece of the stream is damaged"):
        streamed(event, completed(text_item("4")))


def test_a_stream_that_ends_too_early_is_an_error():
    with pytest.raises(errors.MalformedReply, match="ended before it was complete"):
        streamed(delta("It is"))


def test_a_server_that_does_not_stream_gives_one_piece():
    pieces = []
    with ResponsesServer() as server:
        server.streamed.append(response(text_item("4")))
        answer = asyncio.run(model(server).stream(LMRequest((USER,)), pieces.append))
    assert (pieces, answer.text) == (["4"], "4")


def thinking_of(*events):
    assembler = ResponseAssembler()
    pieces = []
    for event in events:
        assembler.add(event, {})
        pieces.append(assembler.thinking)
    return "".join(pieces)


def test_the_parts_of_a_streamed_summary_are_paragraphs():
    summary = "reasoning_summary_text"
    assert (
        thinking_of(
            delta("I ", summary, summary_index=0),
            delta("add.", summary, summary_index=0),
            delta("It is ", summary, summary_index=1),
            delta("4.", summary, summary_index=1),
            delta("4", index=1),
        )
        == "I add.\n\nIt is 4."
    )


def test_a_summary_of_streamed_reasoning_is_left_out():
    assert (
        thinking_of(
            delta("I add.", "reasoning_text", content_index=0),
            delta("Adding", "reasoning_summary_text", summary_index=0),
        )
        == "I add."
    )
