"""What every adapter must do with the replies that models really give: read them right, or say what is wrong."""

from __future__ import annotations

import datetime
import enum
import json
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

import dspynb as dn
from dspynb.errors import ParseError

ADAPTERS = [dn.ChatAdapter(), dn.JSONAdapter(), dn.PrefillAdapter()]
each_adapter = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda a: a.name)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Place(BaseModel):
    city: str
    zip_code: str | None = None


class Person(BaseModel):
    name: str
    age: Annotated[int, Field(ge=0)]
    home: Place | None = None


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    day: datetime.date
    colour: Colour


class Both(dn.Signature):
    """Answer."""

    question: str = dn.Input()
    answer: str = dn.Output()
    number: int = dn.Output()


@dataclass(frozen=True)
class Fails:
    """The reply is refused at this stage, with these words."""

    stage: str
    says: str = ""


@lru_cache
def signature_with(kind, *constraints):
    """A signature with one output ``answer`` of this type."""
    space = {"__annotations__": {"question": str, "answer": kind}, "question": dn.Input(), "__doc__": "Answer."}
    return type("One", (dn.Signature,), {**space, "answer": dn.Output(**dict(constraints))})


def reply_with(adapter, text):
    """A reply in the adapter's own form whose ``answer`` is this text."""
    if adapter.name == "json":
        return json.dumps({"answer": text}, ensure_ascii=False)
    return f"[[ ## answer ## ]]\n{text}\n[[ ## completed ## ]]" if adapter.name == "chat" else f" {text}"


def check(adapter, signature, reply, expected):
    if not isinstance(expected, Fails):
        assert adapter.parse(signature, reply) == expected
        return
    with pytest.raises(ParseError) as raised:
        adapter.parse(signature, reply)
    assert raised.value.stage == expected.stage
    assert expected.says in raised.value.problem
    assert raised.value.raw == reply


def limits(**constraints):
    return tuple(constraints.items())


