"""Signatures made from signatures: derivation, aliases, validators, generic bases, equality."""

from __future__ import annotations

import datetime
import enum
import pickle
import subprocess
import sys
from typing import Annotated, Generic, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, field_validator, model_validator

import dspynb as dn
from dspynb.errors import InputError, ParseError, SignatureError
from dspynb.signatures import as_signature
from tests.helpers import chat, prompt

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Source(BaseModel):
    title: str
    year: int


class Paint(dn.Signature):
    """Choose a colour."""

    room: str = dn.Input(desc="which room", min_length=2)
    size: int = dn.Input(default=3, ge=1, le=9)
    colour: Colour = dn.Output()
    litres: float = dn.Output(gt=0)


class Typed(dn.Signature, Generic[T]):
    """Read a value."""

    text: str = dn.Input()
    value: T = dn.Output()
    others: list[T] = dn.Output()


class Careful(dn.Signature):
    """Answer."""

    question: str = dn.Input()
    budget: int = dn.Input(default=1)
    answer: str = dn.Output()
    price: float = dn.Output()

    @field_validator("question")
    @classmethod
    def _a_question(cls, value):
        if "?" not in value:
            raise ValueError("a question ends with a question mark")
        return value.strip()

    @field_validator("budget")
    @classmethod
    def _less_than_the_question(cls, value, info):
        assert value < len(info.data["question"]), "too much"
        return value

    @field_validator("price", mode="before")
    @classmethod
    def _without_currency(cls, value):
        return value.removeprefix("$") if isinstance(value, str) else value

    @field_validator("answer")
    @classmethod
    def _short(cls, value):
        if len(value) > 20:
            raise KeyError("long")
        return value.upper()


def names(signature):
    return [*signature.input_fields, "->", *signature.output_fields]


def test_fields_are_put_first_or_last_among_their_own_kind():
    base = as_signature("a -> b")
    assert names(base.prepend("x", dn.Input())) == ["x", "a", "->", "b"]
    assert names(base.append("x", dn.Input())) == ["a", "x", "->", "b"]
    assert names(base.prepend("x", dn.Output(), int)) == ["a", "->", "x", "b"]
    assert names(base.append("x", dn.Output())) == ["a", "->", "b", "x"]
    assert base.append("x", dn.Output(), list[int]).describe() == "a: str -> b: str, x: list[int]"
    assert names(base) == ["a", "->", "b"]


def test_a_field_is_changed_in_its_place_and_keeps_what_is_not_named():
    more = Paint.with_field("size", desc="metres", ge=2)
    assert names(more) == names(Paint)
    size = more.input_fields["size"]
    assert (size.desc, size.annotation, size.info.default) == ("metres", int, 3)
    assert more.check_inputs({"room": "hall"}, "x")["size"] == 3
    with pytest.raises(InputError, match="greater than or equal to 2"):
        more.check_inputs({"room": "hall", "size": 1}, "x")
    with pytest.raises(InputError, match="less than or equal to 9"):
        more.check_inputs({"room": "hall", "size": 10}, "x")
    assert Paint.with_field("room", desc=None).input_fields["room"].desc is None


def test_a_new_type_drops_the_constraints_of_the_old_type():
    words = Paint.with_field("size", type=str, default="big", max_length=4)
    assert words.check_inputs({"room": "hall"}, "x")["size"] == "big"
    with pytest.raises(InputError, match="at most 4"):
        words.check_inputs({"room": "hall", "size": "enormous"}, "x")


def test_a_field_is_replaced_by_a_new_declaration_of_another_kind():
    assert names(Paint.with_field("size", dn.Output(desc="new"))) == ["room", "->", "size", "colour", "litres"]


def test_a_generated_instruction_follows_the_fields_and_a_written_one_stays():
    assert as_signature("a -> b").append("c", dn.Output()).instruction.endswith("`b`, `c`.")
    assert Paint.delete("size").instruction == "Choose a colour."

    class More(as_signature("a -> b")):
        c: str = dn.Output()

    assert More.instruction.endswith("produce the fields `b`, `c`.")


@pytest.mark.parametrize(
    ("derive", "problem"),
    [
        (lambda: Paint.delete("rom"), "no field 'rom'. Did you mean 'room'"),
        (lambda: Paint.delete("colour").delete("litres"), "no output field"),
        (lambda: Paint.append("room", dn.Input()), "has a field 'room' already"),
        (lambda: Paint.append("x", "text"), "must be dn.Input"),
        (lambda: Paint.append("to_dict", dn.Input()), "cannot be named 'to_dict'"),
        (lambda: Paint.with_field("x", desc="y"), "no field 'x'"),
        (lambda: Paint.with_field("room", dn.Input(), desc="y"), "not both"),
        (lambda: Paint.with_instruction(3), "an instruction is text"),
        (lambda: Paint.append("x", dn.Input(dsc="y")), "no setting 'dsc'. Did you mean 'desc'"),
        (lambda: Paint.with_field("room", min_len=3), "no setting 'min_len'"),
        (lambda: Paint.append("_x", dn.Input()), "underscore"),
    ],
)
def test_an_invalid_derivation_is_refused(derive, problem):
    with pytest.raises(SignatureError, match=problem):
        derive()


