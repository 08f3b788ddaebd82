"""Writing a table to a file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspynb.errors import ConfigurationError, InputError
from dspynb.redact import redact_values
from dspynb.running.tables.frames import encodable, mapped

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["save_table"]


def save_table(table: pd.DataFrame, path: Path) -> Path:
    """Write a table to a file in the format of its ending, and return the path.

    The index becomes the first columns; an index without a name is called ``index``. JSON keeps numbers exactly. CSV
    and Parquet have lists and dicts as JSON text, and Parquet also columns with mixed types. API keys are redacted. If
    writing fails, an existing file of that name is not changed.

    Raises InputError for an unknown ending or a file that cannot be written, and ConfigurationError if a package that
    Parquet needs is not installed.
    """
    if path.suffix not in _WRITERS:
        raise InputError(f"save(path) writes {', '.join(_WRITERS)}; got {path.name!r}")
    write = _WRITERS[path.suffix]
    part = path.with_name(f".{path.name}.part")
    try:
        write(mapped(_with_index(table), redact_values), part)
        part.replace(path)
    except ImportError as error:
        raise ConfigurationError("parquet needs pyarrow: pip install pyarrow") from error
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _with_index(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its index as columns. Their names differ from those of the other columns."""
    names: list[str] = []
    for level, level_name in enumerate(table.index.names):
        name = _index_name(level, level_name, table.index.nlevels)
        while name in table.columns or name in names:
            name = f"{name}_"
        names.append(name)
    return table.reset_index(names=names)


def _index_name(level: int, name: object, levels: int) -> str:
    if name is not None:
        return str(name)
    if levels == 1:
        return "index"
    return f"index_{level}"


def _write_csv(frame: pd.DataFrame, file: Path) -> None:
    text = mapped(frame, _json_if_nested).to_csv(index=False)
    file.write_bytes(text.encode("utf-8", "backslashreplace"))


def _write_json(frame: pd.DataFrame, file: Path) -> None:
    file.write_text(f"[{', '.join(_json_rows(frame))}]\n", encoding="utf-8")


def _write_jsonl(frame: pd.DataFrame, file: Path) -> None:
    file.write_text("".join(f"{row}\n" for row in _json_rows(frame)), encoding="utf-8")


def _write_parquet(frame: pd.DataFrame, file: Path) -> None:
    frame.apply(_parquet_column).to_parquet(file, index=False)


_WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": _write_csv,
    ".json": _write_json,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}


def _json_rows(frame: pd.DataFrame) -> list[str]:
    rows = frame.astype(object).to_numpy().tolist()
    return [_json(dict(zip(frame.columns, row, strict=True))) for row in rows]


def _json(value: object) -> str:
    import pydantic_core

    try:
        return pydantic_core.to_json(value, inf_nan_mode="null", fallback=str).decode()
    except Exception:  # pydantic refuses a lone surrogate
        return json.dumps(value, default=str)


def _json_if_nested(value: object) -> Any:
    if isinstance(value, list | dict):
        return _json(value)
    return value


def _parquet_column(column: pd.Series[Any]) -> pd.Series[Any]:
    """The column with values that Parquet can hold: all of one type, or as JSON text."""
    types = {type(value) for value in column if not _is_missing(value)}
    if types == {str}:
        return _map_values(column, encodable)
    has_one_flat_type = len(types) == 1 and not types & {list, dict}
    if types <= {int, float} or has_one_flat_type:
        return column
    return _map_values(column, _json)


def _map_values(column: pd.Series[Any], convert: Callable[[Any], Any]) -> pd.Series[Any]:
    """The column with its values converted, and None for missing ones."""
    return column.map(lambda value: None if _is_missing(value) else convert(value)).astype(object)


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