day = datetime.date(2024, 3, 5)
VALUES = [
    # id, type, constraints, what the model wrote, value or failure
    ("text with quotes", str, (), "\"quoted\" and 'so'", "\"quoted\" and 'so'"),
    ("text that is json", str, (), '{"a": [1, 2]}', '{"a": [1, 2]}'),
    ("text that is a number", str, (), "42", "42"),
    ("text with a fence", str, (), "```py\nx = {1: 2}\n```", "```py\nx = {1: 2}\n```"),
    ("text with a marker inside a line", str, (), "see [[ ## answer ## ]] there", "see [[ ## answer ## ]] there"),
    ("text in other scripts", str, (), "שלום \u200f עולם 你好 🌊", "שלום \u200f עולם 你好 🌊"),
    ("text with control characters", str, (), "a\x00b\x07c\x1bd", "a\x00b\x07c\x1bd"),
    ("text with windows line ends", str, (), "a\r\nb", "a\r\nb"),
    ("text with thinking tags inside", str, (), "a <think>b</think> c", "a <think>b</think> c"),
    ("text that breaks its pattern", str, limits(pattern="^a"), "b", Fails("validate", "pattern '^a'")),
    ("text that is too long", str, limits(max_length=3), "abcd", Fails("validate", "at most 3 characters")),
    ("whole number in prose", int, (), "The answer is 42.", 42),
    ("number with thousands", int, (), "about 1,024 of them", 1024),
    ("number in bold", int, (), "**42**", 42),
    ("number in quotes", int, (), '"42"', 42),
    ("number in a fence", int, (), "```\n42\n```", 42),
    ("number with zero-width spaces", int, (), "\u200b42\ufeff", 42),
    ("number with its unit", float, (), "about 1,234.5 kg", 1234.5),
    ("number with a unicode minus", float, (), "it is −3.5 degrees", -3.5),
    ("money", float, (), "$1,234.50", 1234.5),
    ("money in continental form", float, (), "€1.234,50", 1234.5),
    ("millions in words", float, (), "$3.2 million", 3200000.0),
    ("percent of a field of percents", float, limits(le=100), "85 %", 85.0),
    ("percent of a field that is a share", float, limits(ge=0, le=1), "85%", 0.85),
    ("number that is short for what?", float, (), "5k", Fails("validate", "valid number")),
    ("two numbers", int, (), "between 3 and 5", Fails("validate", "valid integer")),
    ("ambiguous comma", int, (), "1,2", Fails("validate", "valid integer")),
    ("number in a name", int, (), "GPT-4", Fails("validate", "valid integer")),
    ("true is no number", int, (), "true", Fails("validate", "valid integer")),
    ("fraction for a whole number", int, (), "3.5", Fails("validate", "valid integer")),
    ("number of 5,000 digits", int, (), "1" * 5000, Fails("validate", "exceeded maximum size")),
    ("number in prose over its bound", int, limits(le=10), "It is 11.", Fails("validate", "less than or equal to 10")),
    ("number that is no multiple", int, limits(multiple_of=5), "7", Fails("validate", "multiple of 5")),
    ("infinity", float, (), "Infinity", float("inf")),
    ("infinity where it is not allowed", float, limits(allow_inf_nan=False), "NaN", Fails("validate", "finite")),
    ("long decimal", Decimal, (), "3.14159265358979323846264", Decimal("3.14159265358979323846264")),
    ("yes with a full stop", bool, (), "Yes.", True),
    ("no with a reason", bool, (), "No, it is not.", False),
    ("python's true in bold", bool, (), "**True**", True),
    ("yes and no", bool, (), "Yes, and no.", Fails("validate", "valid boolean")),
    ("maybe", bool, (), "maybe", Fails("validate", "valid boolean")),
    ("choice in other case", Literal["yes", "no"], (), "YES.", "yes"),
    ("choice in quotes", Literal["yes", "no"], (), "'no'", "no"),
    ("no choice", Literal["yes", "no"], (), "perhaps", Fails("validate", "'yes' or 'no'")),
    ("enum in other case", Colour, (), "Blue", Colour.BLUE),
    ("enum in bold", Colour, (), "**red**", Colour.RED),
    ("enum by its name", Level, (), "high", Level.HIGH),
    ("enum by its number", Level, (), "2", Level.HIGH),
    ("choice of enum members", Literal[Colour.RED], (), "red", Colour.RED),
    ("date in prose", datetime.date, (), "It was on 2024-03-05.", day),
    ("date with a month's name", datetime.date, (), "March 5th, 2024", day),
    ("ambiguous date", datetime.date, (), "05/03/2024", Fails("validate", "valid date")),
    ("year for a date", datetime.date, (), "2024", Fails("validate")),
    ("year for a moment", datetime.datetime, (), "2024", Fails("validate")),
    ("moment", datetime.datetime, (), "2024-03-05T10:00:00", datetime.datetime(2024, 3, 5, 10)),  # noqa: DTZ001
    ("time in prose", datetime.time, (), "at 3:30 pm", datetime.time(15, 30)),
    ("span in words", datetime.timedelta, (), "2 hours and 30 minutes", datetime.timedelta(minutes=150)),
    ("null for an optional", int | None, (), "null", None),
    ("none in words for an optional", int | None, (), "None.", None),
    ("null for a number", int, (), "null", Fails("validate", "valid integer")),
    ("text for a union", int | str, (), "four", "four"),
    ("list in a fence", list[int], (), "```json\n[1, 2]\n```", [1, 2]),
    ("list in prose", list[int], (), "They are [1, 2], I think.", [1, 2]),
    ("list with a trailing comma and quotes", list[str], (), "['a', \"b's\",]", ["a", "b's"]),
    ("list with comments", list[int], (), "[1, // one\n 2 /* two */]", [1, 2]),
    ("bullets", list[str], (), "Here:\n- a\n* b: c\n• d", ["a", "b: c", "d"]),
    ("numbered lines", list[int], (), "1. 10\n2. 20", [10, 20]),
    ("two lists in prose", list[int], (), "Either [1] or [2].", Fails("validate", "valid list")),
    ("list that is cut off", list[int], (), "[1, 2", Fails("decode", "cannot be read")),
    ("list that is too long", list[int], limits(max_length=1), "[1, 2]", Fails("validate", "at most 1 item")),
    ("mapping with bare keys", dict[str, int], (), "{a: 1, b: 2}", {"a": 1, "b": 2}),
    ("model in prose", Person, (), 'Sure: {"name": "Ada {x}", "age": 36}!', Person(name="Ada {x}", age=36)),
    (
        "nested model as python writes it",
        Person,
        (),
        "{'name': 'Ada', 'age': 36, 'home': {'city': 'London', 'zip_code': None}}",
        Person(name="Ada", age=36, home=Place(city="London")),
    ),
    (
        "list of models",
        list[Place],
        (),
        '```\n[{"city": "A"},\n {"city": "B"}]\n```',
        [Place(city="A"), Place(city="B")],
    ),
    ("strict model", Strict, (), '{"day": "2024-03-05", "colour": "red"}', Strict(day=day, colour=Colour.RED)),
    ("model with a broken constraint", Person, (), '{"name": "Ada", "age": -1}', Fails("validate", "age: ")),
    ("model with a missing part", Person, (), '{"name": "Ada"}', Fails("validate", "age: Field required")),
    ("model that is cut off", Person, (), '{"name": "Ada", "home": {"city": "X"}', Fails("decode", "cannot be read")),
    ("model with keys twice", Person, (), '{"name": "A", "name": "B", "age": 1}', Person(name="B", age=1)),
    ("half a surrogate pair, escaped", list[str], (), '["a\\ud83d"]', ["a\ufffd"]),
    (
        "fence inside a fence",
        dict[str, str],
        (),
        '```json\n{"code": "```py\\nx\\n```"}\n```',
        {"code": "```py\nx\n```"},
    ),
    ("very deep json", list[Any], (), "[" * 5000 + "]" * 5000, Fails("decode")),
]


