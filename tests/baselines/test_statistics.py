"""Interquartile means and their intervals, against other software and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, trim_mean

from peergrid.baselines.statistics import (
    estimate_score,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    scores_of_runs,
)


@pytest.mark.parametrize("n", [4, 8, 20, 40])
def test_the_interquartile_mean_is_scipy_s_trimmed_mean_where_quarters_are_whole(n):
    values = np.random.default_rng(n).normal(size=(3, n))
    np.testing.assert_allclose(interquartile_mean(values), trim_mean(values, 0.25, axis=-1))


def test_runs_on_the_edge_count_in_part():
    assert interquartile_mean(np.array([0.0, 1.0, 2.0])) == pytest.approx(1.0)
    # Of five runs, 2.5 lie between the quartiles: three quarters of the second and fourth, all of the third.
    assert interquartile_mean(np.array([0.0, 1.0, 2.0, 6.0, 100.0])) == pytest.approx((0.75 + 2.0 + 0.75 * 6.0) / 2.5)
    assert interquartile_mean(np.array([7.0])) == pytest.approx(7.0)


def test_no_trade_scores_0_and_the_optimum_100():
    no_trade, optimum = np.array([1.0, -3.0, 2.0]), np.array([5.0, -2.0, 8.0])
    runs = np.stack([no_trade, optimum, no_trade + 0.25 * (optimum - no_trade)])
    np.testing.assert_allclose(scores_of_runs(runs - no_trade, optimum - no_trade), [0.0, 100.0, 25.0])


def test_an_interval_over_days_alone_is_that_of_scipy():
    rng = np.random.default_rng(1)
    possible = rng.uniform(5, 15, 20)
    gained = 0.4 * possible + rng.normal(0, 1, 20)
    found = estimate_score(gained[None], possible)
    other = bootstrap(
        (gained, possible),
        lambda g, p, axis=-1: 100 * g.sum(axis=axis) / p.sum(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.5)
    assert found.value == pytest.approx(100 * gained.sum() / possible.sum())


def test_an_interval_covers_the_truth_as_often_as_it_says():
    rng, covered = np.random.default_rng(3), 0
    for k in range(100):
        possible = rng.uniform(9, 11, 30)
        level = 40 + rng.normal(0, 3, 10)  # of each run
        gained = possible * (level[:, None] + rng.normal(0, 5, (10, 30))) / 100
        found = estimate_score(gained, possible, seed=k)
        assert found.low <= found.value <= found.high
        covered += found.low <= 40 <= found.high
    assert 84 <= covered <= 99


def test_improvement_and_profile_by_hand():
    assert probability_of_improvement(np.array([2.0, 3.0]), np.array([1.0, 2.0])) == pytest.approx(
        (1 + 0.5 + 1 + 1) / 4
    )
    profile = performance_profile(np.array([10.0, 20.0, 30.0]), np.array([0.0, 10.0, 25.0, 40.0]))
    np.testing.assert_allclose(profile, [1.0, 2 / 3, 1 / 3, 0.0])
