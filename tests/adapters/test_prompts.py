"""What a model is told of nested types and constraints, and how often a prompt is written."""

from __future__ import annotations

import datetime
import enum
import os
import subprocess
import sys
from typing import Annotated, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

import dspynb as dn
from dspynb.errors import ParseError

ADAPTERS = [dn.ChatAdapter(), dn.JSONAdapter(), dn.PrefillAdapter()]
each_adapter = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda a: a.name)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Person(BaseModel):
    """Somebody who is named."""

    name: str = Field(description="full name", max_length=20)
    born: datetime.date
    age: int | None = Field(None, ge=0, le=150)
    likes: list[Colour] = []
    friends: list[Person] = []
    tag: Annotated[str, Field(pattern="^[a-z]+$")] = "x"


class Find(dn.Signature):
    """Find the people."""

    text: str = dn.Input()
    people: list[Person] = dn.Output(desc="all of them", min_length=1)
    sure: float = dn.Output(ge=0, le=1)
    odd: list[Annotated[int, Field(multiple_of=2)]] = dn.Output()
    note: str | None = dn.Output()


NOTES = """\
`people` is JSON: list of Person, at least 1 item
`odd` is JSON: list of (integer, a multiple of 2)
Colour: "red" or "blue"
Person is an object: Somebody who is named.
- "name": string, at most 20 characters — full name
- "born": date, YYYY-MM-DD
- "age": (integer, at least 0, at most 150) or null, may be left out
- "likes": list of Colour, [] if left out
- "friends": list of Person, [] if left out
- "tag": string, matches ^[a-z]+$, "x" if left out
"""

GOLDEN = {
    "chat": f"""\
Your input fields are:
1. `text` (str)
Your output fields are:
1. `people` (list[Person], at least 1 item): all of them
2. `sure` (float, at least 0, at most 1)
3. `odd` (list[int])
4. `note` (str | None)
{NOTES}
All interactions are structured in the following way, with the values filled in.

[[ ## text ## ]]
{{text}}

[[ ## people ## ]]
{{people}}        # a value of type list[Person]

[[ ## sure ## ]]
{{sure}}        # a value of type float

[[ ## odd ## ]]
{{odd}}        # a value of type list[int]

[[ ## note ## ]]
{{note}}        # a value of type str | None

[[ ## completed ## ]]

Your objective is:
Find the people.""",
    "json": f"""\
Find the people.
- people: all of them; at least 1 item
- sure: at least 0, at most 1
Reply with one JSON object: {{"people": list[Person], "sure": float, "odd": list[int], "note": str | None}}
{NOTES}""".rstrip("\n"),
    "prefill": f"""\
Text: x

Find the people.

Answer with these lines:
People: all of them, at least 1 item
Sure: float, at least 0, at most 1
Odd: list[int]
Note: str | None
{NOTES}""".rstrip("\n"),
}


@each_adapter
def test_nested_types_and_constraints_are_spelled_out(adapter):
    messages = adapter.format(Find, {"text": "x"})
    assert messages[1 if adapter.name == "prefill" else 0]["content"] == GOLDEN[adapter.name]


@each_adapter
def test_a_recursive_model_a_dataclass_and_an_alias_are_described_by_their_json_names(adapter):
    class Node(BaseModel):
        value: int = Field(alias="Value")
        parent: Node | None = None

    signature = type("S", (dn.Signature,), {"__annotations__": {"node": Node}, "node": dn.Output(), "__doc__": "Do."})
    text = str(adapter.format(signature, {}))
    assert '- "Value": integer' in text
    assert '- "parent": Node or null, may be left out' in text
    node = {"node": Node(Value=1, parent=Node(Value=2))}
    assert adapter.parse(signature, adapter.format_output(signature, node)) == node


@each_adapter
def test_the_error_for_a_broken_constraint_names_it(adapter):
    good = {"people": [Person(name="Ada", born=datetime.date(1815, 12, 10))], "sure": 0.5, "odd": [2], "note": None}
    assert adapter.parse(Find, adapter.format_output(Find, good)) == good
    bad = adapter.format_output(Find, {**good, "sure": 1.5})
    with pytest.raises(ParseError, match="less than or equal to 1, got 1.5") as caught:
        adapter.parse(Find, bad)
    assert caught.value.field == "sure"
    worse = adapter.format_output(Find, {**good, "people": [{"name": "A" * 21, "born": "1815-12-10"}]})
    with pytest.raises(ParseError, match=r"0\.name: String should have at most 20 characters"):
        adapter.parse(Find, worse)


