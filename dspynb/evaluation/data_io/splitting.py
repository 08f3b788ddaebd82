"""Rows parted into train, validation and test; and what tells that rows are the same as those of an earlier run."""

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

from dspynb.data import Example, rows_of
from dspynb.errors import InputError, nearest
from dspynb.evaluation.metrics.fields import plain

__all__ = ["Splits", "fingerprint", "split"]

_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=True, separators=(",", ":"))
_OF_JSON = (type(None), str, int, float)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class Splits(NamedTuple):
    """Three disjoint parts of rows, each in the order of the rows: ``train``, ``val``, ``test``.

    Of a DataFrame each part is a DataFrame with its index, else a list of the same objects.
    """

    train: Any
    val: Any
    test: Any


def split(
    rows: Any,
    *,
    train: float | None = None,
    val: float | None = None,
    test: float | None = None,
    seed: int = 0,
    stratify: str | None = None,
) -> Splits:
    """Part rows at random, the same way for the same seed and rows.

    Sizes are fractions (a float up to 1) or counts (an int); a part that is None is empty, but ``train`` takes the
    rest. ``stratify`` names a field whose values are to be as frequent in each part as in the whole. Equal rows (equal
    inputs, where inputs are marked) stay together, so that no part has seen another's; so with duplicates a size may be
    missed by a few. Raises InputError for sizes that do not fit, and for a part that would stay empty.

    >>> parts = dn.split([{"n": n} for n in range(10)], val=0.2, test=0.2, seed=1)
    >>> len(parts.train), len(parts.val), len(parts.test)
    (6, 2, 2)
    """
    examples = rows_of(rows)
    sizes = _sizes(len(examples), train, val, test)
    parts: list[list[int]] = [[], [], []]
    part, ends = 0, list(accumulate(sizes))
    taken = 0
    for group in _ordered(examples, seed, stratify):
        while part < 3 and taken >= ends[part]:
            part += 1
        if part == 3:
            break
        parts[part] += group
        taken += len(group)
    for name, size, members in zip(Splits._fields, sizes, parts, strict=True):
        if size and not members:
            raise InputError(f"split: {name} would be empty: {len(examples)} rows are too few, or too many are equal")
    return Splits(*(_taken(rows, sorted(members)) for members in parts))


def _taken(rows: Any, members: list[int]) -> Any:
    return rows.iloc[members] if hasattr(rows, "iloc") else [rows[i] for i in members]


def _sizes(n: int, *wanted: float | None) -> list[int]:
    """How many rows each part gets."""
    if n == 0:
        raise InputError("split: there are no rows")
    shares = [_share(name, value, n) for name, value in zip(Splits._fields, wanted, strict=True)]
    if wanted[0] is None:
        shares[0] = max(0.0, n - sum(shares))
    if sum(shares) > n * (1 + 1e-9):
        raise InputError(f"split: the sizes are {sum(shares):g} rows together, and there are {n}")
    ends = [math.floor(end + 0.5 + 1e-9) for end in accumulate(shares)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _share(name: str, value: Any, n: int) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InputError(f"split: {name} must be a fraction or a number of rows, got {value!r}")
    if isinstance(value, float):
        if value > 1:
            raise InputError(f"split: {name}={value!r} is a fraction above 1; for a number of rows give an int")
        return value * n
    return float(value)


def _ordered(rows: Sequence[Example], seed: int, stratify: str | None) -> list[list[int]]:
    """Groups of equal rows in random order, with the strata spread evenly over it.

    Any stretch of this order then has each stratum in proportion (systematic sampling with a random start), so the
    parts can be cut from it one after the other.
    """
    rng = random.Random(seed)  # noqa: S311  # for sampling, not for secrets
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for group in _equal(rows):
        strata[_stratum(rows[group[0]], group[0], stratify)].append(group)
    placed: list[tuple[float, list[int]]] = []
    for groups in strata.values():
        rng.shuffle(groups)
        start = rng.random()
        placed += [((rank + start) / len(groups), group) for rank, group in enumerate(groups)]
    return [group for _, group in sorted(placed, key=lambda one: one[0])]


def _equal(rows: Sequence[Example]) -> list[list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[_canonical(row.inputs())].append(i)
    return list(groups.values())


def _stratum(row: Example, i: int, field: str | None) -> str:
    if field is None:
        return ""
    if field not in row:
        raise InputError(f"split: row {i} has no field {field!r}.{nearest(field, row)} There are: {', '.join(row)}")
    return _canonical(row[field])


def fingerprint(rows: Any) -> str:
    """16 hex digits that change when a row, a value, its type or the order changes; the same in every process.

    Names may stand in any order. A value that is neither JSON nor a date, array, set or bytes counts by its repr,
    without the address in memory.

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


def _canonical(value: Any) -> str:
    return _CANONICAL.encode(_tagged(plain(value)))


def _tagged(value: Any) -> Any:
    """JSON values as they are; all else as its type and content."""
    if isinstance(value, _OF_JSON):
        return value
    if isinstance(value, Mapping):
        return {str(k): _tagged(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_tagged(plain(v)) for v in value]
    if isinstance(value, set | frozenset):
        return {"set": sorted(_canonical(v) for v in value)}
    content = value.hex() if isinstance(value, bytes) else _ADDRESS.sub("", repr(value))
    return {type(value).__name__: content}
