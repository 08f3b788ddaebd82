"""Writing a table to a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dspynb.errors import ConfigurationError, InputError
from dspynb.redact import redact_values

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["save_table"]


def save_table(table: pd.DataFrame, path: Path) -> Path:
    """Write a table by the ending of the path, whole or not at all; returns the path. Raises InputError for an ending
    that is not known, ConfigurationError where parquet needs a package."""
    clean = table.map(redact_values)
    how: dict[str, Callable[[Path], object]] = {
        ".csv": clean.to_csv,
        ".json": lambda file: clean.reset_index(names="row").to_json(file, orient="records", force_ascii=False),
        ".jsonl": lambda file: clean.reset_index(names="row").to_json(file, orient="records", lines=True),
        ".parquet": clean.to_parquet,
    }
    if path.suffix not in how:
        raise InputError(f"save(path) writes {', '.join(how)}; got {path.name!r}")
    part = path.with_name(f".{path.name}.part")
    try:
        how[path.suffix](part)
        part.replace(path)
    except ImportError as error:
        raise ConfigurationError("parquet needs pyarrow: pip install pyarrow") from error
    finally:
        part.unlink(missing_ok=True)
    return path
