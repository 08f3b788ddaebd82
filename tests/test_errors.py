"""Values as errors and views tell them."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from dspynb.errors import shorten


def test_a_long_text_is_cut_in_the_middle_and_tells_how_much_is_left_out():
    assert shorten("the sea " * 20, 20) == "the sea th … [139 characters] … ea the sea"


def test_a_text_is_not_cut_where_telling_so_would_make_it_longer():
    assert shorten("a" * 30, 20) == "a" * 30
    assert shorten("one\n two") == "one two"


@given(st.text(st.characters(exclude_characters="…[]")), st.integers(2, 60))
def test_what_is_kept_and_what_is_left_out_add_up(text, limit):
    whole, cut = " ".join(text.split()), shorten(text, limit)
    assert len(cut) <= len(whole)
    if cut != whole:
        head, left_out, tail = re.fullmatch(r"(.*?) … \[(\d+) characters\] … (.*)", cut).groups()
        assert whole.startswith(head)
        assert whole.endswith(tail)
        assert len(head) + int(left_out) + len(tail) == len(whole)
