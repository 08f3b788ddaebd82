"""Every text that a grammar derives is a reply that the adapter reads, with values of the declared types."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

import dspynb as dn
from dspynb.adapters import Adapter, parse_value
from dspynb.adapters.number_grammar import number_rule
from dspynb.errors import ParseError
from tests.adapters.gbnf import language


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "so bad"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Shape(enum.Enum):
    """Values that are no JSON."""

    POINT = (0, 0)
    LINE = (0, 1)


class Tagged(Adapter):
    """An adapter of a user: ``<name>value</name>`` for each output. It has no grammar of its own."""

    name = "tagged"

    def format_system(self, signature, instruction):
        return instruction

    def format_input(self, signature, inputs, *, instruction, hint=None):
        return str(inputs)

    def format_output(self, signature, outputs):
        return "\n".join(f"<{name}>{value}</{name}>" for name, value in outputs.items())

    def parse(self, signature, reply):
        values = {}
        for name, field in signature.output_fields.items():
            match = re.search(f"<{name}>(.*?)</{name}>(?=$|\n)", reply, re.DOTALL)
            if match is None:
                raise ParseError(f"no <{name}>", raw=reply, stage="locate", field=name)
            values[name] = parse_value(field, match[1], reply)
        return values


ADAPTERS = [dn.PrefillAdapter(), dn.ChatAdapter(), dn.JSONAdapter(), Tagged()]
TYPES = {
    "literal": Literal["positive", "negative"],
    "literal that differs in case": Literal["ab", "AB", "Cd"],
    "literal with odd texts": Literal["", " a", 'q"uote', "back\\slash", "two\nlines", "bell\a", "ünï"],
    "literal of numbers": Literal[1, 2, "two", True, None],
    "enum": Mood,
    "enum of numbers": Level,
    "enum of tuples": Shape,
    "bool": bool,
    "int": int,
    "int with limits": Annotated[int, Field(ge=-5, lt=1250)],
    "int with one limit": Annotated[int, Field(gt=17)],
    "multiple": Annotated[int, Field(multiple_of=25, ge=0)],
    "float": float,
    "float with limits": Annotated[float, Field(gt=0, le=1)],
    "price": Annotated[float, Field(ge=0.5, multiple_of=0.01)],
    "large price": Annotated[float, Field(ge=-5, le=1e12, multiple_of=0.1)],
    "optional literal": Literal["a", "b"] | None,
    "optional int": Annotated[int, Field(ge=1, le=9)] | None,
    "optional bool": bool | None,
    "optional float": float | None,
    "optional list": list[int] | None,
    "list of literals": list[Literal["red", "light blue"]],
    "list of enums": list[Mood],
    "list of bools": tuple[bool, ...],
    "list of numbers": Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=3)],
    "list of floats": Sequence[float],
    "list of texts": list[str],
    "list of optional numbers": list[int | None],
    "set": set[int],
    "pair": tuple[int, str],
    "short text": Annotated[str, Field(min_length=3, max_length=8)],
    "optional text": str | None,
}
SAME = settings(max_examples=12, deadline=None, derandomize=True, database=None)


def signature_of(**outputs):
    names = {"message": (str, dn.Input()), **{name: (type_, dn.Output()) for name, type_ in outputs.items()}}
    body = {"__annotations__": {name: type_ for name, (type_, _) in names.items()}, "__module__": __name__}
    return type("Reply", (dn.Signature,), {**body, **{name: info for name, (_, info) in names.items()}})


def read(adapter, signature, reply):
    """The outputs that a predictor reads from a reply."""
    program = dn.Predict(signature, adapter=adapter, lm=dn.FunctionLM(lambda _: reply))
    with dn.context(runs_dir=None, view="off", cache=False):
        return program.run_sync(message="?")


def check(adapter, signature, data):
    grammar = adapter.grammar(signature)
    if adapter.name == "json" and Shape in [field.core for field in signature.output_fields.values()]:
        assert grammar is None  # JSON has no tuples
        return
    assert grammar is not None
    reply = data.draw(st.from_regex(language(grammar), fullmatch=True, alphabet=st.characters(codec="utf-8")))
    prediction = read(adapter, signature, reply)
    for name, field in signature.output_fields.items():
        assert field.adapter.validate_python(prediction[name]) == prediction[name]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
@given(data=st.data())
@SAME
def test_each_reply_of_a_grammar_can_be_read(adapter, kind, data):
    outputs = {"value": TYPES[kind], "sure": bool} if "text" in kind else {"value": TYPES[kind]}
    check(adapter, signature_of(**outputs), data)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
@given(data=st.data())
@SAME
def test_texts_and_typed_values_mix_in_any_order(adapter, data):
    check(adapter, signature_of(thought=str, urgency=Literal["low", "high"], reason=str | None, urgent=bool), data)


LIKE_THE_FORM = [
    "Reason: none",
    "Urgency: low",
    "reason:",
    "**Reason**: none",
    "[[ ## reason ## ]] none",
    "see [[ ## completed ## ]]",
    "{'urgency': 'low'}",
    '{"thought": "a", "urgency": "low"}',
    "```json",
    "<think>",
    "a</think>",
    "[THINK] a",
    "◁think▷ a",
    "null",
    "None",
    '"quoted"',
    "\\Reason: none",
    "Here is my thought process: a",
    "analysisA",
    "- a",
    "</reason>",
]


@pytest.mark.parametrize("text", LIKE_THE_FORM)
@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_a_text_like_the_form_is_a_text_or_cannot_be_derived(adapter, text):
    signature = signature_of(thought=str, urgency=Literal["low", "high"], reason=str)
    reply = adapter.format_output(signature, {"thought": "T", "urgency": "high", "reason": "R"})
    for message in adapter.opening(signature):
        reply = reply.removeprefix(message["content"])
    derives = language(adapter.grammar(signature)).fullmatch
    assert derives(reply)
    for mark, name in (("T", "thought"), ("R", "reason")):
        escaped = text.replace('"', '\\"') if adapter.name == "json" else text
        changed = re.sub(rf"\b{mark}\b", lambda _, escaped=escaped: escaped, reply)
        if derives(changed):
            prediction = read(adapter, signature, changed)
            assert prediction.urgency == "high"
            assert prediction[name].strip() == text.replace("\\Reason", "Reason")


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_the_form_of_demos_is_that_of_the_grammar(adapter):
    signature = signature_of(mood=Mood, urgent=bool, tags=list[str], score=float, reason=str)
    values = {"mood": Mood.BAD, "urgent": True, "tags": ["a"], "score": 0.5, "reason": "It is late."}
    if adapter.name == "tagged":  # it writes the values of Python
        values = {"mood": "so bad", "urgent": "true", "tags": '["a"]', "score": "0.5", "reason": "It is late."}
    reply = adapter.format_output(signature, values)
    for message in adapter.opening(signature):
        reply = reply.removeprefix(message["content"])
    assert language(adapter.grammar(signature)).fullmatch(reply)


class Reversed(Tagged):
    """Does not read what it writes."""

    def parse(self, signature, reply):
        return super().parse(signature, reply[::-1])


class Failing(Tagged):
    def format_output(self, signature, outputs):
        raise ValueError


class Rigid(dn.ChatAdapter):
    """A subclass that reads another form than the one that it inherits."""

    def parse(self, signature, reply):
        return dict.fromkeys(signature.output_fields, reply)


@pytest.mark.parametrize("adapter", [Reversed(), Failing(), Rigid()], ids=lambda adapter: type(adapter).__name__)
def test_an_adapter_that_does_not_read_what_it_writes_has_no_grammar(adapter):
    assert adapter.grammar(signature_of(urgent=bool)) is None


LIMITS = [
    {"minimum": 0, "maximum": 1},
    {"exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"minimum": -273.15},
    {"minimum": 5},
    {"minimum": -17, "maximum": 230},
    {"minimum": 0.25, "maximum": 1.999},
    {"exclusiveMaximum": 3},
    {"minimum": 1e-6, "maximum": 2e-6},
    {"minimum": -3, "exclusiveMaximum": -1, "maximum": 7},
    {},
]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_number_within_the_limits_can_be_written_and_no_other(limits, is_whole):
    rule = number_rule(limits, is_whole=is_whole)
    numbers = [f"{number}" for number in range(-400, 400)]
    if not is_whole:
        numbers += [f"{number / 1000:.3f}" for number in range(-3000, 3000, 7) if number]
        numbers += ["0.0000015", "-273.1501", "-273.15"]
    derives = language(f"root ::= {rule}").fullmatch if rule else lambda _: None
    for number in numbers:
        value = float(number)
        fits = limits.get("minimum", value) <= value <= limits.get("maximum", value)
        fits = fits and limits.get("exclusiveMinimum", value - 1) < value < limits.get("exclusiveMaximum", value + 1)
        if derives(number):
            assert fits, number
        elif fits and len(number) < 7:
            raise AssertionError(f"{number} cannot be written")
