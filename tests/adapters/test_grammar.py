"""Grammars that hold the reply of an embedded model to the form of an adapter and to the types of its outputs."""

from __future__ import annotations

import contextlib
import enum
import pickle
import warnings
from typing import Annotated, Literal

import pydantic
import pytest
from pydantic import BaseModel

import dspynb as dn
from dspynb.adapters.grammar import value_rule
from dspynb.adapters.values import parse_value
from dspynb.errors import ParseError
from tests.adapters.gbnf import language
from tests.helpers import chat


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "so bad"


class Level(enum.Enum):
    LOW = 1
    HIGH = 2


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
        (Mood, {}, ["good", "Good", r"\"good\"", "so bad", "So bad", r"\"so bad\""]),
        (Level, {}, ["1", "LOW", "low", "Low", "2", "HIGH", "high", "High"]),
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
        parse_value(declared, spelling.replace("\\", ""), spelling)
    assert rule.replace(r"\"", "").count('"') == 2 * len(spellings)


@pytest.mark.parametrize("annotation", [str, str | None, dict[str, int], list[dict[str, int]], int | bool, dn.Score])
def test_other_types_are_free_text(annotation):
    try:
        declared = field(annotation)
    except dn.errors.SignatureError:
        pytest.skip("no type of an output")
    assert value_rule(declared) is None


@pytest.mark.parametrize(("constraints", "no"), [({}, "27.x"), ({"le": 30}, "31."), ({"ge": 28}, "27.")])
def test_a_full_stop_may_end_a_whole_number_of_a_decimal_type(constraints, no):
    declared = field(float, **constraints)
    derives = language(f"root ::= {value_rule(declared)}").fullmatch
    assert all(map(derives, ["28.", "28.5", "28"]))
    assert not derives(no)
    assert parse_value(declared, "28.", "28.") == 28


def test_a_list_is_short_json():
    rule = value_rule(field(list[Literal["red", "blue"]]))
    assert rule == r'"[" (("\"red\"" | "\"blue\"") ("," " "? ("\"red\"" | "\"blue\"")){0,9})? "]"'


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
    text = language(f"root ::= {rules[1].removeprefix('value1 ::= ')}")
    assert text.fullmatch("It is late: [[ ## urgency ## ]], <b>today</b>.")
    assert not any(map(text.fullmatch, ["", "a\nb", " a", "[[ ## urgency ## ]]", "<think>", "x" * 401]))


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
@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_only_a_model_that_takes_grammars_gets_one(takes_grammar, adapter):
    lm = Asked(takes_grammar)
    with contextlib.suppress(ParseError):
        dn.Predict(Triage, lm=lm, adapter=adapter).run_sync(message="?")
    assert (lm.requests[0].grammar is not None) == takes_grammar


def test_nested_types_are_held_to_the_schema_of_the_json_adapter():
    signature = Triage.with_field("reason", type=dict[str, int])
    assert dn.JSONAdapter().grammar(signature) is None
    assert "reason" in dn.JSONAdapter().response_format(signature)["properties"]


# ── what a grammar cannot do ──────────────────────────────────────────────────────────────────────────────────────────
class Person(BaseModel):
    name: str
    age: int


class People(dn.Signature):
    """Find the people."""

    text: str = dn.Input()
    people: list[Person] = dn.Output()


def failure(adapter, reply, *, takes_grammar=True):
    lm = dn.FunctionLM(lambda _: reply, name="local/tiny")
    lm.takes_grammar = takes_grammar
    with pytest.raises(dn.DspynbError) as caught:
        dn.Predict(People, lm=lm, adapter=adapter).run_sync(text="?")
    return caught.value


@pytest.mark.parametrize(
    ("adapter", "ways"), [("prefill", "use adapter='json', split it into such outputs, or"), ("json", "split it into")]
)
def test_the_error_for_a_nested_type_names_the_way_out(adapter, ways):
    error = failure(adapter, '{"people": ["Ann, 7"]}')
    assert "local/tiny keeps to Literal, enum, bool, int, float, str and short lists of these" in str(error)
    assert f"not to `people: list[Person]`: {ways}" in str(error)
    assert "or use a larger model, such as dn.LM(" in str(error)
    assert pickle.loads(pickle.dumps(error)).args == error.args


