"""Adapters: the prompts they write (golden), the replies they read, and what every adapter must do."""

from __future__ import annotations

import enum
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dspynb as dn
from dspynb.errors import ConfigurationError, ParseError
from dspynb.signatures import as_signature
from tests.helpers import Caption

ADAPTERS = [dn.ChatAdapter(), dn.JSONAdapter(), dn.PrefillAdapter()]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Rich(dn.Signature):
    """Fill in everything."""

    question: str = dn.Input(desc="what is asked")
    context: list[str] = dn.Input()
    final_answer: str = dn.Output(desc="short")
    score: float = dn.Output()
    tags: list[str] = dn.Output()
    colour: Colour = dn.Output()
    sure: bool = dn.Output()
    size: Literal["small", "large"] = dn.Output()


GOLDEN = {
    "chat": """\
<system>
Your input fields are:
1. `question` (str): what is asked
2. `context` (list[str])
Your output fields are:
1. `final_answer` (str): short
2. `score` (float)
3. `tags` (list[str])
4. `colour` (one of: 'red', 'blue')
5. `sure` (bool)
6. `size` (one of: 'small', 'large')

All interactions are structured in the following way, with the values filled in.

[[ ## question ## ]]
{question}

[[ ## context ## ]]
{context}

[[ ## final_answer ## ]]
{final_answer}

[[ ## score ## ]]
{score}        # a value of type float

[[ ## tags ## ]]
{tags}        # a value of type list[str]

[[ ## colour ## ]]
{colour}        # a value of type one of: 'red', 'blue'

[[ ## sure ## ]]
{sure}        # a value of type bool

[[ ## size ## ]]
{size}        # a value of type one of: 'small', 'large'

[[ ## completed ## ]]

Your objective is:
Fill in everything.
<user>
[[ ## question ## ]]
why?

[[ ## context ## ]]
["a","b"]

[[ ## hint ## ]]
think

Respond with `[[ ## final_answer ## ]]`, then `[[ ## score ## ]]`, then `[[ ## tags ## ]]`, then `[[ ## colour ## ]]`, \
then `[[ ## sure ## ]]`, then `[[ ## size ## ]]`, and then the marker `[[ ## completed ## ]]`.
""",
    "json": """\
<system>
Fill in everything.
- question: what is asked
- final_answer: short
Reply with one JSON object: {"final_answer": str, "score": float, "tags": list[str], "colour": one of: 'red', 'blue', \
"sure": bool, "size": one of: 'small', 'large'}
<user>
question: why?
context: ["a","b"]
hint: think
""",
    "prefill": """\
<system>
You are a helpful assistant.
<user>
Question: why?
Context: ["a","b"]

Fill in everything.

Answer with these lines:
Final answer: short
Score: float
Tags: list[str]
Colour: one of: 'red', 'blue'
Sure: bool
Size: one of: 'small', 'large'

Hint: think
<assistant>
Final answer:
""",
}


@pytest.mark.parametrize("adapter", ADAPTERS, ids=repr)
def test_the_prompt_is_the_golden_one(adapter):
    messages = adapter.format(Rich, {"question": "why?", "context": ["a", "b"]}, hint="think")
    assert "".join(f"<{m['role']}>\n{m['content']}\n" for m in messages) == GOLDEN[adapter.name]


@pytest.mark.parametrize("adapter", ADAPTERS, ids=repr)
def test_an_instruction_argument_replaces_that_of_the_signature(adapter):
    text = str(adapter.format(Caption, {"subject": "x"}, instruction="Do it NOW."))
    assert "Do it NOW." in text
    assert Caption.instruction not in text


@pytest.mark.parametrize("adapter", ADAPTERS, ids=repr)
def test_demos_are_turns_that_the_adapter_itself_can_read(adapter):
    demo = {"subject": "sky", "sentence": "Blue sky."}
    messages = adapter.format(Caption, {"subject": "x"}, demos=[demo])
    roles = [m["role"] for m in messages]
    assert roles[:4] == ["system", "user", "assistant", "user"]
    assert adapter.parse(Caption, messages[2]["content"]) == {"sentence": "Blue sky."}


line = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1).filter(
    lambda s: s.strip() == s and "[[ ##" not in s and ":" not in s
)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=repr)
@given(
    answer=line,
    score=st.floats(allow_nan=False, allow_infinity=False),
    tags=st.lists(line),
    colour=st.sampled_from(Colour),
    sure=st.booleans(),
    size=st.sampled_from(["small", "large"]),
)
def test_what_an_adapter_writes_it_reads_back(adapter, answer, score, tags, colour, sure, size):
    outputs = {"final_answer": answer, "score": score, "tags": tags, "colour": colour, "sure": sure, "size": size}
    assert adapter.parse(Rich, adapter.format_output(Rich, outputs)) == outputs


