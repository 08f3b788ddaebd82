"""OpenAI's Responses API: refusals, which change the request or the format, and other errors."""

from __future__ import annotations

import asyncio
import json
import pickle
from typing import ClassVar

import pytest
from aiohttp import web

import dspynb as dn
from dspynb import errors
from dspynb.lm.learned_profile import learned_changes
from dspynb.lm.protocol import LMRequest
from tests.lm.responses_server import (
    RESPONSES,
    TOOL,
    USER,
    ResponsesServer,
    chat_model,
    completed,
    delta,
    model,
    openai_error,
    response,
    stream_of,
    text_item,
)
from tests.lm.server import Server, reply


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


class AzureServer(ChatAndResponsesServer):
    message = (
        "The chatCompletion operation does not work with the specified model, gpt-5-codex. Please choose different "
        "model and try again. You can learn more about which models can be used with each operation here."
    )
    fields: ClassVar = {"code": "OperationNotSupported"}
    status = 400


class CopilotServer(ChatAndResponsesServer):
    message = "model gpt-5.3-codex is not accessible via the /chat/completions endpoint"
    fields: ClassVar = {"code": "unsupported_api_for_model"}
    status = 400


FORMAT_REFUSALS = [ChatAndResponsesServer, NoToolsInChatServer, NotAChatModelServer, AzureServer, CopilotServer]


@pytest.mark.parametrize("kind", FORMAT_REFUSALS)
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


class ChatOnlyServer(ChatAndResponsesServer):
    """A gateway without the Responses API, whose refusal of a parameter reads as one of the format."""

    message = "Unsupported parameter: 'seed' is not supported in /v1/chat/completions."
    fields: ClassVar = {"param": "seed", "code": "unsupported_parameter"}
    status = 400

    def refuses(self, body):
        return "seed" in body


def test_a_refused_parameter_is_left_out_if_the_other_format_is_no_way_out():
    with ChatOnlyServer(lambda body, number: openai_error(404, "Not Found")) as server:
        lm = chat_model(server, seed=1)
        with pytest.warns(errors.ModelAdaptedWarning, match="seed=1 was left out"):
            assert lm.run_sync("2+2?").text == "from chat"
        assert lm.run_sync("3+3?").text == "from chat"
    assert len(server.bodies) == 1
    assert len(server.chats) == 3
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
