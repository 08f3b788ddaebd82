"""Rows from files: JSON, JSON lines, CSV and Parquet."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from dspynb.data import Example
from dspynb.errors import ConfigurationError, InputError, nearest, shorten

__all__ = ["read_examples"]

_FORMATS = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,999})")
_DECIMAL = re.compile(r"-?(0|[1-9]\d{0,300})(\.\d+)?([eE][-+]?\d{1,3})?")
_LONGEST_CELL = 2**31 - 1

Row = tuple[str, dict[str, Any]]
"""Where a row stands, for messages, and its values."""


def read_examples(
    path: str | Path,
    *,
    fields: Mapping[str, str] | Sequence[str] | None = None,
    inputs: Sequence[str] | None = None,
    format: str | None = None,  # noqa: A002  # what it is called elsewhere
    encoding: str = "utf-8-sig",
) -> list[Example]:
    """Rows from a ``.json`` (a list of objects), ``.jsonl``, ``.csv``, ``.tsv`` or ``.parquet`` file; all but Parquet
    also with ``.gz``.

    ``fields``: the columns to take, as names or as ``{name here: name in the file}``; all by default. ``inputs``: which
    fields are inputs, the rest being labels. ``format``: where the file's name does not tell. JSON and Parquet keep
    their types. In CSV, a column is int, float or bool if all its cells are (``007`` is text, and so is its column);
    an empty cell is None. Parquet needs pyarrow.

    Raises ConfigurationError for a file that is not there or of an unknown format, and InputError for what is wrong in
    it, with the number of the row (from 1, without the header).

    >>> from pathlib import Path
    >>> _ = Path("rows.csv").write_text("question,answer,year\\nWho painted it?,Monet,1872\\n")
    >>> dn.read_examples("rows.csv", inputs=["question"])
    [Example(question='Who painted it?', answer='Monet', year=1872)]
    """
    file = Path(path).expanduser()
    kind = _format(file, format)
    _check_there(file)
    mapping = _mapping(fields)
    rows = [_mapped(file, where, row, mapping) for where, row in _rows(file, kind, encoding)]
    if not rows:
        raise InputError(f"{file.name} holds no rows")
    if inputs is not None:
        names = [inputs] if isinstance(inputs, str) else list(inputs)
        return [_marked(f"{file.name}, row {i}", row, names) for i, row in enumerate(rows, 1)]
    return rows


def _format(file: Path, given: str | None) -> str:
    suffix = Path(file.name.lower().removesuffix(".gz")).suffix
    kind = _FORMATS.get(suffix, "") if given is None else str(given).lower()
    if kind not in _FORMATS.values():
        known = ", ".join(dict.fromkeys(_FORMATS.values()))
        what = f"of the unknown format {given!r}" if given is not None else "of a format its name does not tell"
        raise ConfigurationError(f"{file.name} is {what}; give format=one of {known}")
    return kind


def _check_there(file: Path) -> None:
    if file.is_file():
        return
    if file.is_dir():
        raise ConfigurationError(f"{file} is a folder; give a file in it")
    beside = [p.name for p in file.parent.iterdir() if p.is_file()] if file.parent.is_dir() else []
    raise ConfigurationError(f"there is no file {file}.{nearest(file.name, beside)}")


def _mapping(fields: Any) -> dict[str, str] | None:
    if fields is None or isinstance(fields, Mapping):
        return None if fields is None else {str(k): str(v) for k, v in fields.items()}
    return {str(name): str(name) for name in ([fields] if isinstance(fields, str) else fields)}


def _mapped(file: Path, where: str, row: dict[str, Any], mapping: Mapping[str, str] | None) -> Example:
    if mapping is None:
        return Example(row)
    for source in mapping.values():
        if source not in row:
            known = ", ".join(row) or "none"
            raise InputError(f"{file.name}, {where}: no field {source!r}.{nearest(source, row)} There are: {known}")
    return Example({name: row[source] for name, source in mapping.items()})


def _marked(where: str, row: Example, inputs: list[str]) -> Example:
    try:
        return row.with_inputs(*inputs)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _rows(file: Path, kind: str, encoding: str) -> Iterator[Row]:
    if kind == "parquet":
        yield from _parquet_rows(file)
        return
    try:
        with _opened(file, encoding) as stream:
            if kind == "json":
                yield from _json_rows(file, stream)
            elif kind == "jsonl":
                yield from _jsonl_rows(file, stream)
            else:
                yield from _csv_rows(file, stream, "\t" if kind == "tsv" else ",")
    except UnicodeError as error:
        raise InputError(
            f"{file.name} is not {encoding} ({error}); give encoding=, e.g. 'latin-1' or 'utf-16'"
        ) from None
    except LookupError:
        raise ConfigurationError(f"there is no encoding {encoding!r}") from None
    except (OSError, EOFError) as error:  # a broken gzip file is both
        raise ConfigurationError(f"{file} cannot be read: {error}") from None


def _opened(file: Path, encoding: str) -> IO[str]:
    if file.suffix.lower() == ".gz":
        return gzip.open(file, "rt", encoding=encoding, newline="")
    return file.open(encoding=encoding, newline="")


def _json_rows(file: Path, stream: IO[str]) -> Iterator[Row]:
    try:
        body = json.load(stream)
    except json.JSONDecodeError as error:
        raise InputError(f"{file.name}, line {error.lineno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise InputError(f"{file.name}: nested too deeply") from None
    if not isinstance(body, list):
        keys = f" with the keys {shorten(', '.join(body), 120)}" if isinstance(body, dict) else ""
        raise InputError(f"{file.name} holds a {type(body).__name__}{keys}; it must hold a list of objects")
    for i, row in enumerate(body, 1):
        yield _object(file, f"row {i}", row)


def _jsonl_rows(file: Path, stream: IO[str]) -> Iterator[Row]:
    number = 0
    for line, text in enumerate(stream, 1):
        if not text.strip():
            continue
        number += 1
        where = f"row {number}" + (f" (line {line})" if line != number else "")
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            problem = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
            raise InputError(f"{file.name}, {where}: not JSON: {problem}: {shorten(text, 80)}") from None
        yield _object(file, where, row)


def _object(file: Path, where: str, row: Any) -> Row:
    if not isinstance(row, dict):
        raise InputError(f"{file.name}, {where}: {shorten(repr(row), 80)} is not an object with named fields")
    return where, row


def _csv_rows(file: Path, stream: IO[str], delimiter: str) -> Iterator[Row]:
    header, rows = _cells(file, stream, delimiter)
    columns = [_typed([cells[i] for _, cells in rows]) for i in range(len(header))]
    for n, (where, _) in enumerate(rows):
        yield where, {name: column[n] for name, column in zip(header, columns, strict=True)}


def _cells(file: Path, stream: IO[str], delimiter: str) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The header, and the cells of each row with where it stands."""
    limit = csv.field_size_limit(_LONGEST_CELL)  # else a long document in a cell is refused
    try:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        header = [name.strip() for name in next(reader, [])]
        _check_header(file, header)
        rows: list[tuple[str, list[str]]] = []
        for cells in _nonblank(file, reader, rows):
            where = f"row {len(rows) + 1}"
            if len(cells) != len(header):
                raise InputError(
                    f"{file.name}, {where} (line {reader.line_num}): {len(cells)} cells, the header has {len(header)}"
                )
            rows.append((where, cells))
    finally:
        csv.field_size_limit(limit)
    return header, rows


