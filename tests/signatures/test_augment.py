"""Augmentations: where their outputs stand, how they combine, what they refuse."""

from __future__ import annotations

import pytest

import dspynb as dn
from dspynb.errors import ParseError, SignatureError
from tests.helpers import Caption, chat, prompt


class Plan(dn.Augmentation):
    """Steps first."""

    plan: list[str] = dn.Output(desc="the steps")


class Sources(dn.Augmentation, place="after"):
    """Where it comes from."""

    sources: list[str] = dn.Output()


def test_reasoning_stands_before_the_outputs_and_confidence_after():
    both = dn.augment("question -> answer, note", dn.Reasoning, dn.Confidence)
    assert list(both.output_fields) == ["reasoning", "answer", "note", "confidence"]
    assert both.instruction == "Given the fields `question`, produce the fields `answer`, `note`."


def test_the_prompt_asks_for_them_and_the_inner_fields_stay_readable():
    lm = dn.ScriptedLM([chat(reasoning="because", sentence="The sea.", confidence="0.5")])
    prediction = dn.Predict(dn.augment(Caption, dn.Reasoning, dn.Confidence), lm=lm).run_sync(subject="sea")
    assert (prediction.sentence, prediction.reasoning, prediction.confidence) == ("The sea.", "because", 0.5)
    text = prompt(lm.requests[0])
    assert (
        text.index("[[ ## reasoning ## ]]") < text.index("[[ ## sentence ## ]]") < text.index("[[ ## confidence ## ]]")
    )
    assert "think step by step" in text


def test_a_confidence_above_one_is_refused():
    lm = dn.ScriptedLM([chat(sentence="x", confidence="1.5")])
    with pytest.raises(ParseError, match="less than or equal to 1"):
        dn.Predict(dn.augment(Caption, dn.Confidence), lm=lm).run_sync(subject="x")


def test_augmenting_twice_is_augmenting_with_both():
    pairs = [(Plan, dn.Reasoning), (dn.Reasoning, Plan), (dn.Confidence, Sources), (Sources, Plan)]
    for a, b in pairs:
        assert dn.augment(dn.augment(Caption, a), b).same_as(dn.augment(Caption, a, b))
    assert list(dn.augment(Caption, Plan, dn.Confidence, dn.Reasoning, Sources).output_fields) == [
        "plan", "reasoning", "sentence", "confidence", "sources",
    ]  # fmt: skip


def test_the_places_outlive_other_derivations():
    derived = dn.augment(Caption, Plan).with_instruction("New.").append("note", dn.Output())
    assert list(dn.augment(derived, dn.Reasoning).output_fields) == ["plan", "reasoning", "sentence", "note"]


def test_the_signature_that_is_augmented_stays_as_it_was():
    before = Caption.fingerprint()
    dn.augment(Caption, dn.Reasoning)
    assert Caption.fingerprint() == before
    assert list(Caption.output_fields) == ["sentence"]


def test_an_augmentation_may_extend_another_and_keeps_its_place():
    class Graded(Sources):
        grades: list[int] = dn.Output()

    assert list(dn.augment(Caption, Graded).output_fields) == ["sentence", "sources", "grades"]


def test_name_clashes_and_arguments_that_are_no_augmentations_are_refused():
    with pytest.raises(SignatureError, match="Reasoning cannot add the output 'reasoning'"):
        dn.augment("question -> reasoning", dn.Reasoning)
    with pytest.raises(SignatureError, match="cannot add the output 'plan'"):
        dn.augment("plan -> answer", Plan)
    with pytest.raises(SignatureError, match="takes dn.Augmentation classes"):
        dn.augment(Caption, Caption)
    with pytest.raises(SignatureError, match="has outputs only, but 'x' is an input"):
        type("Bad", (dn.Augmentation,), {"__annotations__": {"x": str, "y": str}, "x": dn.Input(), "y": dn.Output()})
    with pytest.raises(SignatureError, match="'before' or 'after'"):

        class Where(dn.Augmentation, place="middle"):
            y: str = dn.Output()