@each_adapter
@pytest.mark.parametrize(
    ("kind", "constraints", "text", "expected"), [v[1:] for v in VALUES], ids=[v[0] for v in VALUES]
)
def test_a_value_is_read_as_its_type_or_refused(adapter, kind, constraints, text, expected):
    expected = expected if isinstance(expected, Fails) else {"answer": expected}
    check(adapter, signature_with(kind, *constraints), reply_with(adapter, text), expected)


ok = {"answer": "sky", "number": 3}
CHAT = "[[ ## answer ## ]]\nsky\n\n[[ ## number ## ]]\n3\n\n[[ ## completed ## ]]"
JSON = '{"answer": "sky", "number": 3}'
PREFILL = " sky\nNumber: 3"
GOOD = {"chat": CHAT, "json": JSON, "prefill": PREFILL}

AROUND = [
    ("nothing", "", Fails("locate", "empty")),
    ("white space", " \n\t\r\n ", Fails("locate", "empty")),
    ("unseen characters only", "\ufeff\u200b \u200f", Fails("locate", "empty")),
    ("thinking that does not end", "<think>hm, " + "{good}", Fails("locate", "thinking")),
    ("thinking before", "<think>\nanswer: 5? {{\n[[ ## answer ## ]]\n</think>\n\n{good}", ok),
    ("thinking in capitals", "<THINK>hm</THINK>{good}", ok),
    ("a byte order mark", "\ufeff{good}", ok),
    ("a right-to-left mark", "\u200f{good}", ok),
    ("white space around", "\n\n{good}  \n\n", ok),
]


@each_adapter
@pytest.mark.parametrize(("reply", "expected"), [a[1:] for a in AROUND], ids=[a[0] for a in AROUND])
def test_what_stands_around_a_reply_does_not_matter(adapter, reply, expected):
    check(adapter, Both, reply.replace("{good}", GOOD[adapter.name]).replace("{{", "{"), expected)


