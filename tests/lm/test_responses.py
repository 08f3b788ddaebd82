"""OpenAI's Responses API: requests and replies in this format."""

from __future__ import annotations

import base64
import json

import pytest
from aiohttp import web
from openai.types.responses import response_create_params

import dspynb as dn
from dspynb import errors
from dspynb.lm.protocol import LMRequest
from dspynb.lm.providers.responses_request import responses_body
from tests.doors.validation import request_check
from tests.lm.responses_server import (
    RESPONSES,
    TOOL,
    USER,
    ResponsesServer,
    ask,
    call_item,
    model,
    reasoning_item,
    response,
    text_item,
)
from tests.lm.server import reply


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
