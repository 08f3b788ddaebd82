"""OpenAI's Responses API: requests, replies, streams and errors in this format."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
from types import SimpleNamespace
from typing import ClassVar

import openai
import pytest
from aiohttp import web
from openai.types.responses import Response, response_create_params

import dspynb as dn
from dspynb import errors
from dspynb.lm.learned_profile import learned_changes
from dspynb.lm.protocol import LMRequest
from dspynb.lm.providers.responses_request import responses_body
from dspynb.views.details import build_detail
from tests.doors.providers.openai_responses import CodexServer, O3ProServer
from tests.doors.validation import check_reply, request_check
from tests.lm.server import Server, error, reply

RESPONSES = {"wire_format": "openai_responses"}
USER = {"role": "user", "content": "2+2?"}
TOOL = {
    "type": "function",
    "function": {"name": "population", "description": "People in a city", "parameters": {"type": "object"}},
}
USAGE = {
    "input_tokens": 1000,
    "input_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 0},
    "output_tokens": 100,
    "output_tokens_details": {"reasoning_tokens": 60},
    "total_tokens": 1100,
}


def text_item(text, **fields):
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part], **fields}


def reasoning_item(*summaries, **fields):
    summary = [{"type": "summary_text", "text": text} for text in summaries]
    return {"type": "reasoning", "id": "rs_1", "summary": summary, **fields}


def call_item(arguments='{"city": "Oslo"}', **fields):
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "population", "arguments": arguments}
    return {**call, "status": "completed", **fields}


def response(*output, **fields):
    """The body of a response, which must be one of the official SDK."""
    body = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1.0,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "m",
        "output": list(output),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": USAGE,
        **fields,
    }
    check_reply(Response, body)
    return body


class ResponsesServer(Server):
    """Answers requests to /v1/responses. ``answer``: as for ``Server``; a dict is the body of a response."""

    def add_routes(self, app):
        app.router.add_post("/v1/responses", self._handle)
        app.router.add_post("/v1/chat/completions", self._chat)

    async def _chat(self, request):
        return error(404, "This is not /v1/responses")


def model(server, name="openai/m", **settings):
    return dn.LM(name, api_base=server.base, api_key="none", cache=False, retries=0, profile=RESPONSES, **settings)


def ask(body, **settings):
    """The reply to a request that a server answers with this body."""
    with ResponsesServer(lambda _, number: body) as server:
        return model(server, **settings).run_sync("2+2?")


def sent(messages=(USER,), request_tools=(), schema=None, **settings):
    """The body of a request, which must be one of the official SDK."""
    request = LMRequest(tuple(messages), tools=tuple(request_tools), response_format=schema)
    body = responses_body("m", request, settings)
    request_check(response_create_params.ResponseCreateParamsBase)(json.dumps(body).encode())
    return body


# ── requests ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_request_is_not_stored_and_asks_for_encrypted_reasoning():
    assert sent() == {
        "model": "m",
        "input": [USER],
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({"max_tokens": 50}, {"max_output_tokens": 50}),
        ({"max_completion_tokens": 50}, {"max_output_tokens": 50}),
        ({"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
        ({"reasoning_effort": None}, {"reasoning": {"effort": None}}),
        ({"verbosity": "low"}, {"text": {"verbosity": "low"}}),
        ({"store": True}, {"store": True}),
        ({"response_format": {"type": "json_object"}}, {"text": {"format": {"type": "json_object"}}}),
        ({"response_format": None, "tools": None, "tool_choice": None}, {}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "strict": True}}},
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {}, "strict": True}}},
        ),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tool_choice": {"type": "function", "name": "f"}},
        ),
        (
            {"tools": [TOOL], "parallel_tool_calls": False},
            {"tools": [{"type": "function", "strict": False, **TOOL["function"]}], "parallel_tool_calls": False},
        ),
        ({"tools": [{"type": "web_search"}]}, {"tools": [{"type": "web_search"}]}),
        (
            {"temperature": 0.5, "top_p": 0.9, "metadata": {"a": "b"}, "user": "u", "service_tier": "flex"},
            {"temperature": 0.5, "top_p": 0.9, "metadata": {"a": "b"}, "user": "u", "service_tier": "flex"},
        ),
        ({"prompt_cache_key": "k", "safety_identifier": "s"}, {"prompt_cache_key": "k", "safety_identifier": "s"}),
        ({"extra_body": {"truncation": "auto"}}, {"truncation": "auto"}),
        (
            {"reasoning_effort": "low", "extra_body": {"reasoning": {"summary": "auto"}}},
            {"reasoning": {"effort": "low", "summary": "auto"}},
        ),
        (
            {"logprobs": True, "top_logprobs": 2},
            {"top_logprobs": 2, "include": ["reasoning.encrypted_content", "message.output_text.logprobs"]},
        ),
        ({"logprobs": False}, {}),
        (
            {"extra_body": {"include": ["file_search_call.results"]}},
            {"include": ["reasoning.encrypted_content", "file_search_call.results"]},
        ),
    ],
)
def test_settings_have_their_names_in_the_responses_api(settings, fields):
    assert sent(**settings) == {**sent(), **fields}


def test_the_schema_of_an_adapter_is_the_format_of_the_text():
    body = sent(schema={"type": "object"}, verbosity="low")
    schema = {"type": "json_schema", "name": "reply", "schema": {"type": "object"}}
    assert body["text"] == {"verbosity": "low", "format": schema}


def test_tools_in_the_settings_and_in_the_request_are_an_error():
    for settings in ({"tools": [TOOL]}, {"extra_body": {"tools": [TOOL]}}):
        with pytest.raises(errors.ConfigurationError, match="give them in one place"):
            sent(request_tools=[TOOL], **settings)
    assert sent(request_tools=[TOOL])["tools"] == sent(tools=[TOOL])["tools"]


def test_a_conversation_with_tools_becomes_items():
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc"}
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "reasoning_items": [reasoning]},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": '{"a": 1}'}},
    ]
    messages = [
        {"role": "system", "content": "Answer."},
        USER,
        {"role": "assistant", "content": "I look it up.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "4"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "5"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "It "}, {"type": "text", "text": "is 4."}]},
        {"role": "user", "content": "Thanks", "name": "Ada"},
    ]
    assert sent(messages)["input"] == [
        {"role": "system", "content": "Answer."},
        USER,
        reasoning,
        {"role": "assistant", "content": "I look it up."},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "4"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "5"}]},
        {"role": "assistant", "content": "It is 4."},
        {"role": "user", "content": "Thanks"},
    ]


def test_images_and_files_are_sent():
    png = b"\x89PNG\r\n\x1a\n0000"
    parts = [
        {"type": "text", "text": "Look:"},
        dn.Image(png).part(),
        dn.Image("https://example.org/cat.png").part(),
        dn.File(b"%PDF-1.7", name="paper.pdf").part(),
        dn.File("https://example.org/paper.pdf").part(),
        {"type": "file", "file": {"file_id": "file-1"}},
    ]
    content = sent([{"role": "user", "content": parts}])["input"][0]["content"]
    data = "data:image/png;base64," + base64.b64encode(png).decode()
    assert content == [
        {"type": "input_text", "text": "Look:"},
        {"type": "input_image", "image_url": data, "detail": "auto"},
        {"type": "input_image", "image_url": "https://example.org/cat.png", "detail": "auto"},
        {
            "type": "input_file",
            "filename": "paper.pdf",
            "file_data": "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.7").decode(),
        },
        {"type": "input_file", "file_url": "https://example.org/paper.pdf"},
        {"type": "input_file", "file_id": "file-1"},
    ]


def test_settings_that_the_responses_api_lacks_are_left_out_with_a_warning():
    lacking = {"n": 2, "seed": 1, "stop": ["x"], "logit_bias": {"1": 1}, "presence_penalty": 1, "frequency_penalty": 1}
    with ResponsesServer(lambda body, number: response(text_item("4"))) as server:
        lm = model(server, max_tokens=50, **lacking)
        with pytest.warns(errors.ModelAdaptedWarning) as caught:
            first, _ = [lm.run_sync(text) for text in ("2+2?", "3+3?")]
    assert len(caught) == 1
    assert all(f"{name}=" in str(caught[0].message) for name in lacking)
    assert "max_tokens" not in str(caught[0].message)
    assert lacking.keys().isdisjoint(server.bodies[1])
    assert server.bodies[1]["max_output_tokens"] == 50
    assert first.sent == {"max_tokens": 50}


def test_strict_refuses_a_setting_that_the_responses_api_lacks(planted):
    lm = dn.LM("openai/m", api_base=planted.base, profile=RESPONSES, strict=True, seed=1)
    with pytest.raises(errors.UnsupportedParameter, match="seed"):
        lm.run_sync("2+2?")


# ── replies ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_reply_has_text_reasoning_usage_price_and_ids():
    body = response(reasoning_item("I add.", "It is 4."), text_item("The answer "), text_item("is 4."))
    headers = {"x-request-id": "req_1"}
    with ResponsesServer(lambda _, number: web.json_response(body, headers=headers)) as server:
        lm = dn.LM(
            "openai/m",
            api_base=server.base,
            cache=False,
            profile={**RESPONSES, "input_price": 1e-6, "cached_input_price": 1e-7, "output_price": 1e-5},
        )
        answer = lm.run_sync("2+2?")
    assert answer.text == "The answer is 4."
    assert answer.reasoning == "I add.\n\nIt is 4."
    assert (answer.finish, answer.request_id, answer.response_id) == ("stop", "req_1", "resp_1")
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (1000, 100)
    assert (usage.cached_tokens, usage.reasoning_tokens) == (400, 60)
    assert usage.usd == pytest.approx(600e-6 + 400e-7 + 100e-5)
    assert answer.raw["output"][0]["type"] == "reasoning"


def test_reasoning_in_full_is_preferred_to_its_summary():
    item = reasoning_item("In short.", content=[{"type": "reasoning_text", "text": "In full."}])
    assert ask(response(item, text_item("4"))).reasoning == "In full."


def test_a_comment_of_the_model_is_no_part_of_its_answer():
    comment = text_item("Let me think.", phase="commentary")
    assert ask(response(comment, text_item("4", phase="final_answer"))).text == "4"
    assert ask(response(comment)).text == "Let me think."


def test_tool_calls_have_the_form_of_chat_completions_and_hold_encrypted_reasoning():
    encrypted = reasoning_item("I look it up.", encrypted_content="abc", status="completed")
    answer = ask(response(encrypted, call_item(), call_item(call_id="call_2")))
    function = {"name": "population", "arguments": '{"city": "Oslo"}'}
    handed_back = {"type": "reasoning", "id": "rs_1", "summary": encrypted["summary"], "encrypted_content": "abc"}
    assert answer.tool_calls == (
        {"id": "call_1", "type": "function", "function": function, "reasoning_items": [handed_back]},
        {"id": "call_2", "type": "function", "function": function},
    )
    assert answer.finish == "tool_calls"
    assert answer.reasoning == "I look it up."
    readable_only = ask(response(reasoning_item("I look it up."), call_item()))
    assert "reasoning_items" not in readable_only.tool_calls[0]  # it could not be found again: nothing is stored


def test_log_probabilities_have_the_form_of_chat_completions():
    logprob = {"token": "4", "bytes": [52], "logprob": -0.1, "top_logprobs": []}
    item = text_item("4")
    item["content"][0]["logprobs"] = [logprob]
    assert ask(response(item)).logprobs == {"content": [logprob]}


def test_items_of_the_provider_s_own_tools_are_left_out():
    search = {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "x"},
    }
    assert ask(response(search, text_item("4"))).text == "4"


@pytest.mark.parametrize(
    ("details", "kind", "words"),
    [
        ({"reason": "max_output_tokens"}, errors.ReplyTruncated, "cut at max_tokens=20"),
        ({"reason": "content_filter"}, errors.ContentFiltered, "content filter"),
        (None, errors.MalformedReply, "broke off"),
    ],
)
def test_an_incomplete_response_is_an_error_with_its_usage(details, kind, words):
    body = response(text_item("The answer", status="incomplete"), status="incomplete", incomplete_details=details)
    with pytest.raises(kind, match=words) as caught:
        ask(body, max_tokens=20)
    assert caught.value.usage.prompt_tokens == 1000


def test_a_response_that_used_its_tokens_for_reasoning_says_so():
    details = {"reason": "max_output_tokens"}
    with pytest.raises(errors.ReplyTruncated, match="used all 60 tokens for reasoning; raise max_tokens"):
        ask(response(reasoning_item(), status="incomplete", incomplete_details=details), max_tokens=100)


def test_a_cut_reply_can_be_accepted():
    details = {"reason": "max_output_tokens"}
    with pytest.warns(errors.TruncatedReplyWarning):
        answer = ask(
            response(text_item("The ans"), status="incomplete", incomplete_details=details), truncated="accept"
        )
    assert (answer.text, answer.finish) == ("The ans", "length")


@pytest.mark.parametrize("status", ["in_progress", "queued", "cancelled"])
def test_a_response_without_an_end_is_an_error(status):
    with pytest.raises(errors.MalformedReply, match="broke off"):
        ask(response(text_item("4"), status=status))


def test_a_refusal_is_an_error_with_its_text():
    item = text_item("")
    item["content"] = [{"type": "refusal", "refusal": "I cannot help with that."}]
    with pytest.raises(errors.Refused, match="I cannot help") as caught:
        ask(response(item))
    assert caught.value.text == "I cannot help with that."
    assert caught.value.usage.completion_tokens == 100


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("server_error", "The server had an error.", errors.ServerError),
        ("rate_limit_exceeded", "Rate limit reached.", errors.RateLimited),
        ("invalid_prompt", "Your prompt was flagged.", errors.ContentFiltered),
        ("invalid_image_url", "The image cannot be read.", errors.BadRequestError),
        ("image_too_large", "The image is larger than 20 MB.", errors.BadRequestError),
    ],
)
def test_a_failed_response_is_the_error_that_it_names(code, message, kind):
    body = response(status="failed", error={"code": code, "message": message})
    with pytest.raises(kind, match=message) as caught:
        ask(body)
    assert type(caught.value) is kind
    assert caught.value.usage.prompt_tokens == 1000


def test_a_response_that_failed_without_a_reason_is_a_server_error():
    with pytest.raises(errors.ServerError, match="gives no reason"):
        ask(response(status="failed", usage=None))


@pytest.mark.parametrize(
    "body",
    [
        {"object": "response", "status": "completed"},
        {"object": "response", "output": "4"},
        {"object": "response", "output": [None]},
        {"object": "response", "output": [{"type": "message", "content": None}]},
        {"object": "response", "output": [{"type": "message", "content": ["4"]}]},
        {"object": "response", "output": [{"type": "message", "content": [{"type": "output_text", "text": 4}]}]},
        {"object": "response", "output": [{"type": "function_call", "name": None, "arguments": "{}"}]},
        {"object": "response", "output": [{"type": "function_call", "name": "f", "arguments": {}}]},
        {"object": "response", "output": [{"type": "reasoning", "summary": "x"}]},
        {"object": "response", "output": []},
        reply("4"),
        {},
    ],
)
def test_a_damaged_response_is_an_error(body):
    with pytest.raises(errors.MalformedReply):
        ask(body)


def test_unknown_parts_and_a_missing_usage_are_no_errors():
    body = {"output": [{"type": "new_item"}, text_item("4")]}
    body["output"][1]["content"].append({"type": "new_part"})
    answer = ask(body)
    assert (answer.text, answer.usage.prompt_tokens, answer.response_id) == ("4", None, None)


# ── streams ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def stream_of(*events, end=True):
    """A streamed answer with these events."""

    async def answer(request):
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for event in events:
            name = event.get("type", "message") if isinstance(event, dict) else "message"
            data = json.dumps(event) if isinstance(event, dict) else event
            await answer.write(f"event: {name}\ndata: {data}\n\n".encode())
        if not end:
            request.transport.close()
        return answer

    return answer


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


def delta(text, kind="output_text", index=0, **fields):
    return {"type": f"response.{kind}.delta", "output_index": index, "item_id": "x", "delta": text, **fields}


def added(item, index=0, kind="added"):
    return {"type": f"response.output_item.{kind}", "output_index": index, "item": item}


def completed(*output, kind="completed", **fields):
    return {"type": f"response.{kind}", "response": response(*output, status=kind, **fields)}


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


# ── refusals and other errors ─────────────────────────────────────────────────────────────────────────────────────────
def openai_error(status, message, **fields):
    return web.json_response({"error": {"message": message, "type": "invalid_request_error", **fields}}, status=status)


@pytest.mark.parametrize(
    ("settings", "message", "fields", "changed"),
    [
        (
            {"max_tokens": 5},
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 5 instead.",
            {"param": "max_output_tokens", "code": "integer_below_min_value"},
            {"max_output_tokens": 16},
        ),
        (
            {"effort": "low"},
            "Unsupported parameter: 'reasoning.effort' is not supported with this model.",
            {"param": "reasoning.effort", "code": "unsupported_parameter"},
            {"reasoning": None},
        ),
        (
            {"verbosity": "low"},
            "Unsupported value: 'low' is not supported with the 'm' model.",
            {"param": "text.verbosity", "code": "unsupported_value"},
            {"text": None},
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
            "Invalid parameter: 'text.format' of type 'json_schema' is not supported with this model.",
            {"param": "text.format", "code": None},
            {"text": {"format": {"type": "json_object"}}},
        ),
        (
            {"logprobs": True},
            "Unsupported parameter: 'include' value 'message.output_text.logprobs' is not supported with this model.",
            {"param": "include", "code": "unsupported_parameter"},
            {"include": None},
        ),
    ],
)
def test_a_refusal_in_the_words_of_the_responses_api_adapts_the_request(settings, message, fields, changed):
    accepted = []

    def answer(body, number):
        if all(body.get(name) == value for name, value in changed.items()):
            accepted.append(body)
            return response(text_item("4"))
        return openai_error(400, message, **fields)

    with ResponsesServer(answer) as server:
        lm = model(server, **settings)
        with pytest.warns(errors.ModelAdaptedWarning):
            assert lm.run_sync("2+2?").text == "4"
        refused = len(server.bodies) - 1
        assert lm.run_sync("3+3?").text == "4"
    assert refused in (1, 2)
    assert len(server.bodies) == refused + 2


def test_a_model_without_encrypted_reasoning_is_asked_without_it(recwarn):
    def answer(body, number):
        if "include" in body:
            return openai_error(400, "Encrypted content is not supported with this model.", param="include", code=None)
        return response(text_item("4"))

    with ResponsesServer(answer) as server:
        lm = model(server, strict=True)  # the field is no setting
        assert [lm.run_sync(text).text for text in ("2+2?", "3+3?")] == ["4", "4"]
    assert [("include" in body) for body in server.bodies] == [True, False, False]
    assert not [warning for warning in recwarn if issubclass(warning.category, errors.ModelAdaptedWarning)]
    assert "include" in dn.LM("openai/gpt-4.1-mini", profile=RESPONSES).profile.refused  # known to have no reasoning


@pytest.mark.parametrize("wrapped", [False, True])
def test_each_of_many_calls_is_repeated_after_the_refusal_of_encrypted_reasoning(wrapped):
    message = "Encrypted content is not supported with this model."
    if wrapped:  # as litellm's proxy quotes it, without the name of the field
        message = f"litellm.BadRequestError: OpenAIException - {message}"

    def answer(body, number):
        return openai_error(400, message) if "include" in body else response(text_item("4"))

    async def many(lm):
        return await asyncio.gather(*[lm(f"{number}+1?") for number in range(12)])

    with ResponsesServer(answer) as server:
        assert [answer.text for answer in asyncio.run(many(model(server)))] == ["4"] * 12


class ChatAndResponsesServer(ResponsesServer):
    """A provider whose chat completions refuse some requests with ``message``."""

    message = "This model is only supported in v1/responses and not in v1/chat/completions."
    fields: ClassVar = {"param": "model", "code": None}
    status = 404

    def refuses(self, body):
        return True

    async def _chat(self, request):
        body = await request.json()
        self.chats.append(body)
        if self.refuses(body):
            return openai_error(self.status, self.message, **self.fields)
        return web.json_response(reply("from chat"))

    def __enter__(self):
        self.chats = []
        return super().__enter__()


class NoToolsInChatServer(ChatAndResponsesServer):
    message = (
        "Function tools with reasoning_effort are not supported for gpt-5.6-luna in /v1/chat/completions. To use "
        "function tools, use /v1/responses or set reasoning_effort to 'none'."
    )
    fields: ClassVar = {"param": "reasoning_effort", "code": None}
    status = 400

    def refuses(self, body):
        return bool(body.get("tools"))


class NotAChatModelServer(ChatAndResponsesServer):
    message = (
        "This is not a chat model and thus not supported in the v1/chat/completions endpoint. Did you mean to use "
        "v1/completions?"
    )


def chat_model(server, **settings):
    return dn.LM("openai/m", api_base=server.base, cache=False, retries=0, **settings)


@pytest.mark.parametrize("kind", [ChatAndResponsesServer, NoToolsInChatServer, NotAChatModelServer])
def test_a_model_that_refuses_chat_completions_is_called_in_the_responses_format(kind):
    with kind(lambda body, number: response(text_item("4"))) as server:
        lm = chat_model(server, max_tokens=50, effort="low")
        again = [lm.run_sync(text, tools=[TOOL]).text for text in ("2+2?", "3+3?")]
        copied = pickle.loads(pickle.dumps(lm)).run_sync("4+4?", tools=[TOOL]).text
    assert [*again, copied] == ["4", "4", "4"]
    assert len(server.chats) == 1
    assert [body["max_output_tokens"] for body in server.bodies] == [50, 50, 50]
    assert lm.profile.wire_format == "openai_responses"


def test_many_calls_learn_the_format_together():
    async def many(lm):
        return await asyncio.gather(*[lm(f"{number}+1?") for number in range(12)])

    with ChatAndResponsesServer(lambda body, number: response(text_item("4"))) as server:
        assert [answer.text for answer in asyncio.run(many(chat_model(server)))] == ["4"] * 12
    assert len(server.bodies) == 12


def test_a_stream_learns_the_format_before_its_first_piece():
    pieces = []
    with ChatAndResponsesServer() as server:
        server.streamed.append(stream_of(delta("4"), completed(text_item("4"))))
        answer = asyncio.run(chat_model(server).stream(LMRequest((USER,)), pieces.append))
    assert (answer.text, pieces) == ("4", ["4"])


def test_a_resumed_run_begins_in_the_format_that_was_learned():
    with ChatAndResponsesServer(lambda body, number: response(text_item("4"))) as server:
        lm = chat_model(server)
        known = lm.profile
        lm.run_sync("2+2?")
        changes = json.loads(json.dumps(learned_changes(known, lm.profile)))
        resumed = chat_model(server)
        resumed._adapt().apply_recorded(changes)  # as the scope of a resumed run does
        assert resumed.run_sync("3+3?").text == "4"
    assert changes["wire_format"] == "openai_responses"
    assert resumed.profile == lm.profile
    assert len(server.chats) == 1


def test_a_server_without_the_responses_api_is_said_to_have_none():
    class ChatServer(Server):
        pass

    with ChatServer(lambda body, number: "4") as server:
        lm = model(server)
        with pytest.raises(errors.BadRequestError, match="no Responses API, use dn.LM.*'wire_format': 'openai_chat'"):
            lm.run_sync("2+2?")
        assert server.bodies == []


def test_a_missing_item_or_model_is_no_missing_path():
    message = "Item with id 'rs_1' not found. Items are not persisted when `store` is set to false."
    with ResponsesServer(lambda body, number: openai_error(404, message, param="input")) as server:
        with pytest.raises(errors.BadRequestError, match="not persisted") as caught:
            model(server).run_sync("2+2?")
    assert "wire_format" not in str(caught.value)
    message = "The model `m` does not exist or you do not have access to it."
    with ResponsesServer(lambda body, number: openai_error(404, message, code="model_not_found")) as server:
        with pytest.raises(errors.ModelNotFound) as caught:
            model(server).run_sync("2+2?")
    assert "wire_format" not in str(caught.value)


def test_a_model_that_is_not_in_the_responses_api_is_said_to_be_in_the_other_format():
    message = "The requested model 'gpt-audio' is not supported with the Responses API."
    with ResponsesServer(lambda body, number: openai_error(400, message, param="model")) as server:
        with pytest.raises(errors.BadRequestError, match="'wire_format': 'openai_chat'"):
            model(server).run_sync("2+2?")
    assert len(server.bodies) == 1


@pytest.mark.parametrize("strict", [False, True])
def test_a_refused_format_is_the_error_if_the_server_has_no_other_or_in_strict_mode(strict):
    def answer(body, number):
        return openai_error(404, "Not Found")

    with ChatAndResponsesServer(answer) as server:
        lm = chat_model(server, strict=strict)
        with pytest.raises(errors.BadRequestError, match=r"only supported in v1/responses.*wire_format"):
            lm.run_sync("2+2?")
    assert len(server.bodies) == (0 if strict else 1)
    assert lm.profile.wire_format == "openai_chat"


@pytest.mark.parametrize(
    ("status", "message", "fields", "kind"),
    [
        (401, "Incorrect API key provided.", {"code": "invalid_api_key"}, errors.AuthenticationError),
        (429, "Rate limit reached for m.", {"code": "rate_limit_exceeded"}, errors.RateLimited),
        (429, "You exceeded your current quota.", {"code": "insufficient_quota"}, errors.QuotaExceeded),
        (
            400,
            "Your input exceeds the context window of this model.",
            {"code": "context_length_exceeded", "param": "input"},
            errors.ContextTooLong,
        ),
        (400, "The requested model 'm' does not exist.", {"code": "model_not_found"}, errors.ModelNotFound),
        (500, "The server had an error.", {"code": "server_error"}, errors.ServerError),
        (
            400,
            "No tool output found for function call call_1.",
            {"param": "input", "code": None},
            errors.BadRequestError,
        ),
    ],
)
def test_error_responses_are_of_the_same_kinds_as_those_of_chat_completions(status, message, fields, kind):
    with ResponsesServer(lambda body, number: openai_error(status, message, **fields)) as server:
        with pytest.raises(kind) as caught:
            model(server).run_sync("2+2?")
    assert type(caught.value) is kind


def test_an_address_with_the_path_of_the_responses_api_chooses_it():
    with ResponsesServer(lambda body, number: response(text_item("4"))) as server:
        lm = dn.LM("openai/m", api_base=f"{server.base}/responses/", cache=False)
        assert lm.run_sync("2+2?").text == "4"
    assert lm.profile.wire_format == "openai_responses"


def test_replies_are_cached_and_equal_requests_are_sent_once(tmp_path):
    with ResponsesServer(lambda body, number: response(text_item("4"))) as server:
        lm = dn.LM("openai/m", api_base=server.base, profile=RESPONSES)
        with dn.context(cache=True):
            first, second = lm.run_sync("What is 2 + 2 here?"), lm.run_sync("What is 2 + 2 here?")
    assert (first.text, second.text, second.cached) == ("4", "4", True)
    assert len(server.bodies) == 1


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