STEPS = {
    "append": lambda s, n: s.append(f"new{n}", dn.Output(desc=str(n), max_length=n + 1)),
    "prepend": lambda s, n: s.prepend(f"new{n}", dn.Input(ge=n), int),
    "describe": lambda s, n: s.with_field("room", desc=f"room {n}"),
    "bound": lambda s, n: s.with_field("size", le=5 + n),
    "instruct": lambda s, n: s.with_instruction(f"Do {n}."),
    "augment": lambda s, n: dn.augment(s, dn.Confidence) if "confidence" not in s.output_fields else s,
}


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=8))
def test_derivations_compose_and_never_change_what_they_start_from(steps):
    signature = Paint
    earlier_signatures = []
    for n, step in enumerate(steps):
        earlier_signatures.append((signature, signature.fingerprint(), names(signature)))
        signature = STEPS[step](signature, n)
    for earlier, fingerprint, listed in earlier_signatures:
        assert (earlier.fingerprint(), names(earlier)) == (fingerprint, listed)
    for kind in ("append", "prepend"):
        for n, step in enumerate(steps):
            if step == kind:
                assert f"new{n}" in names(signature)
    undone = signature
    for name in set(names(signature)) - set(names(Paint)) - {"->"}:
        undone = undone.delete(name)
    assert names(undone) == names(Paint)
    last = [n for n, step in enumerate(steps) if step == "instruct"]
    assert undone.instruction == (f"Do {last[-1]}." if last else Paint.instruction)


def test_signatures_created_in_different_ways_can_be_equal():
    class Answer(dn.Signature):
        """Answer it."""

        question: str = dn.Input()
        score: float = dn.Output()

    text = as_signature("question -> score: float", "Answer it.")
    built = as_signature("question -> x").append("score", dn.Output(), float).delete("x").with_instruction("Answer it.")
    assert Answer.same_as(text)
    assert text.same_as(built)
    assert Answer != text
    assert not Answer.same_as(text.with_field("score", ge=0))
    assert not Answer.same_as("question -> score: float")


def test_the_fingerprint_changes_with_all_that_a_prompt_or_a_check_depends_on():
    class Other(BaseModel):
        title: str
        year: float

    Other.__name__ = "Source"
    base = as_signature("a -> b").append("source", dn.Output(), Source)
    changes = [
        base,
        base.with_field("a", desc="x"),
        base.with_field("a", min_length=1),
        base.with_field("a", pattern="x"),
        base.with_field("a", pattern="y"),
        base.with_field("a", default="x"),
        base.with_field("a", alias="x"),
        base.with_field("b", type=Colour),
        base.with_field("source", type=Other),
        base.with_field("b", type=Annotated[str, "note"]),
    ]
    assert len({s.fingerprint() for s in changes}) == len(changes)


def test_the_fingerprint_is_the_same_in_another_process():
    code = (
        "from tests.signatures.test_derivation import *;"
        "print(Paint.fingerprint(), Careful.fingerprint(), Typed[Source].fingerprint(),"
        "as_signature('a: set[str] -> b').with_field('a', default={'x', 'y', 'z'}).fingerprint())"
    )
    processes = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2")
    ]
    assert processes[0].stdout == processes[1].stdout
    assert processes[0].stdout.split()[:2] == [Paint.fingerprint(), Careful.fingerprint()]


@pytest.mark.parametrize(
    "signature",
    [
        Typed[int],
        Typed[list[Source]].append("x", dn.Output()),
        Careful.delete("budget"),
        dn.augment(Paint, dn.Reasoning),
        Paint.with_field("room", alias="Room name"),
    ],
)
def test_derived_signatures_survive_pickling(signature):
    again = pickle.loads(pickle.dumps(signature))
    assert again.same_as(signature)
    assert names(again) == names(signature)


def test_a_generic_base_gives_typed_signatures():
    assert Typed[int].describe() == "text: str -> value: int, others: list[int]"
    assert Typed[int].instruction == "Read a value."
    assert Typed[int].fingerprint() != Typed[str].fingerprint()
    lm = dn.ScriptedLM([chat(value="3", others="[1, 2]")])
    assert dn.Predict(Typed[int], lm=lm).run_sync(text="x").others == [1, 2]

    class Dated(Typed[datetime.date]):
        note: str = dn.Output()

    assert list(Dated.output_fields) == ["value", "others", "note"]
    with pytest.raises(SignatureError, match=r"Typed is generic in ~T; choose a type, as in Typed\[str\]"):
        dn.Predict(Typed)