FORMS = [
    # id, adapter, reply, outputs or failure
    ("plain", "chat", CHAT, ok),
    ("other order", "chat", "[[ ## number ## ]]\n3\n[[ ## answer ## ]]\nsky", ok),
    ("no end marker", "chat", "[[ ## answer ## ]]\nsky\n[[ ## number ## ]]\n3", ok),
    ("end marker twice", "chat", CHAT + "\n\n[[ ## completed ## ]]\n", ok),
    ("end marker on the line", "chat", "[[ ## number ## ]]\n3\n[[ ## answer ## ]] sky [[ ## completed ## ]]", ok),
    ("values on the markers' lines", "chat", "[[ ## answer ## ]] sky\n[[ ## number ## ]] 3\n[[ ## completed ## ]]", ok),
    ("no spaces in markers", "chat", "[[##answer##]]\nsky\n[[##number##]]\n3", ok),
    ("markers in other case", "chat", "[[ ## Answer ## ]]\nsky\n[[ ## NUMBER ## ]]\n3", ok),
    ("bold markers", "chat", "**[[ ## answer ## ]]**\nsky\n**[[ ## number ## ]]**\n3", ok),
    ("markers as headings", "chat", "### [[ ## answer ## ]]\nsky\n### [[ ## number ## ]]\n3", ok),
    ("windows line ends", "chat", CHAT.replace("\n", "\r\n"), ok),
    ("prose before", "chat", "Sure, here you are:\n\n" + CHAT, ok),
    ("prose after", "chat", CHAT + "\nLet me know!", ok),
    ("all in a fence", "chat", "```\n" + CHAT.removesuffix("\n\n[[ ## completed ## ]]") + "\n```", ok),
    ("fields twice", "chat", CHAT + "\n[[ ## answer ## ]]\nother\n[[ ## number ## ]]\n4", ok),
    ("unknown markers", "chat", "[[ ## answer ## ]]\nsky\n[[ ## mood ## ]]\nblue\n[[ ## number ## ]]\n3", ok),
    ("a field missing", "chat", "[[ ## answer ## ]]\nsky\n[[ ## completed ## ]]", Fails("locate", "number")),
    (
        "a field empty",
        "chat",
        "[[ ## answer ## ]]\nsky\n[[ ## number ## ]]\n\n[[ ## completed ## ]]",
        Fails("validate"),
    ),
    ("bold labels", "chat", "**Answer:** sky\n**Number:** 3", ok),
    ("labels", "chat", "Answer: sky\nNumber: 3", ok),
    ("json", "chat", f"```json\n{JSON}\n```", ok),
    ("refusal", "chat", "I'm sorry, but I can't help with that.", Fails("locate", "answer")),
    ("null", "chat", "null", Fails("locate")),
    ("half a json", "chat", JSON[:-5], Fails("locate")),
    ("half a surrogate pair", "chat", CHAT.replace("sky", "sk\ud83dy"), {**ok, "answer": "sk\ufffdy"}),
    ("plain", "json", JSON, ok),
    ("in a fence", "json", f"Sure:\n```json\n{JSON}\n```\nBye {{x}}", ok),
    ("in prose", "json", f"I {{think}} it is {JSON}, or so.", ok),
    ("other order", "json", '{"number": 3, "answer": "sky"}', ok),
    ("other case of keys", "json", '{"Answer": "sky", "NUMBER": 3}', ok),
    ("number as text", "json", '{"answer": "sky", "number": "3"}', ok),
    ("more keys", "json", '{"mood": {"answer": 1}, "answer": "sky", "number": 3}', ok),
    ("as python writes it", "json", "{'answer': 'sky', 'number': 3,}", ok),
    ("bare keys and comments", "json", "{answer: 'sky', // so blue\n number: 3}", ok),
    ("line breaks in a text", "json", '{"answer": "s\nky", "number": 3}', {**ok, "answer": "s\nky"}),
    ("braces in a text", "json", '{"answer": "}{ {\\"a\\": 1}", "number": 3}', {**ok, "answer": '}{ {"a": 1}'}),
    ("a wrong object before", "json", f'Given {{"q": {JSON}}}, I say {JSON}', ok),
    ("two objects", "json", f'{JSON}\n{{"answer": "sea", "number": 4}}', ok),
    ("keys twice", "json", '{"answer": "sea", "answer": "sky", "number": 3}', ok),
    ("in a list", "json", f"[{JSON}]", ok),
    ("a key missing", "json", '{"answer": "sky"}', Fails("locate", "'number'")),
    ("null for a text", "json", '{"answer": null, "number": 3}', Fails("validate", "valid str")),
    ("number for a text", "json", '{"answer": 5, "number": 3}', {**ok, "answer": "5"}),
    ("true for a number", "json", '{"answer": "sky", "number": true}', Fails("validate")),
    ("cut off", "json", '{"answer": "sky", "number": 3', Fails("decode", "not whole")),
    ("cut off within a text", "json", '{"answer": "sky is', Fails("decode", "not whole")),
    ("cut off behind a whole object inside", "json", f'{{"reply": {JSON}, "more": ', Fails("decode", "not whole")),
    ("nested 100,000 deep", "json", '{"answer":' * 100_000, Fails("decode", "too deep")),
    ("refusal", "json", "I'm sorry, but I can't help with that.", Fails("decode", "no JSON object")),
    ("null", "json", "null", Fails("decode", "no JSON object")),
    ("plain", "prefill", PREFILL, ok),
    ("its own label again", "prefill", "Answer: sky\nNumber: 3", ok),
    ("labels in bold", "prefill", "**Answer:** sky\n**Number:** 3", ok),
    ("labels in other case", "prefill", " sky\nNUMBER : 3", ok),
    ("field names as labels", "prefill", "answer: sky\nnumber: 3", ok),
    ("other order", "prefill", "Number: 3\nAnswer: sky", ok),
    ("labels twice", "prefill", PREFILL + "\nNumber: 4", ok),
    ("text of several lines", "prefill", " sky\nand sea\nNumber: 3", {**ok, "answer": "sky\nand sea"}),
    ("a label missing", "prefill", " sky", Fails("locate", "Number:")),
    ("the first left out", "prefill", " \nNumber: 3", Fails("locate", "Answer:")),
    ("refusal", "prefill", "I'm sorry, but I can't help with that.", Fails("locate")),
    ("a dotless letter in a label", "prefill", " sky\nNumber: 3\nAnſwer: x", ok),
]


