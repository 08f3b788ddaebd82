"""Tables as a notebook shows them."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from dspynb.running.tables.pages import frame_html


def cells(page):
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]


def test_columns_without_a_value_are_left_out_and_numbers_are_short():
    frame = pd.DataFrame(
        {"text": ["a", "b"], "none": [None, None], "nan": [float("nan")] * 2, "score": [0.123456789, float("nan")],
         "calls": [12345, 0], "ok": [True, False], "list": [["x"], np.array([1, 2])]},
    )  # fmt: skip
    assert cells(frame_html(frame)) == [
        ["", "text", "score", "calls", "ok", "list"],
        ["0", "a", "0.1235", "12,345", "True", "[&#x27;x&#x27;]"],
        ["1", "b", "", "0", "False", "[1 2]"],
    ]


def test_values_are_escaped_and_shortened():
    frame = pd.DataFrame({"<i>": ["<script>", "x" * 5000, "\ud800"]}, index=["<b>", "2", "3"], dtype=object)
    page = frame_html(frame)
    assert "<script" not in page
    assert "<i>" not in page
    assert "<b>" not in page
    assert len(page) < 2500
    page.encode()


def test_texts_are_left_aligned_and_numbers_right_aligned():
    page = frame_html(pd.DataFrame({"text": ["a"], "score": [1.0]}))
    assert re.search("text-align:left[^>]*>a<", page)
    assert re.search("text-align:right[^>]*>1<", page)


def test_an_empty_table_is_rendered():
    assert frame_html(pd.DataFrame()) == frame_html(pd.DataFrame({"a": []}))
