"""How sure a mean score is, and a difference between two programs on the same rows.

One row is one observation: of repeated rollouts, give each row's mean, since repeats of a row are not independent
(Miller 2024, "Adding Error Bars to Evals", on clustered standard errors). All is deterministic for a seed.

Which interval, and why: for scores that are all 0 or 1, Wilson's (1927), which holds its level where the normal one
does not: few rows, or nearly all right. Else Student's t below 20 rows, where bootstrap intervals are too short; BCa
(Efron 1987; Efron and Tibshirani 1993, section 14.3) up to 1,000 rows, which follows the skew of bounded scores; and
above, the normal one, which by then is the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from dspynb.errors import InputError, shorten

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

__all__ = ["Interval", "PairedDifference", "mcnemar_exact", "mean_interval", "paired_difference", "wilson"]

_FEW, _MANY = 20, 1000
_RESAMPLES = 9999
_BLOCK = 2_000_000  # numbers drawn at once: 16 MB
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its interval. ``low`` and ``high`` are None where one value says nothing about the spread.

    ``method``: ``wilson``, ``t``, ``bca``, ``normal``, or ``none``.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    level: float
    method: str

    def __float__(self) -> float:
        return self.mean

    def __str__(self) -> str:
        return f"{self.mean:.3g}" if self.low is None else f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much higher ``other`` scored than ``base``, on the same rows.

    ``difference``: mean of other − base, with ``low`` and ``high`` (None for a single row that is not binary).
    ``p_value``: two-sided, of no difference. ``wins``, ``ties``, ``losses``: rows on which other scored higher, the
    same, lower. ``test``: ``mcnemar`` or ``paired bootstrap``; ``method``: of the interval, as in Interval, or
    ``bonett-price``.
    """

    difference: float
    low: float | None
    high: float | None
    p_value: float
    wins: int
    ties: int
    losses: int
    n: int
    level: float
    method: str
    test: str

    def __float__(self) -> float:
        return self.difference

    def __str__(self) -> str:
        between = "" if self.low is None else f" [{self.low:+.3g}, {self.high:+.3g}]"
        return f"{self.difference:+.3g}{between}, p = {self.p_value:.2g}"