def test_the_error_for_a_reply_that_was_cut_names_the_way_out():
    error = failure("json", dn.LMReply('{"people": [', finish="length"))
    assert "the reply was cut" in str(error)
    assert "nested values: ask for less, or use a larger model" in str(error)


def tiny(reply):
    """A model that is held to grammars and replies with this text."""
    lm = dn.FunctionLM(lambda _: reply, name="local/tiny")
    lm.takes_grammar = lm.constrains = True
    return lm


def test_the_error_for_a_constraint_that_no_grammar_has_names_the_way_out():
    class Airport(dn.Signature):
        text: str = dn.Input()
        code: Annotated[str, pydantic.StringConstraints(pattern="^[A-Z]{3}$")] = dn.Output()

    with pytest.raises(ParseError, match=r"not to patterns, multiples and validators: drop that of `code`"):
        dn.Predict(Airport, lm=tiny(chat(code="abc")), adapter="chat").run_sync(text="?")


def test_a_text_is_ended_at_its_line_only_where_it_is_the_whole_reply():
    for signature, has_stop in (("text -> summary", True), ("text -> summary, title", False)):
        lm = tiny(dn.LMReply("It is", finish="length"))
        with pytest.raises(dn.errors.ReplyTruncated) as caught:
            dn.Predict(signature, lm=lm, adapter="prefill").run_sync(text="?")
        assert ("stop=" in str(caught.value)) is has_stop


Name = Annotated[str, pydantic.Field(max_length=250)]


def test_the_limits_of_a_field_win_over_those_of_the_grammar():
    class Notes(dn.Signature):
        text: str = dn.Input()
        note: Annotated[str, pydantic.Field(max_length=900)] = dn.Output()
        names: Annotated[list[Annotated[str, pydantic.Field(max_length=250)]], pydantic.Field(max_length=25)] = (
            dn.Output()
        )

    grammar = dn.ChatAdapter().grammar(Notes)
    assert "{0,899}" in grammar
    assert "{0,250}" in grammar
    assert "{0,24}" in grammar


def test_an_output_that_is_as_long_as_the_grammar_allows_is_warned_of():
    class Notes(dn.Signature):
        text: str = dn.Input()
        note: str = dn.Output()
        is_long: bool = dn.Output()

    for length, is_cut in ((399, False), (400, True)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ask = dn.Predict(Notes, lm=tiny(chat(note="x" * length, is_long="yes")), adapter="chat")
            assert len(ask.run_sync(text="?").note) == length
        assert [warning.category for warning in caught] == [dn.TruncatedReplyWarning] * is_cut


@pytest.mark.parametrize("reply", ['{"people": ["Ann, 7"]}', dn.LMReply("[", finish="length")])
def test_errors_of_other_models_have_no_such_advice(reply):
    assert "larger model" not in str(failure("chat", reply, takes_grammar=False))


def test_a_recording_does_not_depend_on_the_grammar(tmp_path):
    path = tmp_path / "replies.jsonl"
    ask = dn.Predict(Triage, adapter="chat")
    with dn.context(lm=dn.recorded(path, lm=Asked(True), strict=False)):
        first = ask.run_sync(message="?")
    with dn.context(lm=dn.recorded(path)):
        assert ask.run_sync(message="?").to_dict() == first.to_dict()


class Urgency(dn.Signature):
    """Sort the message."""

    message: str = dn.Input()
    urgency: Literal["low", "high"] = dn.Output(desc="how soon to answer")
    is_complaint: bool = dn.Output()


def test_a_prefilled_prompt_has_the_instruction_and_all_types_before_the_inputs_if_no_output_is_text():
    system, user, _ = dn.PrefillAdapter().format(Urgency, {"message": "Help!"}, hint="think")
    lines = "Urgency: one of: 'low', 'high', how soon to answer\nIs complaint: bool"
    assert system["content"] == f"Sort the message.\n{lines}"
    assert user["content"] == "Message: Help!\n\nHint: think"
    with_text = Urgency.append("reason", dn.Output())
    system, user, _ = dn.PrefillAdapter().format(with_text, {"message": "Help!"})
    assert "Sort" not in system["content"]
    assert user["content"] == f"Message: Help!\n\nSort the message.\n\nAnswer with these lines:\n{lines}\nReason: str"
