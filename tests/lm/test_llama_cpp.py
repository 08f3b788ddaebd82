"""A real llama.cpp server with the embedded model, called over HTTP as any server that speaks OpenAI's format."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

import pytest

import dspynb as dn
from dspynb import errors
from tests.lm.llama_cpp_server import llama_cpp_server

pytest.importorskip("xllamacpp")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
QUESTION = {"question": "What is the capital of France?"}


@pytest.fixture(scope="module")
def address():
    with llama_cpp_server() as server:
        yield server.base


@pytest.fixture
def lm(address):
    return dn.LM("openai/smollm2", api_base=address, cache=False, max_tokens=300)


class Review(dn.Signature):
    """Judge the review."""

    text: str = dn.Input()
    mood: Literal["good", "bad"] = dn.Output()
    stars: int = dn.Output(ge=1, le=5)


def test_typed_outputs_are_held_to_their_schema(lm):
    prediction = dn.Predict(Review, lm=lm, adapter="json").run_sync(text="I liked it.")
    assert prediction.mood in ("good", "bad")
    assert isinstance(prediction.stars, int)
    assert prediction.usage.calls == 1
    assert prediction.usage.tokens > 0


def test_settings_that_the_server_takes_are_sent_as_requested(lm):
    settings = {"temperature": 0.7, "top_p": 0.9, "seed": 1, "n": 2, "effort": "low"}
    prediction = dn.Predict("question -> answer", lm=lm, adapter="json", **settings).run_sync(**QUESTION)
    assert len(prediction.completions) == 2
    assert prediction.run.calls.requested.tolist() == [{"max_tokens": 300, **settings}]


def test_a_stream_ends_with_the_prediction(lm):
    ask = dn.Predict("question -> answer", lm=lm, adapter="json")

    async def main():
        return [part async for part in ask.stream(**QUESTION)]

    *parts, prediction = asyncio.run(main())
    assert parts[-1].text == prediction.answer


def test_a_prompt_that_is_too_long_is_recognized(lm):
    with pytest.raises(errors.ContextTooLong, match="exceeds the available context size"):
        dn.Predict("question -> answer", lm=lm).run_sync(question="word " * 9000)


def test_a_direct_call_may_be_cut(address):
    lm = dn.LM("openai/smollm2", api_base=address, cache=False, max_tokens=5, truncated="accept")
    with pytest.warns(errors.TruncatedReplyWarning):
        assert lm.run_sync("Tell a long story.").text


def test_a_refine_gives_hints_and_a_budget_holds(lm):
    def blue(row, prediction):
        return dn.Score(float("blue" in prediction.sentence), feedback="Use the word blue.")

    caption = dn.Predict("subject -> sentence", lm=lm, adapter="prefill", max_tokens=60)
    with dn.Budget(calls=4) as meter, contextlib.suppress(errors.AllAttemptsFailed):
        dn.Refine(caption, blue, n=3, threshold=1.0, hints="feedback").run_sync(subject="the ocean")
    attempts = dn.last_run().attempts
    assert attempts.hint.dropna().isin(["Use the word blue."]).all()
    assert 1 <= len(attempts) <= meter.spent["calls"] <= 4
