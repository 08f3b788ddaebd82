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
    """Write a table by the ending of the path, whole or not at all; returns the path.

    JSON keeps numbers exactly; CSV and Parquet hold lists and dicts as JSON text, Parquet also columns of mixed types.
    The index comes first, named ``index`` where it has no name. Raises InputError for an ending that is not known or a
    file that cannot be written, ConfigurationError where parquet needs a package.
    """
    how: dict[str, Callable[[pd.DataFrame, Path], object]] = {
        ".csv": lambda frame, file: file.write_bytes(
            mapped(frame, _flat).to_csv(index=False).encode("utf-8", "backslashreplace")
        ),
        ".json": lambda frame, file: file.write_text(f"[{', '.join(_lines(frame))}]\n", encoding="utf-8"),
        ".jsonl": lambda frame, file: file.write_text("".join(f"{x}\n" for x in _lines(frame)), encoding="utf-8"),
        ".parquet": lambda frame, file: frame.apply(_uniform).to_parquet(file, index=False),
    }
    if path.suffix not in how:
        raise InputError(f"save(path) writes {', '.join(how)}; got {path.name!r}")
    part = path.with_name(f".{path.name}.part")
    try:
        how[path.suffix](mapped(_with_index(table), redact_values), part)
        part.replace(path)
    except ImportError as error:
        raise ConfigurationError("parquet needs pyarrow: pip install pyarrow") from error
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _with_index(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its index as columns, under names that it does not have yet."""
    names: list[str] = []
    for level, name in enumerate(table.index.names):
        own = str(name) if name is not None else "index" if table.index.nlevels == 1 else f"index_{level}"
        while own in table.columns or own in names:
            own = f"{own}_"
        names.append(own)
    return table.reset_index(names=names)


def _lines(frame: pd.DataFrame) -> list[str]:
    """Each row as JSON."""
    return [_json(dict(zip(frame.columns, row, strict=True))) for row in frame.astype(object).to_numpy().tolist()]


def _json(value: Any) -> str:
    import pydantic_core

    try:
        return pydantic_core.to_json(value, inf_nan_mode="null", fallback=str).decode()
    except Exception:  # a lone surrogate
        return json.dumps(value, default=str)


def _flat(value: Any) -> Any:
    return _json(value) if isinstance(value, list | dict) else value


def _uniform(column: pd.Series[Any]) -> pd.Series[Any]:
    """The column as Parquet can hold it: one type, or JSON text."""
    kinds = {type(value) for value in column if not _is_missing(value)}
    if kinds == {str}:
        return column.map(lambda value: None if _is_missing(value) else encodable(value)).astype(object)
    if kinds <= {int, float} or (len(kinds) == 1 and not kinds & {list, dict}):
        return column
    return column.map(lambda value: None if _is_missing(value) else _json(value)).astype(object)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