@pytest.mark.parametrize(
    ("kind", "reply", "value"),
    [
        ("int", "The answer is 42.", 42),
        ("int", "about 1,024 of them", 1024),
        ("float", "about -3.5 degrees", -3.5),
        ("bool", "Yes.", True),
        ("bool", "false", False),
        ("list[int]", "```json\n[1, 2]\n```", [1, 2]),
        ("dict[str, int]", '{"a": 1}', {"a": 1}),
        ("Literal['yes', 'no']", "YES.", "yes"),
        ("Optional[int]", "null", None),
    ],
)
def test_values_are_read_as_their_type(kind, reply, value):
    signature = as_signature(f"q -> a: {kind}")
    assert dn.PrefillAdapter().parse(signature, reply) == {"a": value}
    assert dn.ChatAdapter().parse(signature, f"[[ ## a ## ]]\n{reply}\n[[ ## completed ## ]]") == {"a": value}


@pytest.mark.parametrize(
    ("adapter", "reply", "stage", "problem"),
    [
        (dn.ChatAdapter(), "just text", "locate", "no `[[ ## a ## ]]`"),
        (dn.ChatAdapter(), "[[ ## a ## ]]\nmany", "validate", "not a valid int"),
        (dn.JSONAdapter(), "no object", "decode", "no JSON object"),
        (dn.JSONAdapter(), '{"b": 1}', "locate", "no key 'a'"),
        (dn.JSONAdapter(), '{"a": "many"}', "validate", "not a valid int"),
        (dn.PrefillAdapter(), "", "locate", "the reply is empty"),
        (dn.PrefillAdapter(), "between 3 and 5", "validate", "not a valid int"),
        (dn.PrefillAdapter(), "1,2", "validate", "not a valid int"),
    ],
)
def test_a_parse_error_has_the_stage_and_the_problem(adapter, reply, stage, problem):
    with pytest.raises(ParseError) as caught:
        adapter.parse(as_signature("q -> a: int"), reply)
    assert caught.value.stage == stage
    assert caught.value.raw == reply
    assert problem in str(caught.value)


def test_several_outputs_are_read_from_lines_after_the_prefilled_label():
    signature = as_signature("q -> title, body: str")
    assert dn.PrefillAdapter().parse(signature, " A title\nBody: the rest\nof it") == {
        "title": "A title",
        "body": "the rest\nof it",
    }
    with pytest.raises(ParseError, match="no line `Body:`"):
        dn.PrefillAdapter().parse(signature, " A title only")


def test_the_json_adapter_sends_the_schema_only_to_models_that_support_it():
    import asyncio

    free, held = dn.ScriptedLM(['{"a": 1}']), dn.ScriptedLM(['{"a": 1}'])
    held.constrains = True
    for lm in (free, held):
        asyncio.run(dn.Predict("q -> a: int", lm=lm, adapter="json")(q="x"))
    assert free.requests[0].response_format is None
    schema = held.requests[0].response_format
    assert schema["properties"]["a"]["type"] == "integer"
    assert schema["required"] == ["a"]


def test_the_adapter_of_a_model_is_used_unless_the_user_chooses_another():
    import asyncio

    lm = dn.ScriptedLM([" 4", '{"a": "4"}'], adapter="prefill")
    predict = dn.Predict("q -> a", lm=lm)
    assert asyncio.run(predict(q="x")).a == "4"
    with dn.context(adapter="json"):
        assert asyncio.run(predict(q="x")).a == "4"
    with dn.context(adapter="jsn"), pytest.raises(ConfigurationError, match="Did you mean 'json'"):
        asyncio.run(predict(q="x"))


def test_a_parse_failure_names_the_predictor():
    import asyncio

    predict = dn.Predict("q -> a: int", lm=dn.ScriptedLM(["[[ ## a ## ]]\nmany"]))
    with pytest.raises(ParseError) as caught:
        asyncio.run(predict(q="x"))
    assert (caught.value.predictor, caught.value.field, caught.value.stage) == ("self", "a", "validate")
    assert "many" in caught.value.raw


def test_the_json_object_with_all_keys_is_used():
    reply = 'Given {"q": {"answer": "no"}}, I say {"answer": "yes"}'
    assert dn.JSONAdapter().parse(as_signature("q -> answer"), reply) == {"answer": "yes"}