@pytest.mark.parametrize(("name", "reply", "expected"), [f[1:] for f in FORMS], ids=[f"{f[1]}: {f[0]}" for f in FORMS])
def test_the_form_of_a_reply_is_read_as_models_write_it(name, reply, expected):
    check(next(a for a in ADAPTERS if a.name == name), Both, reply, expected)


NOISE = ["{", "[", "'", '"', "\\", "{'a", '{"a":', "[[ ## ", "[[ ## a ## ]]\n", "/*", "**", "1,", "- ", "a" * 99 + "\n"]


@each_adapter
@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", [str, int, list[int], datetime.date], ids=str)
def test_a_megabyte_of_anything_is_read_or_refused_at_once(adapter, kind):
    messages = []
    for noise in NOISE:
        for reply in (noise * (1_000_000 // len(noise)), reply_with(adapter, noise * (1_000_000 // len(noise)))):
            try:
                read = adapter.parse(signature_with(kind), reply)["answer"]
            except ParseError as error:
                messages.append(str(error))
            else:
                assert kind is str
                assert isinstance(read, str)
    assert max(map(len, messages), default=0) < 2000


@each_adapter
@pytest.mark.parametrize(
    "text", ["[[ ## answer ## ]]\nno", "\\[[ ## number ## ]]", "Number: 5\nAnswer: no", '{"answer": 1}']
)
def test_inputs_and_demos_that_look_like_the_form_of_a_reply_break_nothing(adapter, text):
    demo = {"question": text, "answer": text, "number": 3}
    messages = adapter.format(Both, {"question": text}, demos=[demo])
    assert adapter.parse(Both, messages[2]["content"]) == {"answer": text, "number": 3}
    if adapter.name == "chat":
        last = messages[-1]["content"]
        assert last.count("\n[[ ## ") == 0  # only the marker of `question` begins a line
        assert last.startswith("[[ ## question ## ]]\n")
