"""``parse(format_output(x)) == x`` for signatures and values that nobody thought of."""

from __future__ import annotations

import datetime
import enum
import keyword
import math
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, create_model

import dspynb as dn
from dspynb.errors import SignatureError

ADAPTERS = [dn.ChatAdapter(), dn.JSONAdapter(), dn.PrefillAdapter()]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "Blue"
    NUMBER = 1
    DIGIT = "1"


class Shade(enum.StrEnum):
    DARK = "dark"
    NULL = "null"


awkward = st.sampled_from(
    [
        *["[[ ## a ## ]]", "[[ ## completed ## ]]", "\\[[ ## a ## ]]", "**[[##A##]]**"],
        *["A:", "a: b", "Final answer: x", "**B:** 1", "\\A: x", "- x", "1. y", "\\", "\\n", "\\ud800"],
        *["null", "None", '"null"', '""', "true", "yes", "42", "-0.0", "2024-01-01", "'q'"],
        *["{", '{"a": 1}', "[1]", "```", "```json\n1\n```", "<think>", "</think>"],
        *["\u2028", "\ufeff", "\u200b", "\x00", "\r\n"],
    ]
)
plain = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
text = st.one_of(plain, awkward, st.lists(st.one_of(plain, awkward), max_size=5).map("\n".join))
name = st.one_of(
    st.sampled_from(
        ["a", "A", "b", "final_answer", "finalAnswer", "FinalAnswer", "x1", "completed", "answer_", "größe", "名前"]
    ),
    st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True),
).filter(lambda n: not keyword.iskeyword(n) and not hasattr(BaseModel, n) and not hasattr(dn.Signature, n))

zones = st.sampled_from([None, datetime.UTC, datetime.timezone(datetime.timedelta(hours=5, minutes=30))])
LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, text),
    (int, st.integers()),
    (float, st.floats(allow_nan=False)),
    (bool, st.booleans()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (datetime.date, st.dates()),
    (datetime.datetime, st.datetimes(timezones=zones)),
    (datetime.time, st.times()),
    (datetime.timedelta, st.timedeltas(datetime.timedelta(0), datetime.timedelta(days=9999))),
    (Colour, st.sampled_from(Colour)),
    (Shade, st.sampled_from(Shade)),
    (Literal["yes", "no", "No", 1, True], st.sampled_from(["yes", "no", "No", 1, True])),
]
MEMBERS = (Literal[Colour.RED, Colour.DIGIT], st.sampled_from([Colour.RED, Colour.DIGIT]))  # nested, pydantic refuses
leaves = st.sampled_from(LEAVES)


@st.composite
def models(draw, parts):
    """A pydantic model with generated fields, and its instances."""
    fields = draw(st.dictionaries(name, parts, min_size=1, max_size=3))
    model = create_model("Model", **{n: (kind, ...) for n, (kind, _) in fields.items()})
    return model, st.builds(
        lambda values: model(**values), st.fixed_dictionaries({n: v for n, (_, v) in fields.items()})
    )


def containers(parts):
    return st.one_of(
        parts.map(lambda p: (list[p[0]], st.lists(p[1], max_size=3))),
        parts.map(lambda p: (dict[str, p[0]], st.dictionaries(text, p[1], max_size=3))),
        parts.map(lambda p: (p[0] | None, st.none() | p[1])),
        st.tuples(parts, parts).map(lambda two: (tuple[two[0][0], two[1][0]], st.tuples(two[0][1], two[1][1]))),
        models(parts),
    )


types = st.one_of(
    leaves, st.just(MEMBERS), st.recursive(leaves, containers, max_leaves=4), st.just((int | str, st.integers() | text))
)


@st.composite
def signatures(draw):
    """A signature with generated outputs, and values for them."""
    fields = draw(st.dictionaries(name, types, min_size=1, max_size=4))
    space = {"__annotations__": {n: kind for n, (kind, _) in fields.items()}, "__doc__": "Do it."}
    space |= {n: dn.Output() for n in fields}
    try:
        signature = type("Made", (dn.Signature,), space)
    except SignatureError:  # a reserved name
        return draw(signatures())
    return signature, {n: draw(values) for n, (_, values) in fields.items()}


def round_tripped(adapter, field, value):
    """What an adapter promises to keep of a value: all of it, but not the blank ends of a text."""
    if not isinstance(value, str) or isinstance(value, enum.Enum) or adapter.name == "json":
        return value
    if field.annotation not in (str, str | None):
        return value
    if adapter.name == "prefill":
        return value.strip()
    lines = value.split("\n")
    while lines and not lines[0].strip():
        del lines[0]
    shortened = False
    while lines and not lines[-1].strip():
        del lines[-1]
        shortened = True
    whole = "\n".join(lines)
    return whole.removesuffix("\r") if shortened else whole


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda a: a.name)
@settings(deadline=None, max_examples=150)
@given(signature_and_outputs=signatures())
def test_what_an_adapter_writes_it_reads_back_for_any_signature(adapter, signature_and_outputs):
    signature, outputs = signature_and_outputs
    read = adapter.parse(signature, adapter.format_output(signature, outputs))
    expected = {n: round_tripped(adapter, signature.output_fields[n], value) for n, value in outputs.items()}
    assert read == expected
    assert {n: type(v) for n, v in read.items()} == {n: type(v) for n, v in expected.items()}


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda a: a.name)
def test_nan_infinity_and_lone_surrogates_come_back_as_near_as_possible(adapter):
    signature = type(
        "Odd",
        (dn.Signature,),
        {"__annotations__": {"x": list[float], "y": str}, "x": dn.Output(), "y": dn.Output(), "__doc__": "Do it."},
    )
    read = adapter.parse(signature, adapter.format_output(signature, {"x": [math.nan, -math.inf], "y": "a\ud800"}))
    assert math.isnan(read["x"][0])
    assert read["x"][1] == -math.inf
    assert read["y"] == "a\ufffd"
