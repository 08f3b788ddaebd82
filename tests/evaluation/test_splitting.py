"""Splits are disjoint, stratified, repeatable and leak no duplicates; a fingerprint tells when rows changed."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections import Counter
from enum import Enum

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dspynb as dn
from dspynb.errors import InputError

ROWS = [{"id": i, "label": "rare" if i % 10 == 0 else "common"} for i in range(100)]


def ids(part):
    return [row["id"] for row in part]


@given(st.integers(3, 60), st.integers(0, 5), st.floats(0.2, 0.5))
def test_parts_are_disjoint_have_the_requested_sizes_and_keep_the_order(n, seed, share):
    parts = dn.split([{"id": i} for i in range(n)], val=share, test=1, seed=seed)
    assert sorted(i for part in parts for i in ids(part)) == list(range(n))
    assert len(parts.test) == 1
    assert abs(len(parts.val) - share * n) <= 1
    assert all(ids(part) == sorted(ids(part)) for part in parts)


@pytest.mark.parametrize("seed", range(5))
def test_strata_are_as_frequent_in_each_part_as_in_all_rows(seed):
    parts = dn.split(ROWS, train=0.6, val=0.2, test=0.2, seed=seed, stratify="label")
    counts = [Counter(row["label"] for row in part) for part in parts]
    assert [c.total() for c in counts] == [60, 20, 20]
    assert all(abs(c["rare"] - c.total() / 10) <= 1 for c in counts)


def test_the_split_depends_on_the_seed():
    first, repeated, other = (dn.split(ROWS, test=0.3, seed=s) for s in (1, 1, 2))
    assert first == repeated
    assert first.test != other.test
    assert len({tuple(ids(dn.split(ROWS, test=5, seed=s).test)) for s in range(20)}) > 15


def test_equal_rows_stay_together():
    rows = [{"id": i % 20, "label": i % 2} for i in range(60)]
    for seed in range(5):
        parts = dn.split(rows, train=0.5, val=0.25, test=0.25, seed=seed)
        ids_of_parts = [set(ids(part)) for part in parts]
        assert ids_of_parts[0].isdisjoint(ids_of_parts[1] | ids_of_parts[2])
        assert ids_of_parts[1].isdisjoint(ids_of_parts[2])
        assert sum(map(len, parts)) == 60


def test_rows_with_equal_inputs_and_other_labels_stay_together():
    rows = [dn.Example(q=i // 2, a=i).with_inputs("q") for i in range(40)]
    parts = dn.split(rows, test=0.5)
    assert {row.q for row in parts.train}.isdisjoint({row.q for row in parts.test})


def test_a_frame_is_split_into_frames_with_its_index():
    frame = pd.DataFrame(ROWS, index=[5] * 100)
    train, val, test = dn.split(frame, train=10, test=5)
    assert (len(train), len(val), len(test)) == (10, 0, 5)
    assert train.index.unique().tolist() == [5]
    assert list(train.columns) == ["id", "label"]


def test_parts_contain_the_same_row_objects():
    rows = [dn.Example(a=i) for i in range(4)]
    assert all(any(row is original for original in rows) for row in dn.split(rows, test=2).test)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"train": 0.8, "test": 0.3}, "110 rows together, and there are 100"),
        ({"test": 101}, "101 rows together"),
        ({"test": 1.5}, "fraction above 1"),
        ({"test": -1}, "test must be a fraction or a number"),
        ({"test": True}, "test must be"),
        ({"test": "half"}, "test must be"),
        ({"test": float("nan")}, "test must be"),
        ({"test": 0.2, "stratify": "lable"}, "row 0 has no field 'lable'. Did you mean 'label'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(InputError, match=message):
        dn.split(ROWS, **sizes)


def test_a_part_that_would_be_empty_is_refused():
    with pytest.raises(InputError, match="test would be empty"):
        dn.split([{"a": 1}] * 10, test=0.2)
    with pytest.raises(InputError, match="there are no rows"):
        dn.split([], test=0.2)


# ── fingerprints ──────────────────────────────────────────────────────────────────────────────────────────────────────
class Kind(Enum):
    A = "a"


class Thing:
    pass


def test_a_fingerprint_changes_with_value_type_and_order_but_not_with_the_order_of_names():
    base = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert len(dn.fingerprint(base)) == 16
    assert dn.fingerprint(base) == dn.fingerprint([{"b": "x", "a": 1}, dn.Example(b="y", a=2)])
    assert dn.fingerprint(base) == dn.fingerprint(pd.DataFrame(base, index=[3, 3]))
    others = [[base[1], base[0]], base[:1], [{**base[0], "a": "1"}, base[1]], [{**base[0], "a": 1.5}, base[1]]]
    fingerprints = {
        dn.fingerprint(rows) for rows in (base, *others, [{"a": None}], [{"a": float("nan")}], [{"a": True}])
    }
    assert len(fingerprints) == 8


def test_any_value_has_a_fingerprint():
    day = datetime.date(2024, 1, 1)
    values = [
        day,
        {1, 2},
        b"\x00",
        np.arange(3),
        np.int64(3),
        Kind.A,
        Thing(),
        pd.NA,
        pd.Timestamp(day),
        (1, 2),
        "\ud800",
    ]
    for value in values:
        assert dn.fingerprint([{"a": value}]) == dn.fingerprint([{"a": value}])
    assert dn.fingerprint([{"a": Thing()}]) == dn.fingerprint([{"a": Thing()}])
    assert dn.fingerprint([{"a": day}]) != dn.fingerprint([{"a": str(day)}])


def test_a_fingerprint_is_the_same_in_another_process():
    code = "import dspynb as dn; print(dn.fingerprint([{'a': {'x', 'y', 'z'}, 'b': 1.5}]))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == dn.fingerprint([{"a": {"x", "y", "z"}, "b": 1.5}])
