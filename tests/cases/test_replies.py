"""What a reply says about its own completeness (section 1)."""

from __future__ import annotations

import asyncio

import pytest

import dspynb as dn
from tests.cases.providers import model
from tests.helpers import chat
from tests.lm.server import Server, reply, sse

UNOPENED = "[[ ## answer ## ]]\nLyon\nno wait</think>\n[[ ## answer ## ]]\nParis\n[[ ## completed ## ]]"


def ask(text, signature="question -> answer", **settings):
    program = dn.Predict(signature, lm=dn.FunctionLM(lambda request: text), **settings)
    return program.run_sync(question="The capital of France?")


# ── thinking without an opening tag ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tag", ["think", "thinking", "thought", "THINK"])
def test_the_answer_stands_after_the_closing_tag_of_thinking_that_was_never_opened(tag):
    assert ask(UNOPENED.replace("</think>", f"</{tag}>")).answer == "Paris"


@pytest.mark.parametrize(
    ("adapter", "text"),
    [
        (dn.JSONAdapter(), 'Perhaps {"answer": "Lyon"}? No.\n</think>\n{"answer": "Paris"}'),
        (dn.ChatAdapter(), "answer: Lyon\nno wait</think>\nanswer: Paris"),
        (dn.ChatAdapter(), 'Perhaps {"answer": "Lyon"}? No.\n</think>\n{"answer": "Paris"}'),
    ],
    ids=["json", "labels", "json in chat"],
)
def test_every_form_of_a_reply_is_read_after_unopened_thinking(adapter, text):
    assert ask(text, adapter=adapter).answer == "Paris"


def test_a_number_after_unopened_thinking_is_read_and_costs_no_repair():
    text = "[[ ## answer ## ]]\n12\nno wait</think>\n[[ ## answer ## ]]\n13\n[[ ## completed ## ]]"
    prediction = ask(text, "question -> answer: int")
    assert (prediction.answer, prediction.usage.calls) == (13, 1)


def test_the_prediction_of_a_stream_holds_no_unopened_thinking():
    with Server(streamed=[sse([UNOPENED[:30], UNOPENED[30:]])]) as server:
        program = dn.Predict("question -> answer", lm=model(server))

        async def main():
            return [part async for part in program.stream(question="The capital of France?")]

        assert asyncio.run(main())[-1].answer == "Paris"


@pytest.mark.parametrize("opening", ["", "<think>"], ids=["unopened", "opened"])
def test_thinking_in_the_text_of_a_reply_becomes_its_reasoning(opening):
    run = ask(f"{opening}Lyon, no wait</think>\n{chat(answer='Paris')}").run
    others = run.calls.drop(columns=["messages", "reply"]).iloc[0]
    assert any("Lyon, no wait" in str(cell) for cell in others)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (
            "<think>Lyon, no wait</think>\n[[ ## answer ## ]]\nThe tag is </think>, I think.",
            "The tag is </think>, I think.",
        ),
        ("[[ ## answer ## ]]\nUse </think> to end.\n[[ ## completed ## ]]", "Use </think> to end."),
    ],
    ids=["after thinking", "without thinking"],
)
def test_an_answer_may_speak_of_the_closing_tag(text, answer):
    assert ask(text).answer == answer


# ── n=2 ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def two(first, second):
    """The body of a chat completion with two choices."""
    body = reply(first)
    choice = {**reply(second)["choices"][0], "index": 1}
    return {**body, "choices": [*body["choices"], choice]}


def all_of(prediction):
    """The answers in all completions of a prediction."""
    completions = prediction.completions
    return [completions[i].answer for i in range(len(completions))]


@pytest.mark.parametrize("where", ["model", "predictor"])
def test_all_completions_of_a_call_can_be_reached(where):
    n = {"n": 2}
    with Server(lambda body, number: two(chat(answer="Paris"), chat(answer="Lyon"))) as server:
        lm = model(server, **(n if where == "model" else {}))
        program = dn.Predict("question -> answer", lm=lm, **(n if where == "predictor" else {}))
        prediction = program.run_sync(question="A city?")
    assert server.bodies[0]["n"] == 2
    assert (prediction.answer, prediction.usage.calls) == ("Paris", 1)
    assert all_of(prediction) == ["Paris", "Lyon"]


@pytest.mark.parametrize(
    ("adapter", "texts"),
    [
        (dn.ChatAdapter(), (chat(answer="1"), chat(answer="2"))),
        (dn.JSONAdapter(), ('{"answer": 1}', '{"answer": 2}')),
    ],
    ids=["chat", "json"],
)
def test_all_completions_have_the_types_of_the_signature(adapter, texts):
    lm = dn.FunctionLM(lambda request: dn.LMReply(texts[0], completions=texts))
    prediction = dn.Predict("question -> answer: int", lm=lm, adapter=adapter, n=2).run_sync(question="A number?")
    assert all_of(prediction) == [1, 2]


def test_all_completions_can_be_reached_when_the_cache_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path))
    with Server(lambda body, number: two(chat(answer="Paris"), chat(answer="Lyon"))) as server, dn.context(cache=True):
        program = dn.Predict("question -> answer", lm=model(server), n=2)
        predictions = [program.run_sync(question="A city?") for _ in range(2)]
    assert len(server.bodies) == 1
    assert [all_of(prediction) for prediction in predictions] == [["Paris", "Lyon"]] * 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of litellm itself
def test_all_completions_can_be_reached_through_litellm():
    with Server(lambda body, number: two(chat(answer="Paris"), chat(answer="Lyon"))) as server:
        program = dn.Predict("question -> answer", lm=model(server, engine="litellm"), n=2)
        assert all_of(program.run_sync(question="A city?")) == ["Paris", "Lyon"]
