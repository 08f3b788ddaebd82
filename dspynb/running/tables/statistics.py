"""Confidence intervals of a mean score, and of the difference between two programs on the same rows.

One row is one observation. Where rows have repeated rollouts, pass the mean of each row: repeats of a row are not
independent (Miller 2024, "Adding Error Bars to Evals", on clustered standard errors). All results are deterministic for
a seed.

The interval depends on the scores:

- All scores 0 or 1: Wilson's interval (1927). It keeps its level for few rows and for means near 0 or 1, where the
  normal interval does not.
- Fewer than 20 rows: Student's t. Bootstrap intervals are too short there.
- Up to 1,000 rows: the BCa bootstrap (Efron 1987; Efron and Tibshirani 1993, section 14.3). It follows the skew of
  bounded scores.
- More rows: the normal interval, which by then agrees with the bootstrap.
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

_MIN_FOR_BOOTSTRAP = 20  # rows
_MAX_FOR_BOOTSTRAP = 1000  # rows
_RESAMPLES = 9999
_BLOCK = 2_000_000  # numbers drawn at once: 16 MB
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Interval:
    """The mean of ``n`` values with its interval at a ``level`` such as 0.95.

    ``low`` and ``high`` are None for a single value that is not binary, since it says nothing about the spread.
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
        if self.low is None:
            return f"{self.mean:.3g}"
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much higher ``other`` scored than ``base``, on the same rows.

    ``difference``: mean of other − base, with its interval ``low`` to ``high`` (None for a single row that is not
    binary). ``p_value``: two-sided, for the hypothesis of no difference. ``wins``, ``ties``, ``losses``: the number of
    rows on which ``other`` scored higher, the same, lower. ``method``: how the interval was computed, as in Interval,
    or ``bonett-price``. ``test``: how the p-value was computed, ``mcnemar`` or ``paired bootstrap``.
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
        interval = "" if self.low is None else f" [{self.low:+.3g}, {self.high:+.3g}]"
        return f"{self.difference:+.3g}{interval}, p = {self.p_value:.2g}"


