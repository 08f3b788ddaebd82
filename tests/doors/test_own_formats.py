"""Anthropic, Gemini and Mistral in their own formats: thinking is read, and their refusals are adapted to."""

from __future__ import annotations

import asyncio

import pytest

import dspynb as dn
from dspynb import errors
from tests.doors.answers import THINKING
from tests.doors.providers.anthropic import HaikuServer, SonnetServer, anthropic_error
from tests.doors.providers.gemini import FlashServer
from tests.doors.providers.mistral import MagistralServer, SmallServer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # raised by litellm itself

QUESTION = {"question": "What is the capital of France?"}


def model(server, name, **settings):
    return dn.LM(name, api_base=server.base, cache=False, retries=0, **settings)


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("anthropic/claude-sonnet-5-5", SonnetServer, {}),
        ("anthropic/claude-haiku-4-5", HaikuServer, {"effort": "low"}),
        ("gemini/gemini-2.5-flash", FlashServer, {"effort": "low"}),
        ("mistral/magistral-medium-latest", MagistralServer, {}),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_the_thinking_of_a_model_is_read_and_is_no_part_of_the_answer(name, kind, settings, streamed):
    async def parts(program):
        return [part async for part in program.stream(**QUESTION)]

    with kind() as server:
        program = dn.Predict("question -> answer", lm=model(server, name, **settings))
        prediction = asyncio.run(parts(program))[-1] if streamed else program.run_sync(**QUESTION)
    assert server.problems == []
    assert prediction.answer == "Paris"
    assert prediction.run.calls.reasoning.item() == THINKING
    assert prediction.usage.tokens > 0


class NewServer(SonnetServer):
    """A model that is newer than litellm's map."""

    model = "claude-next-9"


@pytest.mark.parametrize(
    ("name", "kind", "requested", "sent"),
    [
        ("anthropic/claude-next-9", NewServer, 0.7, {}),
        ("anthropic/claude-haiku-4-5", HaikuServer, 1.4, {"temperature": 1}),
        ("gemini/gemini-2.5-flash", FlashServer, 2.5, {"temperature": 2}),
        ("mistral/mistral-small-latest", SmallServer, 1.9, {"temperature": 1.5}),
    ],
)
def test_a_refusal_in_the_words_of_the_provider_adapts_the_request(name, kind, requested, sent):
    with kind() as server:
        lm = model(server, name, temperature=requested)
        with pytest.warns(errors.ModelAdaptedWarning, match="temperature="):
            prediction = dn.Predict("question -> answer", lm=lm).run_sync(**QUESTION)
        dn.Predict("question -> answer", lm=lm).run_sync(**QUESTION)
    assert server.problems == []
    assert prediction.answer == "Paris"
    assert len(server.refusals) == 1
    calls = prediction.run.calls
    assert calls.requested.item() == {"temperature": requested}
    assert calls.sent.item() == sent


class WithoutSchemaServer(HaikuServer):
    """Refuses the name that litellm has for the format of the output, as Bedrock does."""

    def refusal(self, body):
        if (body.get("output_config") or {}).get("format"):
            return anthropic_error("output_format: This field is deprecated. Use 'output_config.format' instead.")
        return super().refusal(body)


def test_a_refused_format_of_the_output_leads_to_the_next_kind_of_structured_output():
    with WithoutSchemaServer() as server:
        lm = model(server, "anthropic/claude-haiku-4-5")
        program = dn.Predict("text -> city, inhabitants: int", adapter="json", lm=lm)
        with pytest.warns(errors.ModelAdaptedWarning, match="response_format became"):
            prediction = program.run_sync(text="Paris has 2102650 inhabitants.")
    assert (prediction.city, prediction.inhabitants) == ("Paris", 2_102_650)
    assert server.problems == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("anthropic/claude-typo", HaikuServer),
        ("gemini/gemini-typo", FlashServer),
        ("mistral/mistral-typo", SmallServer),
    ],
)
def test_a_name_that_the_provider_does_not_know_is_a_model_not_found(name, kind):
    with kind() as server:
        with pytest.raises(errors.ModelNotFound, match="typo"):
            model(server, name).run_sync("Say ok.")
    assert len(server.refusals) == 1


def test_effort_is_renamed_in_each_call():
    """The second call has the settings that the server has taken, under the name that the server knows."""
    with SmallServer() as server:
        program = dn.Predict("question -> answer", lm=model(server, "mistral/mistral-small-latest", effort="high"))
        for _ in range(3):
            assert program.run_sync(**QUESTION).answer == "Paris"
    assert [body["reasoning_effort"] for body in server.bodies] == ["high"] * 3
    assert server.problems == []
