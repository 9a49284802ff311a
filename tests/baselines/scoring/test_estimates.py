"""Interquartile means and their intervals, against other software and against what they promise."""

from __future__ import annotations

import sys

import absl.logging
import numpy as np
import pytest
from rliable.library import get_interval_estimates, run_score_deviation
from rliable.metrics import aggregate_iqm
from rliable.metrics import probability_of_improvement as rliable_probability_of_improvement
from scipy.stats import bootstrap

from peergrid.baselines.scoring.estimates import (
    estimate_score,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    scores_of_runs,
)


def test_the_interquartile_mean_leaves_whole_runs_out():
    assert interquartile_mean(np.array([0.0, 1.0, 2.0, 6.0, 100.0])) == pytest.approx(3.0)
    assert interquartile_mean(np.array([7.0])) == pytest.approx(7.0)


# absl, by which rliable logs, closes the stream that it found at import when logging is set up anew, as Hydra does it.
absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.mark.parametrize("n", [10, 20])
def test_means_intervals_and_profiles_are_those_of_rliable(n):
    runs, others = np.random.default_rng(n).normal(50.0, 10.0, (2, n))
    # Days that are all alike leave the runs alone to be resampled, as rliable does it.
    found = estimate_score(np.repeat(runs[:, None], 3, axis=1), np.full(3, 100.0))
    theirs = {"ours": runs[:, None]}
    value, interval = get_interval_estimates(theirs, lambda x: np.array([aggregate_iqm(x)]), reps=8000)
    assert found.value == pytest.approx(value["ours"][0])
    spread = runs.std() / np.sqrt(n)  # rliable draws unseeded
    np.testing.assert_allclose([found.low, found.high], interval["ours"][:, 0], atol=0.35 * spread)
    thresholds = np.linspace(20.0, 80.0, 13)
    theirs_at = [float(run_score_deviation(runs[:, None], tau)) for tau in thresholds]
    np.testing.assert_allclose(performance_profile(runs, thresholds), theirs_at)
    improved = rliable_probability_of_improvement(runs[:, None], others[:, None])
    assert probability_of_improvement(runs, others) == pytest.approx(improved)


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
