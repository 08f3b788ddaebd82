"""Prompt diffs: nothing is lost, and changes read as words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dspynb.running.tables.diffs import diff_messages, diff_words

words = st.lists(st.sampled_from(["a", "blue", " ", "\n", "sky", ".", "[", "é", "42", "  "])).map("".join)


@given(words, words)
def test_the_pieces_join_to_both_texts(before, after):
    pieces = diff_words(before, after)
    assert "".join(p.text for p in pieces if p.kind != "new") == before
    assert "".join(p.text for p in pieces if p.kind != "gone") == after


@given(words)
def test_equal_texts_have_no_changes(text):
    assert all(p.kind == "same" for p in diff_words(text, text))


def test_a_rewritten_sentence_reads_as_one_change():
    pieces = diff_words("Do it. Hint: use fewer words here", "Do it. Hint: the last reply failed")
    assert [p.kind for p in pieces] == ["same", "gone", "new"]


def test_calls_are_paired_by_predictor_and_turn():
    def call(text):
        return [{"role": "system", "content": text}]

    diff = diff_messages([("a", call("x")), ("a", call("y"))], [("a", call("x")), ("a", call("z")), ("b", call("new"))])
    assert [(m.heading, m.changed) for m in diff.messages] == [
        ("a · system 1", False),
        ("a (call 2) · system 1", True),
        ("b · system 1", True),
    ]
    assert "[-y-]{+z+}" in repr(diff)
