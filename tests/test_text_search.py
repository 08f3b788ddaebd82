"""Searches in long texts, one block after another."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dspynb as dn
from dspynb import text_search, thinking
from dspynb.adapters import lenient_json
from dspynb.text_search import find_all, search
from tests.helpers import chat

TAG = re.compile(r"</[ ]{0,3}(?:think|thinking)>|\{(?=\s*\")")
TEXTS = st.lists(st.sampled_from(["</think>", "</ thinking>", "</think", "{", '{ "', "x", " ", "<"]), max_size=40)


@given(text=TEXTS.map("".join), block=st.integers(1, 30), position=st.integers(0, 20))
def test_a_search_in_blocks_has_the_matches_of_a_search_in_one(text, block, position):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_search, "BLOCK", block)
        match = search(TAG, text, position, longest=50)
        first = None if match is None else match.span()
        every = [one_match.span() for one_match in find_all(TAG, text, longest=50)]
    expected = [one_match.span() for one_match in TAG.finditer(text, position)]
    assert first == (expected[0] if expected else None)
    assert every == [one_match.span() for one_match in TAG.finditer(text)]


class Watched:
    """A pattern that notes how many characters each of its searches covers."""

    def __init__(self, pattern):
        self.pattern = pattern
        self.covered = []

    def search(self, text, start=0, end=None):
        end = len(text) if end is None else end
        self.covered.append(end - start)
        return self.pattern.search(text, start, end)


@pytest.mark.parametrize("unit", ["{", "<", "</", "[", "<think>x", "{ "])
@pytest.mark.parametrize("adapter", [dn.ChatAdapter(), dn.JSONAdapter(), dn.PrefillAdapter()])
def test_no_search_in_a_reply_of_megabytes_covers_more_than_a_block(unit, adapter, monkeypatch):
    watched = {name: Watched(pattern) for name, pattern in lenient_json._STARTS.items()}
    monkeypatch.setattr(lenient_json, "_STARTS", watched)
    tags = thinking.tags_beside(())
    closing = Watched(tags.any_closing)
    monkeypatch.setattr(tags, "any_closing", closing)
    signature = dn.Predict("question -> answer").signature
    monkeypatch.setattr("dspynb.adapters.base.tags_beside", lambda outputs: tags)
    text = unit * (3 * text_search.BLOCK)
    adapter.split_thinking(signature, text)
    thinking.closing_tags(text, 8, tags)
    lengths = [length for pattern in (*watched.values(), closing) for length in pattern.covered]
    assert max(lengths, default=0) <= text_search.BLOCK + 2**12


def test_what_is_behind_many_blocks_is_read():
    noise = "{" * (3 * text_search.BLOCK)
    assert list(lenient_json.json_values(f'{noise} {{"a": 1}}'))[-1:] == [{"a": 1}]
    signature = dn.Predict("question -> answer").signature
    split = dn.ChatAdapter().split_thinking(signature, f"{noise}</think>\n{chat(answer='Paris')}")
    assert (split.thinking, split.text.strip()) == (noise, chat(answer="Paris"))
