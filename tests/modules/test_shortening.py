"""Requests that are too long are repeated with less text: excerpts, the call, and the advisor of a Refine."""

from __future__ import annotations

import asyncio

import pytest

import dspynb as dn
from dspynb.errors import AdvisorFailedWarning, ContextTooLong
from dspynb.modules.excerpts import excerpt_of_parts
from dspynb.modules.shortening import call_shortened
from tests.helpers import chat, prompt

EXAMPLES = "\n\n".join(f"# Example {number}\n" + f"line {number} of it " * 10 for number in range(1, 9))


def limited(characters, **fields):
    """A model that accepts prompts of up to this many characters, and the prompts that it got."""
    prompts = []

    def answer(request):
        text = prompt(request)
        prompts.append(text)
        if len(text) > characters:
            raise ContextTooLong(f"{len(text)} characters")
        return chat(**fields)

    return dn.FunctionLM(answer), prompts


# ── excerpts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_excerpt_of_examples_has_whole_examples_from_both_ends():
    parts = excerpt_of_parts(EXAMPLES, len(EXAMPLES) // 2).split("\n\n")
    shown = [part for part in parts if part.startswith("# Example")]
    assert all(part in EXAMPLES.split("\n\n") for part in shown)
    assert [part.split("\n")[0] for part in shown] == ["# Example 1", "# Example 2", "# Example 8"]
    assert "characters] …" in parts[2]


def test_an_excerpt_of_code_has_whole_lines():
    code = "\n".join(f"    value_{number} = compute({number})" for number in range(100))
    lines = excerpt_of_parts(code, 1000).split("\n")
    (mark,) = [line for line in lines if line not in code.split("\n")]
    assert mark.startswith("… [")
    assert lines[0] == "    value_0 = compute(0)"
    assert lines[-1] == "    value_99 = compute(99)"


@pytest.mark.parametrize("text", ["", "short", "x" * 200, "a\n\nb"])
def test_a_text_that_fits_stays_as_it_is(text):
    assert excerpt_of_parts(text, 200) == text


@pytest.mark.parametrize("limit", [200, 500, 1000])
@pytest.mark.parametrize(
    "text",
    ["word " * 2000, "x" * 10_000, "a\n\n" + "x" * 10_000 + "\n\nb", "\n" * 10_000, EXAMPLES * 9],
    ids=["words", "letters", "one long paragraph", "empty lines", "examples"],
)
def test_an_excerpt_is_hardly_longer_than_its_limit_and_not_shorter_than_half_of_it(text, limit):
    assert limit // 2 <= len(excerpt_of_parts(text, limit)) <= limit + 40


# ── calls ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_call_that_fits_is_made_once_and_whole():
    lm, prompts = limited(100_000, answer="ok")
    predict = dn.Predict("examples, question -> answer", lm=lm)
    asyncio.run(call_shortened(predict, {"examples": EXAMPLES, "question": "?"}))
    assert len(prompts) == 1
    assert EXAMPLES in prompts[0]


def test_the_longest_texts_are_cut_first_and_short_ones_stay_whole():
    lm, prompts = limited(1800, answer="ok")
    predict = dn.Predict("examples, question, notes: list[str] -> answer", lm=lm)
    inputs = {"examples": EXAMPLES, "question": "The whole question?", "notes": ["short", "n" * 900]}
    asyncio.run(call_shortened(predict, inputs))
    assert "The whole question?" in prompts[-1]
    assert '"short"' in prompts[-1]
    assert len(prompts) == 2
    assert inputs["examples"] == EXAMPLES


def test_the_error_is_raised_once_nothing_can_be_cut_any_more():
    lm, prompts = limited(10, answer="ok")
    predict = dn.Predict("examples -> answer", lm=lm)
    with pytest.raises(ContextTooLong):
        asyncio.run(call_shortened(predict, {"examples": EXAMPLES}))
    lengths = [len(text) for text in prompts]
    assert lengths == sorted(set(lengths), reverse=True)
    assert len(prompts) == 3


def test_inputs_without_text_are_sent_once():
    lm, prompts = limited(10, answer="ok")
    predict = dn.Predict("number: int -> answer", lm=lm)
    with pytest.raises(ContextTooLong):
        asyncio.run(call_shortened(predict, {"number": 3}))
    assert len(prompts) == 1


# ── the advisor of a Refine ───────────────────────────────────────────────────────────────────────────────────────────


def refine(advisor, inner=None):
    inner = inner or dn.FunctionLM(lambda request: chat(answer="short" if "shorter" in prompt(request) else "long"))
    return dn.Refine(
        dn.Predict("text -> answer", lm=inner, instruction="\n\n".join(["Think of all of it. " * 20] * 10)),
        reward=lambda row, prediction: float(prediction.answer == "short"),
        hints="advisor",
        advisor_lm=advisor,
    )


def test_an_advisor_with_a_short_context_gets_a_shorter_prompt():
    advisor, prompts = limited(3500, advice='{"self": "Be shorter."}')
    prediction = refine(advisor).run_sync(text="word " * 300)
    assert prediction.answer == "short"
    assert list(prediction.run.attempts["hint"])[1] == "Be shorter."
    assert [len(text) > 3500 for text in prompts] == [True, True, False]
    assert "characters] …" in field_of(prompts[-1], "program")
    assert prediction.usage.calls == 3


def field_of(text, name):
    return text.rpartition(f"[[ ## {name} ## ]]")[2].partition("[[ ##")[0]


def test_a_replay_sends_the_advisor_the_same_prompts():
    advisor, _ = limited(3500, advice='{"self": "Be shorter."}')
    run = refine(advisor).run_sync(text="word " * 300).run
    silent = dn.ScriptedLM([])
    replay = asyncio.run(dn.replay(run, refine(silent, silent)))
    assert (replay.prediction.answer, replay.exact) == ("short", True)
    assert not silent.requests


def test_an_advisor_for_which_nothing_is_short_enough_fails_as_before():
    advisor, _ = limited(10, advice="{}")
    with pytest.warns(AdvisorFailedWarning, match="ContextTooLong"):
        prediction = refine(advisor).run_sync(text="word " * 300)
    assert prediction.answer == "long"


def test_a_budget_does_not_count_what_the_advisor_was_refused():
    advisor, prompts = limited(3500, advice='{"self": "Be shorter."}')
    with dn.Budget(calls=3) as meter:
        assert refine(advisor).run_sync(text="word " * 300).answer == "short"
    assert (meter.spent["calls"], len(prompts)) == (3, 3)
