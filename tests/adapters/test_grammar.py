"""Grammars that hold the reply of an embedded model to the form of an adapter and to the types of its outputs."""

from __future__ import annotations

import enum
from typing import Literal

import pytest

import dspynb as dn
from dspynb.adapters.grammar import value_rule
from dspynb.adapters.values import parse_value
from tests.helpers import chat


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "so bad"


def field(annotation, **constraints):
    class Spec(dn.Signature):
        text: str = dn.Input()
        value: annotation = dn.Output(**constraints)

    return Spec.output_fields["value"]


@pytest.mark.parametrize(
    ("annotation", "constraints", "spellings"),
    [
        (Literal["a b", "C"], {}, ["a b", "A b", "C", "c"]),
        (Literal[1, 2], {}, ["1", "2"]),
        (Mood, {}, ["good", "Good", "so bad", "So bad"]),
        (bool, {}, ["true", "false", "True", "False", "yes", "no", "Yes", "No"]),
        (int, {"ge": 1, "le": 3}, ["1", "2", "3"]),
        (int, {"gt": 1, "lt": 4}, ["2", "3"]),
        (Literal["x"] | None, {}, ["x", "X", "None", "none", "null"]),
    ],
)
def test_a_value_of_few_spellings_is_one_of_them_and_each_can_be_read(annotation, constraints, spellings):
    declared = field(annotation, **constraints)
    rule = value_rule(declared)
    for spelling in spellings:
        assert f'"{spelling}"' in rule
        parse_value(declared, spelling, spelling)
    assert rule.count('"') == 2 * len(spellings)


@pytest.mark.parametrize("annotation", [str, str | None, dict[str, int], list[dict[str, int]], int | bool, dn.Score])
def test_other_types_are_free_text(annotation):
    try:
        declared = field(annotation)
    except dn.errors.SignatureError:
        pytest.skip("no type of an output")
    assert value_rule(declared) is None


def test_a_list_is_short_json():
    rule = value_rule(field(list[Literal["red", "blue"]]))
    assert rule == r'"[" (("\"red\"" | "\"blue\"") (", " ("\"red\"" | "\"blue\"")){0,9})? "]"'


class Triage(dn.Signature):
    """Sort the message."""

    message: str = dn.Input()
    urgency: Literal["low", "high"] = dn.Output()
    reason: str = dn.Output()
    is_complaint: bool = dn.Output()


def test_the_prefill_adapter_continues_after_its_first_label():
    root, *rules = dn.PrefillAdapter().grammar(Triage).splitlines()
    assert root == r'root ::= " " value0 "\nReason: " value1 "\nIs complaint: " value2'
    assert rules[0] == 'value0 ::= ("low" | "Low" | "high" | "High")'
    assert rules[1] == r"value1 ::= [^\n]{1,400}"


def test_the_chat_adapter_writes_all_markers():
    root = dn.ChatAdapter().grammar(Triage).splitlines()[0]
    assert root.startswith(r'root ::= "[[ ## urgency ## ]]\n" value0 "\n\n[[ ## reason ## ]]\n" value1')
    assert root.endswith(r'value2 "\n\n[[ ## completed ## ]]"')


@pytest.mark.parametrize("adapter", [dn.PrefillAdapter(), dn.ChatAdapter(), dn.JSONAdapter()])
def test_outputs_of_text_alone_have_no_grammar(adapter):
    assert adapter.grammar(dn.Predict("question -> answer, reason").signature) is None


class Asked:
    """A model that records its requests."""

    name, constrains = "asked", True

    def __init__(self, takes_grammar):
        self.takes_grammar = takes_grammar
        self.requests = []

    async def complete(self, request):
        self.requests.append(request)
        return dn.LMReply(chat(urgency="low", reason="r", is_complaint="no"))


@pytest.mark.parametrize("takes_grammar", [True, False])
def test_only_a_model_that_takes_grammars_gets_one(takes_grammar):
    lm = Asked(takes_grammar)
    dn.Predict(Triage, lm=lm, adapter="chat").run_sync(message="?")
    assert (lm.requests[0].grammar is not None) == takes_grammar


def test_a_recording_does_not_depend_on_the_grammar(tmp_path):
    path = tmp_path / "replies.jsonl"
    ask = dn.Predict(Triage, adapter="chat")
    with dn.context(lm=dn.recorded(path, lm=Asked(True), strict=False)):
        first = ask.run_sync(message="?")
    with dn.context(lm=dn.recorded(path)):
        assert ask.run_sync(message="?").to_dict() == first.to_dict()