def test_the_error_for_an_unknown_type_says_what_to_do():
    with pytest.raises(SignatureError, match="the type 'list.Missing.' of the field 'a' is not known"):

        class Early(dn.Signature):
            a: list[Missing] = dn.Input()  # noqa: F821
            b: str = dn.Output()


def test_a_type_defined_in_the_same_function_is_resolved():
    class Local(BaseModel):
        x: int

    class Uses(dn.Signature):
        a: Local = dn.Input()
        b: Annotated[str, "a note"] = dn.Output()

    assert Uses.check_inputs({"a": {"x": 1}}, "x")["a"] == Local(x=1)


def test_a_validator_holds_for_inputs_and_may_look_at_the_inputs_before():
    assert Careful.check_inputs({"question": " why? "}, "x")["question"] == "why?"
    with pytest.raises(InputError, match="input 'question': Value error, a question ends"):
        Careful.check_inputs({"question": "why"}, "x")
    with pytest.raises(InputError, match="input 'budget': Assertion failed, too much"):
        Careful.check_inputs({"question": "why?", "budget": 50}, "x")


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_a_validator_holds_for_what_the_model_replies(adapter):
    reply = {"answer": "yes", "price": "$2.5"}
    text = chat(**reply) if adapter == "chat" else '{"answer": "yes", "price": "$2.5"}'
    prediction = dn.Predict(Careful, lm=dn.ScriptedLM([text]), adapter=adapter).run_sync(question="why?")
    assert prediction.to_dict() == {"answer": "YES", "price": 2.5}
    with pytest.raises(ParseError, match="_short raised KeyError: 'long'") as caught:
        dn.Predict(Careful, lm=dn.ScriptedLM([chat(answer="x" * 30, price=1)])).run_sync(question="why?")
    assert caught.value.field == "answer"


def test_validators_go_with_the_fields_of_derived_signatures():
    derived = dn.augment(Careful.with_instruction("New."), dn.Reasoning).delete("budget").append("note", dn.Output())
    with pytest.raises(InputError, match="question mark"):
        derived.check_inputs({"question": "why"}, "x")
    lm = dn.ScriptedLM([chat(reasoning="so", answer="yes", price="$1", note="n")])
    assert dn.Predict(derived, lm=lm).run_sync(question="why?").answer == "YES"


def test_validators_that_look_at_several_fields_are_refused():
    with pytest.raises(SignatureError, match="check each field"):

        class Whole(dn.Signature):
            a: str = dn.Input()
            b: str = dn.Output()

            @model_validator(mode="after")
            def _both(self):
                return self

    with pytest.raises(SignatureError, match="'b' is an output, which is validated by itself"):

        class Looking(dn.Signature):
            a: str = dn.Input()
            b: str = dn.Output()

            @field_validator("b")
            @classmethod
            def _look(cls, value, info):
                return value


class Column(dn.Signature):
    """Read the table."""

    question: str = dn.Input(alias="Question text")
    answer: str = dn.Output(alias="Final answer:")


def test_inputs_and_demos_use_names_or_aliases():
    lm = dn.FunctionLM(lambda r: chat(answer="yes"))
    program = dn.Predict(Column, lm=lm, demos=[{"Question text": "demo?", "Final answer:": "demo!"}])
    for inputs in ({"question": "real?"}, {"Question text": "real?"}):
        text = prompt(program.run_sync(**inputs).calls[0])
        assert all(part in text for part in ("demo?", "demo!", "real?"))
    assert dn.Predict(Column, lm=lm).run_sync(question="x").answer == "yes"
    with pytest.raises(InputError, match="input 'question' is passed twice, by its name and by its alias"):
        program.run_sync(**{"question": "x", "Question text": "y"})
    with pytest.raises(InputError, match="input 'question' is missing"):
        program.run_sync()


def test_prompts_name_fields_and_labels_show_the_alias():
    lm = dn.ScriptedLM([chat(answer="a"), '{"answer": "b"}', "c"])
    for adapter, label in (("chat", "[[ ## question ## ]]"), ("json", "question: x"), ("prefill", "Question text: x")):
        call = dn.Predict(Column, lm=lm, adapter=adapter).run_sync(question="x").calls[0]
        assert label in prompt(call)
    assert call.messages[-1]["content"] == "Final answer:"


def test_an_alias_that_is_used_twice_or_of_another_kind_is_refused():
    with pytest.raises(SignatureError, match="'a' names two fields"):
        as_signature("a, b -> c").with_field("b", alias="a")
    with pytest.raises(SignatureError, match="write the alias as alias="):
        as_signature("b -> c").append("a", dn.Input(validation_alias="x"))


def test_a_field_may_have_the_name_of_a_member_of_pydantic():
    lm = dn.ScriptedLM([chat(json="{}", copy="c", append="a")])
    signature = as_signature("schema, instruction -> json, copy, append")
    assert dn.Predict(signature, lm=lm).run_sync(schema="s", instruction="i").copy == "c"
