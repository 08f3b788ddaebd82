"""Intervals and p-values agree with scipy and statsmodels, hold their level, and refuse what is no score."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from dspynb.errors import InputError
from dspynb.running.tables.statistics import (
    _bonett_price,
    _t_quantile,
    mcnemar_exact,
    mean_interval,
    paired_difference,
    wilson,
)

RNG = np.random.default_rng(11)
BOUNDED = {
    "even": RNG.random(60),
    "nearly all right": np.where(RNG.random(80) < 0.8, 1.0, RNG.random(80)),
    "skewed": RNG.beta(5, 1, 200),
    "three values": RNG.choice([0, 0.5, 1], 40),
}


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (3, 7), (19, 20), (20, 20), (0, 500), (317, 1000)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_all_binary_scores_get_wilsons_interval(successes, n, level):
    interval = mean_interval([True] * successes + [False] * (n - successes), level=level)
    assert (interval.low, interval.high) == pytest.approx(
        proportion_confint(successes, n, alpha=1 - level, method="wilson"), abs=1e-12
    )
    assert (interval.method, interval.n, interval.mean) == ("wilson", n, pytest.approx(successes / n))


@pytest.mark.parametrize("degrees", range(1, 20))
def test_the_t_quantile_is_scipys(degrees):
    for level in (0.5, 0.95, 0.999):
        assert _t_quantile(level, degrees) == pytest.approx(stats.t.ppf((1 + level) / 2, degrees), rel=1e-9)


@pytest.mark.parametrize("n", [2, 3, 10, 19])
def test_few_scores_get_students_interval(n):
    values = np.random.default_rng(n).random(n)
    interval = mean_interval(values)
    known = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (interval.low, interval.high, interval.method) == (pytest.approx(known[0]), pytest.approx(known[1]), "t")


@pytest.mark.parametrize("name", BOUNDED)
def test_more_scores_get_the_bca_interval(name):
    values = BOUNDED[name]
    interval = mean_interval(values)
    known = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=50_000, rng=1).confidence_interval
    near = 0.05 * (known.high - known.low) + 0.5 / len(values)  # both are drawn; means of few values come in steps
    assert (interval.low, interval.high) == (pytest.approx(known.low, abs=near), pytest.approx(known.high, abs=near))
    assert interval.method == "bca"
    assert interval.low < interval.mean < interval.high


def test_very_many_scores_get_the_normal_interval_which_is_then_the_same():
    values = np.random.default_rng(0).beta(5, 1, 1001)
    interval, bca = mean_interval(values), mean_interval(values[:1000])
    known = stats.norm.interval(0.95, loc=values.mean(), scale=stats.sem(values))
    assert (interval.low, interval.high, interval.method) == (
        pytest.approx(known[0]),
        pytest.approx(known[1]),
        "normal",
    )
    assert (interval.low, interval.high) == (pytest.approx(bca.low, abs=2e-3), pytest.approx(bca.high, abs=2e-3))


@pytest.mark.parametrize("n", [5, 10, pytest.param(30, marks=pytest.mark.slow)])
def test_intervals_hold_their_level_on_even_scores(n):
    rng = np.random.default_rng(n)
    held = [i.low <= 0.5 <= i.high for i in (mean_interval(rng.random(n)) for _ in range(300))]
    assert np.mean(held) >= 0.91  # 0.95 less three standard errors


def test_one_score_that_is_not_binary_has_no_interval():
    interval = mean_interval([0.7])
    assert (interval.mean, interval.low, interval.high, interval.method, str(interval)) == (
        0.7,
        None,
        None,
        "none",
        "0.7",
    )


def test_equal_scores_have_an_interval_of_no_width_unless_they_are_binary():
    assert (mean_interval([0.3] * 7).low, mean_interval([0.3] * 50).high) == (0.3, 0.3)
    assert mean_interval([1.0] * 10).low == pytest.approx(0.722, abs=1e-3)


def test_the_same_seed_gives_the_same_interval():
    values = BOUNDED["even"]
    assert mean_interval(values, seed=4) == mean_interval(list(values), seed=4)
    assert mean_interval(values, seed=4) != mean_interval(values, seed=5)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (5, 0), (3, 3), (7, 2), (40, 21), (600, 550)])
def test_mcnemars_test_is_statsmodels(wins, losses):
    known = mcnemar([[10, wins], [losses, 10]], exact=True).pvalue if wins + losses else 1.0
    assert mcnemar_exact(wins, losses) == pytest.approx(known, rel=1e-9)


def test_mcnemars_test_works_for_many_rows():
    assert mcnemar_exact(60_000, 59_000) == pytest.approx(stats.binomtest(59_000, 119_000).pvalue, rel=1e-6)


def test_binary_pairs_are_tested_by_mcnemar():
    paired = paired_difference([0, 0, 1, 1, 0, 1], [1, 1, 1, 0, 1, 1])
    assert (paired.wins, paired.ties, paired.losses, paired.n) == (3, 2, 1, 6)
    assert (paired.test, paired.p_value, paired.difference) == ("mcnemar", pytest.approx(0.625), pytest.approx(2 / 6))
    assert paired.low < paired.difference < paired.high


@pytest.mark.parametrize("n", [5, 10, 20, 40])
@pytest.mark.parametrize(("gained", "lost"), [(0.1, 0.1), (0.3, 0.1), (0.05, 0.0), (0.5, 0.2), (0.9, 0.05)])
def test_the_interval_of_binary_pairs_holds_its_level_counted_over_all_outcomes(n, gained, lost):
    held = 0.0
    for wins in range(n + 1):
        for losses in range(n + 1 - wins):
            low, high = _bonett_price(wins, losses, n, 0.95)
            if low <= gained - lost <= high:
                held += stats.multinomial.pmf([wins, losses, n - wins - losses], n, [gained, lost, 1 - gained - lost])
    assert held >= 0.94


@pytest.mark.parametrize("n", [8, 30, 200])
def test_graded_pairs_are_tested_by_the_paired_bootstrap_which_agrees_with_t_and_permutation(n):
    rng = np.random.default_rng(n)
    base, other = rng.random(n), rng.random(n) + 0.1
    paired = paired_difference(base, other)
    permuted = stats.permutation_test(
        (other, base),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        rng=0,
    )
    assert paired.test == "paired bootstrap"
    assert paired.p_value == pytest.approx(stats.ttest_rel(other, base).pvalue, abs=0.03)
    assert paired.p_value == pytest.approx(permuted.pvalue, abs=0.04)
    interval = mean_interval(other - base)
    assert (paired.low, paired.high) == (interval.low, interval.high)


@pytest.mark.parametrize("n", [5, 10, pytest.param(30, marks=pytest.mark.slow)])
def test_the_paired_bootstrap_seldom_finds_a_difference_where_there_is_none(n):
    rng, runs = np.random.default_rng(n), 300
    significant = sum(paired_difference(rng.random(n), rng.random(n)).p_value <= 0.05 for _ in range(runs))
    assert significant / runs <= 0.09  # 0.05 and three standard errors


def test_few_pairs_give_a_large_p_value_however_equal_their_differences():
    assert paired_difference([0.1, 0.2, 0.3], [0.6, 0.7, 0.8]).p_value == 0.25
    assert paired_difference([0.5], [0.7]).p_value == 1.0
    assert paired_difference([0], [1]).p_value == 1.0


def test_pairs_that_all_tie_have_a_difference_of_0():
    graded = paired_difference([0.5, 0.25] * 15, [0.5, 0.25] * 15)
    assert (graded.difference, graded.low, graded.high, graded.p_value, graded.ties) == (0, 0, 0, 1.0, 30)
    binary = paired_difference([1, 0], [1, 0])
    assert binary.p_value == 1.0
    assert binary.low < 0 < binary.high


def test_a_difference_that_is_only_rounding_is_a_tie():
    assert paired_difference([0.3, 0.5], [0.1 + 0.2, 0.5]).ties == 2


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=19))
def test_swapping_the_programs_turns_the_difference_round(pairs):
    base, other = zip(*pairs, strict=True)
    there, back = paired_difference(base, other), paired_difference(other, base)
    assert there.difference == pytest.approx(-back.difference)
    assert (there.wins, there.ties, there.losses) == (back.losses, back.ties, back.wins)
    assert there.wins + there.ties + there.losses == there.n == len(pairs)
    assert 0 <= there.p_value <= 1
    if there.low is not None:
        assert (there.low, there.high) == (pytest.approx(-back.high), pytest.approx(-back.low))


@pytest.mark.parametrize("bad", [[], [0.5, math.nan], [1, math.inf], [None], ["1"], "101", 5, [[1]]])
def test_values_that_are_no_scores_are_refused(bad):
    with pytest.raises(InputError):
        mean_interval(bad)
    with pytest.raises(InputError):
        paired_difference([1, 0], bad)


def test_errors_name_the_score():
    with pytest.raises(InputError, match=r"values: score 1 is nan"):
        mean_interval(pd.Series([1.0, math.nan], index=[7, 7]))
    with pytest.raises(InputError, match="base has 2, other 3"):
        paired_difference([0, 1], [0, 1, 1])
    for level in (0, 1, 95, True):
        with pytest.raises(InputError, match="level"):
            mean_interval([0, 1], level=level)
    with pytest.raises(InputError):
        wilson(3, 2)
    with pytest.raises(InputError):
        mcnemar_exact(-1, 2)


def test_frames_and_arrays_are_lists_of_scores():
    assert mean_interval(pd.Series([True, False])) == mean_interval(np.array([1, 0])) == mean_interval([1.0, 0.0])
