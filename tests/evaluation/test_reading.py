"""Reading of rows from files: types, mapping of fields, and errors that name the row."""

from __future__ import annotations

import datetime
import gzip
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dspynb as dn
from dspynb.errors import ConfigurationError, InputError
from dspynb.evaluation.data_io.reading import _convert_column


@pytest.fixture
def write(tmp_path):
    def written(name, text, encoding="utf-8"):
        path = tmp_path / name
        opened = gzip.open if name.endswith(".gz") else open
        with opened(path, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode(encoding))
        return path

    return written


def rows(path, **options):
    return [row.to_dict() for row in dn.read_examples(path, **options)]


TWO = [{"q": "ä", "n": 1, "x": [1, {"a": None}]}, {"q": "b", "n": 2.5, "x": True}]


def test_json_and_json_lines_keep_their_types(write):
    lines = "\n\n".join(map(json.dumps, TWO)) + "\n"
    assert rows(write("a.json", json.dumps(TWO))) == rows(write("a.jsonl", lines)) == TWO
    assert rows(write("b.jsonl.gz", lines)) == rows(write("c.NDJSON", lines)) == TWO
    assert rows(write("d.txt", lines), format="jsonl") == TWO


def test_a_byte_order_mark_is_not_part_of_the_data(write):
    assert rows(write("a.csv", "q,n\nä,1\n", "utf-8-sig")) == [{"q": "ä", "n": 1}]
    assert rows(write("a.jsonl", '{"q": 1}\n', "utf-8-sig")) == [{"q": 1}]
    assert rows(write("u.csv", "q\nä\n", "utf-16"), encoding="utf-16") == [{"q": "ä"}]


def test_a_csv_column_is_a_number_only_if_all_its_cells_are(write):
    text = "i,f,b,zip,mixed,gap,na\n1,1.5,true,007,3,,NA\n-2,2e3,False,123,x,4,NA\n"
    first, second = rows(write("a.csv", text))
    assert first == {"i": 1, "f": 1.5, "b": True, "zip": "007", "mixed": "3", "gap": None, "na": "NA"}
    assert second == {"i": -2, "f": 2000.0, "b": False, "zip": "123", "mixed": "x", "gap": 4, "na": "NA"}


@given(st.lists(st.one_of(st.integers(), st.none()), min_size=1))
def test_whole_numbers_of_any_size_survive_a_csv_file(values):
    assert _convert_column(["" if v is None else str(v) for v in values]) == values


def test_csv_cells_may_contain_lines_quotes_and_long_documents(write):
    long = "x" * 200_000
    assert rows(write("a.csv", f'a,b\r\n"1,\r\n""2""",{long}\r\n\r\n')) == [{"a": '1,\r\n"2"', "b": long}]
    assert rows(write("a.tsv", "a\tb\n1,5\t2\n")) == [{"a": "1,5", "b": 2}]


def test_parquet_keeps_integers_missing_values_lists_and_dates(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = [{"n": 1, "tags": ["a"], "day": datetime.date(2024, 2, 29)}, {"n": None, "tags": [], "day": None}]
    pq.write_table(pa.Table.from_pylist(data), tmp_path / "a.parquet")
    parquet_rows = rows(tmp_path / "a.parquet")
    assert parquet_rows == data
    assert type(parquet_rows[0]["n"]) is int


def test_parquet_without_pyarrow_says_what_to_install(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match=r"needs pyarrow: pip install \"pyarrow"):
        rows(write("a.parquet", b"PAR1"))


def test_fields_are_selected_and_renamed_and_inputs_marked(write):
    path = write("a.csv", "Question Text,answer,id\nwhy?,so,3\n")
    (row,) = dn.read_examples(path, fields={"question": "Question Text", "answer": "answer"}, inputs=["question"])
    assert (row.inputs(), row.labels()) == ({"question": "why?"}, {"answer": "so"})
    assert rows(path, fields=["id"]) == [{"id": 3}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "a,b\n1,2\n3\n", r"a\.csv, row 2 \(line 3\): 1 cells, the header has 2"),
        ("a.csv", 'a,b\n1,2\n"x\ny",2,3\n', r"row 2 \(line 4\): 3 cells"),
        ("a.csv", 'a\n1\n"open\n', r"row 2 .*not CSV"),
        ("a.csv", "a,a\n1,2\n", "the column 'a' twice"),
        ("a.csv", "a,\n1,2\n", "a column without a name"),
        ("a.csv", "", "holds no rows"),
        ("a.csv", "a,b\n", "holds no rows"),
        ("a.json", "[]", "holds no rows"),
        ("a.json", '{"data": []}', "a dict with the keys data; it must hold a list of objects"),
        ("a.json", '[{"a": 1},\n{"a": }]', r"a\.json, line 2: not JSON"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", '[{"a": 1}, 3]', r"row 2: 3 is not an object"),
        ("a.jsonl", '{"a": 1}\n\n{"a": \n', r"a\.jsonl, row 2 \(line 3\): not JSON"),
        ("a.jsonl", "[1]\n", r"row 1: \[1\] is not an object"),
        ("a.parquet", "not parquet", "cannot be read as Parquet"),
        ("a.csv", b"a\n\xff\xfe\n", "give encoding="),
    ],
)
def test_the_error_for_a_malformed_file_names_the_place(write, name, text, message):
    with pytest.raises(InputError, match=message):
        rows(write(name, text))


def test_the_error_for_a_missing_field_names_the_row(write):
    path = write("a.jsonl", '{"question": 1}\n{"query": 1}\n')
    with pytest.raises(InputError, match=r"a\.jsonl, row 2: no field 'question'.*There are: query"):
        rows(path, fields=["question"])
    with pytest.raises(InputError, match=r"a\.jsonl, row 2: with_inputs: no field 'question'"):
        rows(path, inputs=["question"])


def test_files_that_cannot_be_read_are_refused(write, tmp_path):
    write("train.csv", "a\n1\n")
    with pytest.raises(ConfigurationError, match="there is no file .*Did you mean 'train.csv'"):
        rows(tmp_path / "trian.csv")
    with pytest.raises(ConfigurationError, match="is a folder"):
        rows(tmp_path, format="csv")
    with pytest.raises(ConfigurationError, match="format=one of json, jsonl, csv, tsv, parquet"):
        rows(write("a.xlsx", ""))
    with pytest.raises(ConfigurationError, match="no encoding 'klingon'"):
        rows(tmp_path / "train.csv", encoding="klingon")
    broken = tmp_path / "b.csv.gz"
    broken.write_bytes(gzip.compress(b"a\n" + b"1\n" * 5000)[:-10])
    with pytest.raises(ConfigurationError, match="cannot be read"):
        rows(broken)
