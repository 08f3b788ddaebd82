"""Splitting of rows into train, validation and test, and fingerprints by which rows are recognised."""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from dspynb.aliases import Rows
from dspynb.data import Example, rows_of
from dspynb.errors import InputError, nearest
from dspynb.evaluation.metrics.fields import plain

__all__ = ["Splits", "fingerprint", "split"]

_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=True, separators=(",", ":"))
_JSON_SCALARS = (type(None), str, int, float)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class Splits(NamedTuple):
    """The parts that ``split`` returns: ``train``, ``val`` and ``test``. They are disjoint and keep the order of rows.

    If the rows were a DataFrame, each part is a DataFrame with its index; otherwise it is a list of the same objects.
    """

    train: Any
    val: Any
    test: Any


def split(
    rows: Rows,
    *,
    train: float | None = None,
    val: float | None = None,
    test: float | None = None,
    seed: int = 0,
    stratify: str | None = None,
) -> Splits:
    """Split rows at random into train, validation and test. The same rows and seed give the same split.

    ``rows``: a DataFrame, or a list of dicts or Examples. ``train``, ``val``, ``test``: the size of each part, as a
    fraction (a float up to 1) or as a number of rows (an int). For None, ``val`` and ``test`` are empty and ``train``
    gets all other rows. ``seed``: of the random order, 0 by default. ``stratify``: a field whose values shall have the
    same frequencies in each part as in all rows.

    Equal rows stay in one part, so that no part contains rows of another. Rows with marked inputs are equal if their
    inputs are. With duplicates, the size of a part may therefore be off by a few rows.

    Returns Splits. Raises InputError for sizes that do not fit the rows, and if a part with a size would be empty.

    >>> parts = dn.split([{"n": n} for n in range(10)], val=0.2, test=0.2, seed=1)
    >>> len(parts.train), len(parts.val), len(parts.test)
    (6, 2, 2)
    """
    examples = rows_of(rows)
    sizes = _sizes(len(examples), train, val, test)
    parts = _fill_parts(_ordered_groups(examples, seed, stratify), sizes)
    for name, size, numbers in zip(Splits._fields, sizes, parts, strict=True):
        if size and not numbers:
            raise InputError(f"split: {name} would be empty: {len(examples)} rows are too few, or too many are equal")
    return Splits(*(_select(rows, sorted(numbers)) for numbers in parts))


def _fill_parts(groups: list[list[int]], sizes: list[int]) -> list[list[int]]:
    """Assign groups of rows to the parts in turn. A part is full when it has as many rows as its size, or more."""
    parts: list[list[int]] = [[], [], []]
    ends = list(accumulate(sizes))
    part = 0
    assigned = 0
    for group in groups:
        while part < len(parts) and assigned >= ends[part]:
            part += 1
        if part == len(parts):
            break
        parts[part] += group
        assigned += len(group)
    return parts


def _select(rows: Any, numbers: list[int]) -> Any:
    if hasattr(rows, "iloc"):
        return rows.iloc[numbers]
    return [rows[number] for number in numbers]


def _sizes(row_count: int, *requested: float | None) -> list[int]:
    """The number of rows of each part, from the sizes that ``split`` was called with."""
    if row_count == 0:
        raise InputError("split: there are no rows")
    sizes = [_size(name, value, row_count) for name, value in zip(Splits._fields, requested, strict=True)]
    if requested[0] is None:
        sizes[0] = max(0.0, row_count - sum(sizes))
    if sum(sizes) > row_count * (1 + 1e-9):
        raise InputError(f"split: the sizes are {sum(sizes):g} rows together, and there are {row_count}")
    ends = [math.floor(end + 0.5 + 1e-9) for end in accumulate(sizes)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _size(name: str, value: object, row_count: int) -> float:
    """The size of a part in rows, before rounding."""
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InputError(f"split: {name} must be a fraction or a number of rows, got {value!r}")
    if isinstance(value, float):
        if value > 1:
            raise InputError(f"split: {name}={value!r} is a fraction above 1; for a number of rows give an int")
        return value * row_count
    return float(value)


def _ordered_groups(rows: Sequence[Example], seed: int, stratify: str | None) -> list[list[int]]:
    """Groups of equal rows in random order, with the strata spread evenly.

    Every stretch of this order has each stratum in proportion (systematic sampling with a random start). So the parts
    can be cut from it one after the other. A group has the numbers of its rows.
    """
    rng = random.Random(seed)  # noqa: S311  # for sampling, not for secrets
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for group in _groups_of_equal(rows):
        first = group[0]
        strata[_stratum(rows[first], first, stratify)].append(group)
    positions: list[tuple[float, list[int]]] = []
    for groups in strata.values():
        rng.shuffle(groups)
        start = rng.random()
        positions += [((rank + start) / len(groups), group) for rank, group in enumerate(groups)]
    positions.sort(key=lambda position: position[0])
    return [group for _, group in positions]


def _groups_of_equal(rows: Sequence[Example]) -> list[list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        groups[_canonical(row.inputs())].append(number)
    return list(groups.values())


def _stratum(row: Example, number: int, field: str | None) -> str:
    if field is None:
        return ""
    if field not in row:
        fields = ", ".join(row)
        raise InputError(f"split: row {number} has no field {field!r}.{nearest(field, row)} There are: {fields}")
    return _canonical(row[field])


def fingerprint(rows: Rows) -> str:
    """A hash of rows as 16 hex digits. It changes if a row, a value, the type of a value or the order of rows changes.

    It is the same in every process, and does not depend on the order of fields in a row. JSON values, dates, arrays,
    sets and bytes count with their content, all other values with their repr, without addresses in memory.

    >>> rows = [{"question": "2+2?", "answer": "4"}]
    >>> dn.fingerprint(rows)
    'ad9f66094bd76342'
    >>> dn.fingerprint(rows) == dn.fingerprint([{"question": "2+2?", "answer": 4}])
    False
    """
    digest = hashlib.sha256()
    for row in rows_of(rows):
        digest.update(_canonical(row.to_dict()).encode(errors="surrogatepass") + b"\n")
    return digest.hexdigest()[:16]


def _canonical(value: object) -> str:
    return _CANONICAL.encode(_tagged(plain(value)))


def _tagged(value: object) -> Any:
    """The value in the types of JSON. A value of another type becomes the dict {type: content}, without its address in
    memory."""
    if isinstance(value, _JSON_SCALARS):
        return value
    if isinstance(value, dict | Mapping):  # dict is recognized much faster than Mapping
        return {str(name): _tagged(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_tagged(plain(item)) for item in value]
    if isinstance(value, set | frozenset):
        return {"set": sorted(_canonical(item) for item in value)}
    type_name = type(value).__name__
    if isinstance(value, bytes):
        return {type_name: value.hex()}
    return {type_name: _ADDRESS.sub("", repr(value))}
