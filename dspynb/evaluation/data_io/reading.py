"""Reading of rows from JSON, JSON lines, CSV and Parquet files."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from dspynb.data import Example
from dspynb.errors import ConfigurationError, InputError, nearest, shorten

__all__ = ["read_examples"]

_FORMATS = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,999})")
_DECIMAL = re.compile(r"-?(0|[1-9]\d{0,300})(\.\d+)?([eE][-+]?\d{1,3})?")
_CELL_SIZE_LIMIT = 2**31 - 1
"""In characters."""

LocatedRow = tuple[str, dict[str, Any]]
"""The position of a row in its file, as text for messages, and its fields."""


def read_examples(
    path: str | Path,
    *,
    fields: Mapping[str, str] | Sequence[str] | None = None,
    inputs: Sequence[str] | None = None,
    format: str | None = None,  # noqa: A002  # the usual name of this parameter in other libraries
    encoding: str = "utf-8-sig",
) -> list[Example]:
    """Read rows from a JSON, JSON lines, CSV, TSV or Parquet file.

    JSON must be a list of objects. JSON and Parquet keep the types of values. In CSV and TSV, the values of a column
    are int, float or bool if all its cells can be read so, and text otherwise (``007`` is text); an empty cell is None.
    Parquet needs pyarrow. All formats but Parquet may be compressed with gzip (``.gz``).

    ``path``: the file. ``fields``: the columns to read, as names or as ``{new name: name in the file}``; all by
    default. ``inputs``: the fields that are inputs; the others are labels. By default no field is marked. ``format``:
    ``json``, ``jsonl``, ``csv``, ``tsv`` or ``parquet``; by default it follows from the name of the file.
    ``encoding``: of a text file; UTF-8 by default.

    Raises ConfigurationError if the file is missing or its format is unknown, and InputError for faults in its content.
    The error gives the number of the row, which counts from 1 without the header.

    >>> from pathlib import Path
    >>> _ = Path("rows.csv").write_text("question,answer,year\\nWho painted it?,Monet,1872\\n")
    >>> dn.read_examples("rows.csv", inputs=["question"])
    [Example(question='Who painted it?', answer='Monet', year=1872)]
    """
    file = Path(path).expanduser()
    file_format = _format_of(file, format)
    _check_exists(file)
    sources = _sources(fields)
    rows = [_select(file, position, row, sources) for position, row in _read_rows(file, file_format, encoding)]
    if not rows:
        raise InputError(f"{file.name} holds no rows")
    if inputs is None:
        return rows
    if isinstance(inputs, str):
        inputs = [inputs]
    input_names = list(inputs)
    return [_mark_inputs(f"{file.name}, row {number}", row, input_names) for number, row in enumerate(rows, 1)]


def _format_of(file: Path, requested: str | None) -> str:
    if requested is None:
        suffix = Path(file.name.lower().removesuffix(".gz")).suffix
        file_format = _FORMATS.get(suffix, "")
        problem = "of a format its name does not tell"
    else:
        file_format = str(requested).lower()
        problem = f"of the unknown format {requested!r}"
    if file_format not in _FORMATS.values():
        known = ", ".join(dict.fromkeys(_FORMATS.values()))
        raise ConfigurationError(f"{file.name} is {problem}; give format=one of {known}")
    return file_format


def _check_exists(file: Path) -> None:
    if file.is_file():
        return
    if file.is_dir():
        raise ConfigurationError(f"{file} is a folder; give a file in it")
    siblings: list[str] = []
    if file.parent.is_dir():
        siblings = [path.name for path in file.parent.iterdir() if path.is_file()]
    raise ConfigurationError(f"there is no file {file}.{nearest(file.name, siblings)}")


def _sources(fields: Any) -> dict[str, str] | None:
    """For each field to read, its name in the file; None reads all fields."""
    if fields is None:
        return None
    if isinstance(fields, Mapping):
        return {str(name): str(source) for name, source in fields.items()}
    if isinstance(fields, str):
        return {fields: fields}
    return {str(name): str(name) for name in fields}


def _select(file: Path, position: str, row: dict[str, Any], sources: Mapping[str, str] | None) -> Example:
    if sources is None:
        return Example(row)
    for source in sources.values():
        if source not in row:
            known = ", ".join(row) or "none"
            raise InputError(f"{file.name}, {position}: no field {source!r}.{nearest(source, row)} There are: {known}")
    return Example({name: row[source] for name, source in sources.items()})


def _mark_inputs(position: str, row: Example, input_names: list[str]) -> Example:
    try:
        return row.with_inputs(*input_names)
    except InputError as error:
        raise InputError(f"{position}: {error}") from None


def _read_rows(file: Path, file_format: str, encoding: str) -> Iterator[LocatedRow]:
    if file_format == "parquet":
        yield from _parquet_rows(file)
        return
    try:
        with _open(file, encoding) as stream:
            if file_format == "json":
                yield from _json_rows(file, stream)
            elif file_format == "jsonl":
                yield from _jsonl_rows(file, stream)
            elif file_format == "tsv":
                yield from _csv_rows(file, stream, "\t")
            else:
                yield from _csv_rows(file, stream, ",")
    except UnicodeError as error:
        raise InputError(
            f"{file.name} is not {encoding} ({error}); give encoding=, e.g. 'latin-1' or 'utf-16'"
        ) from None
    except LookupError:
        raise ConfigurationError(f"there is no encoding {encoding!r}") from None
    except (OSError, EOFError) as error:  # a broken gzip file raises either
        raise ConfigurationError(f"{file} cannot be read: {error}") from None


def _open(file: Path, encoding: str) -> IO[str]:
    if file.suffix.lower() == ".gz":
        return gzip.open(file, "rt", encoding=encoding, newline="")
    return file.open(encoding=encoding, newline="")


def _json_rows(file: Path, stream: IO[str]) -> Iterator[LocatedRow]:
    try:
        content = json.load(stream)
    except json.JSONDecodeError as error:
        raise InputError(f"{file.name}, line {error.lineno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise InputError(f"{file.name}: nested too deeply") from None
    if not isinstance(content, list):
        description = type(content).__name__
        if isinstance(content, dict):
            description += f" with the keys {shorten(', '.join(content), 120)}"
        raise InputError(f"{file.name} holds a {description}; it must hold a list of objects")
    for number, row in enumerate(content, 1):
        yield _check_object(file, f"row {number}", row)


def _jsonl_rows(file: Path, stream: IO[str]) -> Iterator[LocatedRow]:
    number = 0
    for line_number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        number += 1
        position = f"row {number}"
        if line_number != number:
            position += f" (line {line_number})"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problem = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
            raise InputError(f"{file.name}, {position}: not JSON: {problem}: {shorten(line, 80)}") from None
        yield _check_object(file, position, row)


def _check_object(file: Path, position: str, row: object) -> LocatedRow:
    if not isinstance(row, dict):
        raise InputError(f"{file.name}, {position}: {shorten(repr(row), 80)} is not an object with named fields")
    return position, row


def _csv_rows(file: Path, stream: IO[str], delimiter: str) -> Iterator[LocatedRow]:
    header, rows = _read_cells(file, stream, delimiter)
    columns = []
    for number in range(len(header)):
        cells = [row[number] for row in rows]
        columns.append(_convert_column(cells))
    for index in range(len(rows)):
        yield f"row {index + 1}", {name: column[index] for name, column in zip(header, columns, strict=True)}


def _read_cells(file: Path, stream: IO[str], delimiter: str) -> tuple[list[str], list[list[str]]]:
    """The header, and the cells of each row as text."""
    limit_before = csv.field_size_limit(_CELL_SIZE_LIMIT)  # the default refuses a long document in a cell
    try:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        header = [name.strip() for name in next(reader, [])]
        _check_header(file, header)
        rows: list[list[str]] = []
        for cells in _filled_lines(file, reader, rows):
            if len(cells) != len(header):
                raise InputError(
                    f"{file.name}, row {len(rows) + 1} (line {reader.line_num}): {len(cells)} cells, the header has "
                    f"{len(header)}"
                )
            rows.append(cells)
    finally:
        csv.field_size_limit(limit_before)
    return header, rows


def _filled_lines(file: Path, reader: Any, rows: Sequence[Any]) -> Iterator[list[str]]:
    """The cells of each line that is not empty. ``rows``: the rows so far, to number a row with an error."""
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            position = f"row {len(rows) + 1} (line {reader.line_num})"
            raise InputError(f"{file.name}, {position}: not CSV: {error}") from None
        if cells:
            yield cells


def _check_header(file: Path, header: list[str]) -> None:
    if not header:
        raise InputError(f"{file.name} holds no rows")
    for name in header:
        if name and header.count(name) == 1:
            continue
        problem = f"the column {name!r} twice" if name else "a column without a name"
        raise InputError(f"{file.name}: the header has {problem}: {shorten(', '.join(header), 200)}")


def _convert_column(cells: list[str]) -> list[Any]:
    """The cells as int, float or bool if all of them can be read so, else as text. An empty cell is None."""
    filled = [cell for cell in cells if cell]
    convert: Callable[[str], Any] = str
    if filled and all(map(_INTEGER.fullmatch, filled)):
        convert = int
    elif filled and all(map(_DECIMAL.fullmatch, filled)):
        convert = float
    elif filled and {cell.lower() for cell in filled} <= {"true", "false"}:
        convert = _is_true
    return [convert(cell) if cell else None for cell in cells]


def _is_true(cell: str) -> bool:
    return cell.lower() == "true"


def _parquet_rows(file: Path) -> Iterable[LocatedRow]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigurationError(f'reading {file.name} needs pyarrow: pip install "pyarrow>=17"') from None
    try:
        table = pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{file.name} cannot be read as Parquet: {shorten(error, 200)}") from None
    return [(f"row {number}", row) for number, row in enumerate(table.to_pylist(), 1)]