def _nonblank(file: Path, reader: Any, rows: Sequence[Any]) -> Iterator[list[str]]:
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            at = f"row {len(rows) + 1} (line {reader.line_num})"
            raise InputError(f"{file.name}, {at}: not CSV: {error}") from None
        if cells:
            yield cells


def _check_header(file: Path, header: list[str]) -> None:
    if not header:
        raise InputError(f"{file.name} holds no rows")
    wrong = next((name for name in header if not name or header.count(name) > 1), None)
    if wrong is not None:
        problem = f"the column {wrong!r} twice" if wrong else "a column without a name"
        raise InputError(f"{file.name}: the header has {problem}: {shorten(', '.join(header), 200)}")


def _typed(cells: list[str]) -> list[Any]:
    """A column's cells as int, float or bool where all of them are; else as text. An empty cell is None."""
    filled = [cell for cell in cells if cell]
    kind: Any = str
    if filled and all(map(_WHOLE.fullmatch, filled)):
        kind = int
    elif filled and all(map(_DECIMAL.fullmatch, filled)):
        kind = float
    elif filled and {cell.lower() for cell in filled} <= {"true", "false"}:
        kind = lambda cell: cell.lower() == "true"  # noqa: E731
    return [kind(cell) if cell else None for cell in cells]


def _parquet_rows(file: Path) -> Iterable[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigurationError(f'reading {file.name} needs pyarrow: pip install "pyarrow>=17"') from None
    try:
        table = pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{file.name} cannot be read as Parquet: {shorten(error, 200)}") from None
    return [(f"row {i}", row) for i, row in enumerate(table.to_pylist(), 1)]