class Counting(dn.ChatAdapter):
    """Counts what it writes, outside of itself: an adapter whose attributes change is asked anew."""

    written: ClassVar[list[str]] = []

    def format_system(self, signature, instruction):
        self.written.append("system")
        return super().format_system(signature, instruction)

    def format_output(self, signature, outputs):
        self.written.append("demo")
        return super().format_output(signature, outputs)


class Count(dn.Signature):
    """Count."""

    q: str = dn.Input()
    n: float = dn.Output()
    tags: list[str] = dn.Output()


def test_system_and_demos_are_written_once_for_a_signature_instruction_and_demos():
    Counting.written.clear()
    adapter = Counting()
    for i in range(5):
        adapter.format(Count, {"q": str(i)}, demos=[{"q": "a", "n": 1, "tags": ["x"]}, {"q": "b", "n": 2, "tags": []}])
    assert adapter.written == ["system", "demo", "demo"]
    adapter.format(Count, {"q": "x"}, demos=[{"q": "a", "n": 1, "tags": ["x"]}], instruction="Other.")
    assert adapter.written == ["system", "demo", "demo", "system", "demo"]


class Tag(BaseModel):
    text: str


@pytest.mark.parametrize(
    ("first", "change"),
    [
        ({"q": "a", "n": 1, "tags": ["x"]}, lambda d: d["tags"].append("y")),
        ({"q": "a", "n": 1, "tags": ["x"]}, lambda d: d.update(n=True)),
        ({"q": "a", "n": 1, "tags": ["x"]}, lambda d: d.update(n=1.0)),
        ({"q": "a", "n": 0.0, "tags": ["x"]}, lambda d: d.update(n=-0.0)),
        ({"q": "a", "n": 1, "tags": [Tag(text="x")]}, lambda d: setattr(d["tags"][0], "text", "z")),
        ({"q": "a", "n": 1, "tags": {"x": 1}}, lambda d: d["tags"].update(y=2)),
    ],
)
def test_a_demo_changed_in_place_is_formatted_again(first, change):
    adapter, demos = dn.ChatAdapter(), [first]
    adapter.format(Count, {"q": "x"}, demos=demos)
    change(first)
    fresh = type("Fresh", (dn.ChatAdapter,), {})()
    assert adapter.format(Count, {"q": "x"}, demos=demos) == fresh.format(Count, {"q": "x"}, demos=demos)


def test_a_message_changed_by_its_receiver_does_not_change_the_next_request():
    adapter, demos = dn.ChatAdapter(), [{"q": "a", "n": 1, "tags": []}]
    messages = adapter.format(Count, {"q": "x"}, demos=demos)
    messages[1]["content"] = "spoiled"
    assert "spoiled" not in str(adapter.format(Count, {"q": "x"}, demos=demos))


@each_adapter
@given(q=st.text(), other=st.text())
def test_requests_that_differ_in_inputs_only_share_all_messages_but_the_last_inputs(adapter, q, other):
    demos = [{"q": "a", "n": 1, "tags": ["x"]}]
    first, second = (adapter.format(Count, {"q": text}, demos=demos) for text in (q, other))
    assert first[:3] == second[:3]


SETS = """
import dspynb as dn
from dspynb.events import plain

dn.configure(runs_dir=None)

class Tag(dn.Signature):
    words: set[str] = dn.Input()
    more: frozenset[str] = dn.Output()

requests = []
lm = dn.FunctionLM(lambda request: requests.append(request.messages) or '{"more": ["a", "b"]}')
words = {"one", "two", "three", "four"}
ask = dn.Predict(Tag, lm=lm, adapter="json", demos=[{"words": words, "more": frozenset(words)}])
ask.run_sync(words=words)
print(requests, plain({"words": words}))
"""


def test_a_set_reads_the_same_in_every_process():
    outputs = {
        subprocess.run(
            [sys.executable, "-c", SETS],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in (1, 2, 3)
    }
    (text,) = outputs
    assert b"four" in text
