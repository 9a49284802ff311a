"""How sure a score is: interquartile means with stratified bootstrap intervals over seeds and days.

A score is a ratio of sums over days, so days are resampled together for what was gained and for what was possible.
Source of the protocol: Agarwal, Schwarzer, Castro, Courville and Bellemare, Deep RL at the Edge of the Statistical
Precipice, NeurIPS 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import trim_mean

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and its interval at CONFIDENCE."""

    value: float
    low: float
    high: float


def interquartile_mean(values: Float[np.ndarray, "... run"]) -> Float[np.ndarray, "..."]:
    """The mean without the lowest and the highest quarter of the runs, rounded down to whole runs."""
    return np.asarray(trim_mean(values, 0.25, axis=-1))


def scores_of_runs(
    gained: Float[np.ndarray, "... run day"], possible: Float[np.ndarray, "... day"]
) -> Float[np.ndarray, "... run"]:
    """The score of each run: what it gained over no trade on all days, as a share of what was possible."""
    return np.asarray(100.0 * gained.sum(axis=-1) / possible.sum(axis=-1)[..., None])


def estimate_score(
    gained: Float[np.ndarray, "run day"], possible: Float[np.ndarray, " day"], seed: int = 0
) -> Estimate:
    """The interquartile mean of the runs' scores; runs and days are resampled, each run on the same days."""
    rng = np.random.default_rng(seed)
    n_run, n_day = gained.shape
    runs = rng.integers(n_run, size=(RESAMPLES, n_run))
    days = rng.integers(n_day, size=(RESAMPLES, n_day))
    resampled = gained[runs[:, :, None], days[:, None, :]]
    spread = interquartile_mean(scores_of_runs(resampled, possible[days]))
    value = float(interquartile_mean(scores_of_runs(gained, possible)))
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(spread, [tail, 1.0 - tail])
    return Estimate(value=value, low=float(low), high=float(high))


def probability_of_improvement(ours: Float[np.ndarray, " run"], theirs: Float[np.ndarray, " run"]) -> float:
    """How often a run of ours scores more than one of theirs; ties count half."""
    difference = ours[:, None] - theirs
    return float((np.sign(difference) + 1.0).mean() / 2.0)


def performance_profile(
    scores: Float[np.ndarray, " run"], thresholds: Float[np.ndarray, " threshold"]
) -> Float[np.ndarray, " threshold"]:
    """The share of runs that score more than each threshold."""
    return np.asarray((scores[:, None] > thresholds).mean(axis=0))