def mean_interval(values: Sequence[float], *, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean of scores with its interval; see the module for the method. ``level``: between 0 and 1.

    Values that are all equal but neither 0 nor 1 give an interval of no width: they tell nothing of the spread. Raises
    InputError for no values, or for one that is not a finite number.
    """
    data, level = _numbers(values, "values"), _level(level)
    n, mean = len(data), float(data.mean())
    if _binary(data):
        low, high = wilson(int(data.sum()), n, level)
        return Interval(mean, low, high, n, level, "wilson")
    return _interval(data, level, seed)


def paired_difference(
    base: Sequence[float], other: Sequence[float], *, level: float = 0.95, seed: int = 0
) -> PairedDifference:
    """The difference between two programs' scores on the same rows, in the same order.

    Binary scores: the exact McNemar test, and Bonett and Price's adjusted interval (2012). Else the mean difference's
    interval as in ``mean_interval``, and the p-value of the paired bootstrap with a studentised statistic on the
    centred differences (Efron and Tibshirani 1993, section 16.4); it is never below ``2 ** (1 - k)`` for k rows that
    differ, the least that an exact test of k signs can give. Raises InputError as ``mean_interval``, and for lengths
    that differ.
    """
    first, second, level = _numbers(base, "base"), _numbers(other, "other"), _level(level)
    if len(first) != len(second):
        raise InputError(f"paired scores must be of the same rows; base has {len(first)}, other {len(second)}")
    difference = _without_noise(second - first)
    n, wins, losses = len(difference), int((difference > 0).sum()), int((difference < 0).sum())
    if _binary(first) and _binary(second):
        low, high = _bonett_price(wins, losses, n, level)
        p_value = mcnemar_exact(wins, losses)
        between: tuple[float | None, float | None, str, str] = (low, high, "bonett-price", "mcnemar")
    else:
        interval = _interval(difference, level, seed)
        p_value = _bootstrap_p(difference, seed)
        between = (interval.low, interval.high, interval.method, "paired bootstrap")
    mean, ties = float(difference.mean()), n - wins - losses
    return PairedDifference(mean, *between[:2], p_value, wins, ties, losses, n, level, *between[2:])


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927)."""
    if not 0 <= successes <= n or n < 1:
        raise InputError(f"wilson: successes must be from 0 to n and n at least 1, got {successes} of {n}")
    z = _z(_level(level))
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (0.0 if successes == 0 else middle - half), (1.0 if successes == n else middle + half)


def mcnemar_exact(wins: int, losses: int) -> float:
    """The two-sided exact p-value of McNemar's test (1947): of pairs that differ, each side is equally likely."""
    k, fewer = wins + losses, min(wins, losses)
    if fewer < 0:
        raise InputError(f"mcnemar_exact: counts must be at least 0, got {wins} and {losses}")
    log_half_k = k * math.log(0.5)
    choose = (math.lgamma(k + 1) - math.lgamma(i + 1) - math.lgamma(k - i + 1) for i in range(fewer + 1))
    return min(1.0, 2 * math.fsum(math.exp(c + log_half_k) for c in choose))


def _numbers(values: Any, what: str) -> Values:
    import numpy as np

    listed = list(values) if not isinstance(values, str | bytes) and hasattr(values, "__iter__") else None
    if not listed:
        raise InputError(f"{what}: there are no scores" if listed is not None else f"{what} must be a list of scores")
    for i, value in enumerate(listed):
        number = _bare(value)
        if not isinstance(number, int | float) or not math.isfinite(number):
            told = shorten(repr(value), 60)
            raise InputError(f"{what}: score {i} is {told}, not a finite number; decide first what a failed row counts")
    return np.array([float(_bare(value)) for value in listed])


def _bare(value: Any) -> Any:
    """A score as Python's own number: numpy's, or one behind an Enum."""
    value = value.value if isinstance(value, Enum) else value
    return value.tolist() if hasattr(value, "tolist") else value


def _level(level: float) -> float:
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1 (0.95 for 95 %), got {level!r}")
    return float(level)


def _binary(data: Values) -> bool:
    return bool(((data == 0) | (data == 1)).all())


def _without_noise(difference: Values) -> Values:
    """Differences with those of rounding made ties: 0.1 + 0.2 against 0.3 is no win."""
    import numpy as np

    return np.where(np.abs(difference) < 1e-12, 0.0, difference)


def _z(level: float) -> float:
    return _NORMAL.inv_cdf((1 + level) / 2)


def _interval(data: Values, level: float, seed: int) -> Interval:
    n, mean = len(data), float(data.mean())
    if n == 1:
        return Interval(mean, None, None, n, level, "none")
    method = "t" if n < _FEW else "bca" if n <= _MANY else "normal"
    if data.min() == data.max():
        same = float(data[0])  # the mean of many may differ from it by rounding
        return Interval(same, same, same, n, level, method)
    if method == "bca":
        low, high = _bca(data, level, seed)
        return Interval(mean, low, high, n, level, method)
    half = (_t(level, n - 1) if method == "t" else _z(level)) * float(data.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, level, method)


def _bca(data: Values, level: float, seed: int) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval of the mean (Efron and Tibshirani 1993, 14.9 to 14.15)."""
    import numpy as np

    mean, means = data.mean(), _resampled(data, seed)[0]
    below = float(((means < mean).sum() + (means <= mean).sum()) / (2 * len(means)))
    bias = _NORMAL.inv_cdf(min(max(below, 1 / len(means)), 1 - 1 / len(means)))
    off = data - mean
    acceleration = float((off**3).sum() / (6 * (off**2).sum() ** 1.5))
    ends = [bias + side * _z(level) for side in (-1, 1)]
    shares = [_NORMAL.cdf(bias + end / (1 - acceleration * end)) for end in ends]
    low, high = np.quantile(means, shares)
    return float(low), float(high)


def _resampled(data: Values, seed: int) -> tuple[Values, Values]:
    """Means and standard errors of bootstrap samples, drawn in blocks so that memory stays small."""
    import numpy as np

    n, rng, means, errors = len(data), np.random.default_rng(seed), [], []
    left, size = _RESAMPLES, max(1, _BLOCK // len(data))
    while left > 0:
        drawn = data[rng.integers(0, n, (min(size, left), n))]
        means.append(drawn.mean(axis=1))
        errors.append(drawn.std(axis=1, ddof=1) / math.sqrt(n))
        left -= len(drawn)
    return np.concatenate(means), np.concatenate(errors)


def _bootstrap_p(difference: Values, seed: int) -> float:
    import numpy as np

    n, differing = len(difference), int((difference != 0).sum())
    least = min(1.0, 2.0 ** (1 - differing))
    if least == 1.0:
        return 1.0
    mean, error = float(difference.mean()), float(difference.std(ddof=1)) / math.sqrt(n)
    if error < 1e-12:
        return least
    if n > _MANY:
        return max(least, 2 * _NORMAL.cdf(-abs(mean) / error))
    means, errors = _resampled(difference - mean, seed)
    seen = abs(mean) / error
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(errors > 1e-12, np.abs(means) / errors, np.where(np.abs(means) > 1e-12, np.inf, 0.0))
    as_large = int((statistic >= seen * (1 - 1e-9)).sum())
    return max(least, (1 + as_large) / (1 + len(means)))


@lru_cache(maxsize=256)
def _t(level: float, freedom: int) -> float:
    """The quantile of Student's t that holds ``level`` between its negative and itself, by bisection."""
    low, high = 0.0, 1.0
    while _t_between(high, freedom) < level:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_between(middle, freedom) < level else (low, middle)
    return high


def _t_between(t: float, freedom: int) -> float:
    """P(−t < T < t), as a finite sum (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, term, total = math.cos(angle), 1.0, 0.0
    if freedom % 2 == 0:
        for k in range(0, freedom - 1, 2):
            total += term
            term *= cosine**2 * (k + 1) / (k + 2)
        return math.sin(angle) * total
    term = cosine
    for k in range(1, freedom - 1, 2):
        total += term
        term *= cosine**2 * (k + 1) / (k + 2)
    return 2 / math.pi * (angle + math.sin(angle) * total)


def _bonett_price(wins: int, losses: int, n: int, level: float) -> tuple[float, float]:
    """The adjusted interval of a difference of paired proportions (Bonett and Price 2012): one more win and one more
    loss, so that it has a width where all rows are ties."""
    gained, lost = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
    half = _z(level) * math.sqrt((gained + lost - (gained - lost) ** 2) / (n + 2))
    return max(-1.0, gained - lost - half), min(1.0, gained - lost + half)
