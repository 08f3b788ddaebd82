"""Signatures: classes and strings, what they check, and what they refuse."""

from __future__ import annotations

import pickle

import pytest

import dspynb as dn
from dspynb.errors import InputError, SignatureError
from dspynb.signatures import as_signature
from tests.helpers import Caption, chat


def test_the_docstring_is_the_instruction_and_fields_keep_their_order():
    assert Caption.instruction == "Write one sentence about the subject."
    assert list(Caption.input_fields) == ["subject"]
    assert Caption.output_fields["sentence"].desc == "one sentence"


def test_without_a_docstring_the_instruction_names_the_fields_and_a_subclass_inherits_it():
    assert as_signature("a, b -> c").instruction == "Given the fields `a`, `b`, produce the fields `c`."

    class More(Caption):
        tone: str = dn.Output()

    assert More.instruction == Caption.instruction
    assert list(More.output_fields) == ["sentence", "tone"]


def test_the_string_form_takes_names_and_types():
    text = "question, context: list[str] -> answer: float, kind: Literal['a', 'b'], when: Optional[date]"
    assert as_signature(text).describe() == (
        "question: str, context: list[str] -> answer: float, kind: one of: 'a', 'b', when: Optional[datetime.date]"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("question", "one '->'"),
        ("a -> b -> c", "one '->'"),
        ("a ->", "no output"),
        ("a b -> c", "cannot read"),
        ("a -> a", "as input and output"),
        ("a, a -> b", "is repeated"),
        ("a -> b: flot", "Did you mean 'float'"),
        ("a -> b: __import__('os').system('x')", "cannot read the type"),
        ("a=1 -> b", "names and types only"),
        ("a -> to_dict", "cannot be named 'to_dict'"),
    ],
)
def test_an_invalid_signature_string_is_refused(text, problem):
    with pytest.raises(SignatureError, match=problem):
        as_signature(text)


def test_a_class_without_outputs_or_with_an_undeclared_field_is_refused():
    with pytest.raises(SignatureError, match="no output field"):
        type("Empty", (dn.Signature,), {"__annotations__": {"a": str}, "a": dn.Input()})
    with pytest.raises(SignatureError, match="must be declared"):
        type("Loose", (dn.Signature,), {"__annotations__": {"a": str, "b": str}, "b": dn.Output()})
    with pytest.raises(SignatureError, match="class or a string"):
        dn.Predict(5)


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({}, "input 'subject' is missing"),
        ({"subjct": "x"}, r"no input 'subjct' \(Did you mean 'subject'\?\)\."),
        ({"subject": 5}, "input 'subject': Input should be a valid string, got 5"),
    ],
)
def test_missing_extra_and_mistyped_inputs_are_refused_before_any_call(inputs, problem):
    lm = dn.ScriptedLM([])
    with pytest.raises(InputError, match=problem):
        dn.Predict(Caption, lm=lm).run_sync(**inputs)
    assert lm.requests == []


def test_inputs_are_passed_by_name():
    with pytest.raises(InputError, match="by name"):
        dn.Predict(Caption).run_sync("x")


def test_defaults_and_constraints_hold():
    class Count(dn.Signature):
        subject: str = dn.Input()
        words: int = dn.Input(default=5, ge=1)
        sentence: str = dn.Output()

    lm = dn.FunctionLM(lambda r: chat(sentence=r.messages[-1]["content"].split("words ## ]]\n")[1][0]))
    assert dn.Predict(Count, lm=lm).run_sync(subject="x").sentence == "5"
    with pytest.raises(InputError, match="greater than or equal to 1"):
        dn.Predict(Count, lm=lm).run_sync(subject="x", words=0)


def test_the_fingerprint_changes_with_the_signature_and_never_with_a_hint():
    base = Caption.fingerprint()
    assert Caption.with_instruction("Other.").fingerprint() != base
    with dn.hints("hint"):
        assert Caption.fingerprint() == base
    assert Caption.with_instruction(Caption.instruction).fingerprint() == base


@pytest.mark.parametrize("signature", [Caption, as_signature("a -> b: int"), Caption.with_instruction("New.")])
def test_signatures_survive_pickling(signature):
    again = pickle.loads(pickle.dumps(signature))
    assert again.fingerprint() == signature.fingerprint()