def mean_interval(values: Sequence[float], *, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean of scores with its confidence interval: Wilson's if all scores are 0 or 1, else a bootstrap interval.

    ``level``: the confidence level, between 0 and 1. ``seed``: of the bootstrap. If all scores are one number other
    than 0 and 1, the interval has width 0, because resampling shows no spread: do not read it as certainty. Raises
    InputError if there are no values, or one is not a finite number.
    """
    data = _numbers(values, "values")
    level = _checked_level(level)
    if not _is_binary(data):
        return _interval(data, level, seed)
    low, high = wilson(int(data.sum()), len(data), level)
    return Interval(float(data.mean()), low, high, len(data), level, "wilson")


def paired_difference(
    base: Sequence[float], other: Sequence[float], *, level: float = 0.95, seed: int = 0
) -> PairedDifference:
    """The difference between the scores of two programs on the same rows, in the same order.

    Where all scores are 0 or 1: the exact McNemar test and the adjusted interval of Bonett and Price (2012). Otherwise:
    the interval of the mean difference, as in ``mean_interval``, and the p-value of the paired bootstrap with a
    studentised statistic on the centred differences (Efron and Tibshirani 1993, section 16.4). That p-value is never
    below ``2 ** (1 - k)`` for k rows that differ, the smallest p-value of an exact sign test. Raises InputError as
    ``mean_interval`` does, and where the lengths differ.
    """
    base_scores = _numbers(base, "base")
    other_scores = _numbers(other, "other")
    level = _checked_level(level)
    if len(base_scores) != len(other_scores):
        raise InputError(
            f"paired scores must be of the same rows; base has {len(base_scores)}, other {len(other_scores)}"
        )
    differences = _without_rounding(other_scores - base_scores)
    n = len(differences)
    wins = int((differences > 0).sum())
    losses = int((differences < 0).sum())
    low: float | None
    high: float | None
    if _is_binary(base_scores) and _is_binary(other_scores):
        low, high = _bonett_price(wins, losses, n, level)
        p_value = mcnemar_exact(wins, losses)
        method = "bonett-price"
        test = "mcnemar"
    else:
        interval = _interval(differences, level, seed)
        low = interval.low
        high = interval.high
        p_value = _bootstrap_p_value(differences, seed)
        method = interval.method
        test = "paired bootstrap"
    return PairedDifference(
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_value=p_value,
        wins=wins,
        ties=n - wins - losses,
        losses=losses,
        n=n,
        level=level,
        method=method,
        test=test,
    )


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927). Raises InputError for impossible counts or levels."""
    if not 0 <= successes <= n or n < 1:
        raise InputError(f"wilson: successes must be from 0 to n and n at least 1, got {successes} of {n}")
    z = _z(_checked_level(level))
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == n else middle + half
    return low, high


def mcnemar_exact(wins: int, losses: int) -> float:
    """The two-sided exact p-value of McNemar's test (1947): among pairs that differ, a win and a loss are equally
    likely. Raises InputError for a negative count."""
    k = wins + losses
    fewer = min(wins, losses)
    if fewer < 0:
        raise InputError(f"mcnemar_exact: counts must be at least 0, got {wins} and {losses}")
    probabilities = []
    for i in range(fewer + 1):
        log_binomial = math.lgamma(k + 1) - math.lgamma(i + 1) - math.lgamma(k - i + 1)
        probabilities.append(math.exp(log_binomial + k * math.log(0.5)))
    return min(1.0, 2 * math.fsum(probabilities))


def _numbers(values: object, name: str) -> Values:
    import numpy as np

    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        raise InputError(f"{name} must be a list of scores")
    scores = list(values)
    if not scores:
        raise InputError(f"{name}: there are no scores")
    numbers = []
    for i, value in enumerate(scores):
        number = _python_number(value)
        if not isinstance(number, int | float) or not math.isfinite(number):
            text = shorten(repr(value), 60)
            raise InputError(
                f"{name}: score {i} is {text}, not a finite number; decide first what a failed row counts as"
            )
        numbers.append(float(number))
    return np.array(numbers)


def _python_number(value: object) -> Any:
    """A score as a number of Python: unpacked from an Enum, and converted from numpy's types."""
    if isinstance(value, Enum):
        value = value.value
    if hasattr(value, "tolist"):
        return value.tolist()
    return value


def _checked_level(level: float) -> float:
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1 (0.95 for 95 %), got {level!r}")
    return float(level)


def _is_binary(data: Values) -> bool:
    return bool(((data == 0) | (data == 1)).all())


def _without_rounding(differences: Values) -> Values:
    """The differences, with 0 for those that are only rounding: 0.1 + 0.2 against 0.3 is a tie."""
    import numpy as np

    return np.where(np.abs(differences) < 1e-12, 0.0, differences)


def _z(level: float) -> float:
    return _NORMAL.inv_cdf((1 + level) / 2)


def _interval(data: Values, level: float, seed: int) -> Interval:
    n = len(data)
    mean = float(data.mean())
    if n == 1:
        return Interval(mean, None, None, n, level, "none")
    method = _method_for(n)
    if data.min() == data.max():
        value = float(data[0])  # the mean of many equal values may differ from it by rounding
        return Interval(value, value, value, n, level, method)
    if method == "bca":
        low, high = _bca(data, level, seed)
        return Interval(mean, low, high, n, level, method)
    quantile = _t_quantile(level, n - 1) if method == "t" else _z(level)
    half = quantile * float(data.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, level, method)


def _method_for(n: int) -> str:
    if n < _MIN_FOR_BOOTSTRAP:
        return "t"
    if n <= _MAX_FOR_BOOTSTRAP:
        return "bca"
    return "normal"


def _bca(data: Values, level: float, seed: int) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval of the mean (Efron and Tibshirani 1993, 14.9 to 14.15)."""
    import numpy as np

    mean = data.mean()
    means, _ = _resample(data, seed)
    below = float(((means < mean).sum() + (means <= mean).sum()) / (2 * len(means)))
    bias = _NORMAL.inv_cdf(min(max(below, 1 / len(means)), 1 - 1 / len(means)))
    deviations = data - mean
    acceleration = float((deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5))
    shares = []
    for z in (-_z(level), _z(level)):
        end = bias + z
        shares.append(_NORMAL.cdf(bias + end / (1 - acceleration * end)))
    low, high = np.quantile(means, shares)
    return float(low), float(high)


def _resample(data: Values, seed: int) -> tuple[Values, Values]:
    """Means and standard errors of bootstrap samples, drawn in blocks so that memory stays small."""
    import numpy as np

    n = len(data)
    rng = np.random.default_rng(seed)
    means = []
    errors = []
    remaining = _RESAMPLES
    block = max(1, _BLOCK // n)
    while remaining > 0:
        samples = data[rng.integers(0, n, (min(block, remaining), n))]
        means.append(samples.mean(axis=1))
        errors.append(samples.std(axis=1, ddof=1) / math.sqrt(n))
        remaining -= len(samples)
    return np.concatenate(means), np.concatenate(errors)


def _bootstrap_p_value(differences: Values, seed: int) -> float:
    import numpy as np

    n = len(differences)
    differing = int((differences != 0).sum())
    smallest = min(1.0, 2.0 ** (1 - differing))
    if smallest == 1.0:
        return 1.0
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    if error < 1e-12:
        return smallest
    observed = abs(mean) / error
    if n > _MAX_FOR_BOOTSTRAP:
        return max(smallest, 2 * _NORMAL.cdf(-observed))
    means, errors = _resample(differences - mean, seed)
    without_error = np.where(np.abs(means) > 1e-12, np.inf, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistics = np.where(errors > 1e-12, np.abs(means) / errors, without_error)
    as_large = int((statistics >= observed * (1 - 1e-9)).sum())
    return max(smallest, (1 + as_large) / (1 + len(means)))


@lru_cache(maxsize=256)
def _t_quantile(level: float, degrees: int) -> float:
    """The t for which P(−t < T < t) is ``level``, for Student's T with these degrees of freedom; by bisection."""
    low = 0.0
    high = 1.0
    while _t_probability(high, degrees) < level:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if _t_probability(middle, degrees) < level:
            low = middle
        else:
            high = middle
    return high


def _t_probability(t: float, degrees: int) -> float:
    """P(−t < T < t), as a finite sum (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine = math.cos(angle)
    is_even = degrees % 2 == 0
    term = 1.0 if is_even else cosine
    total = 0.0
    for k in range(0 if is_even else 1, degrees - 1, 2):
        total += term
        term *= cosine**2 * (k + 1) / (k + 2)
    if is_even:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + math.sin(angle) * total)


def _bonett_price(wins: int, losses: int, n: int, level: float) -> tuple[float, float]:
    """The adjusted interval of a difference of paired proportions (Bonett and Price 2012). It counts one more win and
    one more loss, so that it has a width even where all rows are ties."""
    win_share = (wins + 1) / (n + 2)
    loss_share = (losses + 1) / (n + 2)
    difference = win_share - loss_share
    half = _z(level) * math.sqrt((win_share + loss_share - difference**2) / (n + 2))
    return max(-1.0, difference - half), min(1.0, difference + half)
