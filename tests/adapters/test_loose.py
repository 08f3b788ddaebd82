"""JSON as models write it: what is read, what is refused, and how much work it may cost."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspynb.adapters import lenient_json
from dspynb.adapters.lenient_json import json_values, read_json, read_loose

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_all_json_and_all_python_literals_are_read(value):
    assert read_loose(json.dumps(value)) == value
    assert read_loose(json.dumps(value, ensure_ascii=False, indent=2)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'a': 'it\\'s \"so\"'}", {"a": 'it\'s "so"'}),
        ("{a: None, b-c: True, 3: (1, 2.,)}", {"a": None, "b-c": True, "3": [1, 2.0]}),
        ("[1, # one\n 2, // two\n /* three */ 3,]", [1, 2, 3]),
        ("{“a”: “b”}", {"a": "b"}),
        ("-Infinity", float("-inf")),
        ("[+1, .5, -3e2]", [1, 0.5, -300.0]),
    ],
)
def test_what_models_write_is_read(text, value):
    assert read_loose(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{'a'",
        "{'a': 1",
        "[1 2]",
        "[,]",
        "{a}",
        "{'a': b}",
        "'a",
        "/* a",
        "[1] [2]",
        "1.2.3",
        "__import__('os')",
    ],
)
def test_nothing_is_guessed_and_nothing_evaluated(text):
    with pytest.raises(ValueError, match="character"):
        read_loose(text)


def test_deep_nesting_is_refused_in_every_python_version():
    deep = "[" * 500 + "]" * 500
    assert json.dumps(read_json(deep)) == deep
    assert list(json_values(deep, "{["))
    for nested in (f"[{deep}]", f'{{"a": {deep}}}'):
        with pytest.raises(ValueError, match="nested too deeply"):
            read_json(nested)
        with pytest.raises(ValueError, match="nested too deeply"):
            list(json_values(nested, "{["))
    wide = json.dumps([[]] * 10_000)
    assert len(read_json(wide)) == 10_000


def test_values_in_prose_are_read_but_not_values_inside_damaged_ones():
    assert list(json_values("Set {x}: {'a': {'b': 1}} and {\"c\": 2}.")) == [{"a": {"b": 1}}, {"c": 2}]
    assert list(json_values('{"a": {"b": 1}, oops}')) == []
    with pytest.raises(ValueError, match="character"):
        list(json_values('{"a": {"b": 1}, '))


@pytest.mark.parametrize("noise", ["{", "{'a\" ", '{"a" ', "{'a':1} ", "{a:", "[[1", '{"a": "', "{/*", "{'\\' "])
def test_the_work_is_bounded_whatever_the_noise(noise, monkeypatch):
    starts = []
    steps = []

    class Counted(lenient_json._Reader):
        def __init__(self, text, at):
            starts.append(at)
            super().__init__(text, at)

        def skip_space(self):
            steps.append(self.at)
            return super().skip_space()

    monkeypatch.setattr(lenient_json, "_Reader", Counted)
    text = noise * (1_000_000 // len(noise))
    with contextlib.suppress(ValueError):
        list(json_values(text, "{["))
    assert len(starts) <= 1000
    assert len(steps) <= 20_000
    assert sorted(set(starts)) == starts  # nothing is read twice
