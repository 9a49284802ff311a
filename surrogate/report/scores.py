"""How far are predictions off? Errors, decisions to curtail, and how often intervals hold the truth.

All scores are over the microgrids' buses (shedding: over all), from rows that the exact DSO solved to its tolerance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from peergrid.grid.dso import is_curtailed
from peergrid.surrogate.questions import ENDS, Answers
from peergrid.surrogate.samples import Samples

FULLY_SHED_SHARE = 0.99  # of the load: with hardly any load left at a bus, the price there is arbitrary
# The exact acceptance may miss its interval by this share of the rating, which is the exact solver's own error.
COVERAGE_TOLERANCE = 1e-4
SHEDDING_NOISE_KW = 1e-2  # where nobody is shed, what the exact solver leaves is far below this


@dataclass(frozen=True)
class Errors:
    """How far predictions are off; NaN where there is nothing to compare."""

    r2: float
    rmse: float
    mae: float


@dataclass(frozen=True)
class Coverage:
    """How often the truth lies in its interval, and how wide intervals are on average."""

    price: float
    price_curtailed: float
    accepted: float
    accepted_curtailed: float
    width_per_kwh: float
    width_share_of_rating: float
    width_share_of_rating_curtailed: float


@dataclass(frozen=True)
class Score:
    """How well a method predicts a set; corrections and shedding in kW, prices in currency per kWh.

    Prices are of buses whose load is not fully shed, whose share among all is `fully_shed`. A proposal counts
    as curtailed where its correction is more than 1 % of the rating.
    """

    rows: int
    rows_left_out: int
    curtailed: float
    fully_shed: float
    correction_curtailed: Errors
    correction: Errors
    accepted_mae_of_rating: float
    accepted_mae_of_no_curtailment: float
    precision: float
    recall: float
    f1: float
    price: Errors
    shed: Errors | None
    coverage: Coverage | None


def score(samples: Samples, answers: Answers, rating_kw: Float[np.ndarray, " trade"], trade_bus: np.ndarray) -> Score:
    """How well a method's answers, with prices at the trades' buses, meet those of the exact DSO."""
    solved = samples.status == 0
    accepted, proposed = samples.accepted_kw[solved].astype(float), samples.proposed_kw[solved].astype(float)
    price, load = samples.price_per_kwh[solved][:, trade_bus], samples.load_kw[solved][:, trade_bus]
    said_accepted, said_price = answers.accepted_kw[solved], answers.price_per_kwh[solved]
    correction, said_correction = proposed - accepted, proposed - said_accepted
    cut = is_curtailed(proposed, accepted, rating_kw)
    said_cut = is_curtailed(proposed, said_accepted, rating_kw)
    is_shed = (load > 0) & (samples.shed_kw[solved][:, trade_bus] >= FULLY_SHED_SHARE * load)
    mae = float(np.mean(np.abs(said_accepted - accepted) / rating_kw))
    hits = float((cut & said_cut).sum())
    return Score(
        rows=int(solved.sum()),
        rows_left_out=int((~solved).sum()),
        curtailed=float(cut.mean()),
        fully_shed=float(is_shed.mean()),
        correction_curtailed=_errors(correction[cut], said_correction[cut]),
        correction=_errors(correction, said_correction),
        accepted_mae_of_rating=mae,
        accepted_mae_of_no_curtailment=_ratio(mae, float(np.mean(np.abs(correction) / rating_kw))),
        precision=_ratio(hits, float(said_cut.sum())),
        recall=_ratio(hits, float(cut.sum())),
        f1=_ratio(2.0 * hits, float(cut.sum() + said_cut.sum())),
        price=_errors(price[~is_shed], said_price[~is_shed]),
        shed=None
        if answers.shed_kw is None
        else _errors(samples.shed_kw[solved], answers.shed_kw[solved], SHEDDING_NOISE_KW),
        coverage=_coverage(answers, solved, accepted, price, cut, is_shed, rating_kw)
        if answers.has_intervals
        else None,
    )


def _coverage(
    answers: Answers,
    solved: Bool[np.ndarray, " row"],
    accepted_kw: Float[np.ndarray, "solved trade"],
    price_per_kwh: Float[np.ndarray, "solved trade"],
    cut: Bool[np.ndarray, "solved trade"],
    is_shed: Bool[np.ndarray, "solved trade"],
    rating_kw: Float[np.ndarray, " trade"],
) -> Coverage:
    low_kw, high_kw, low, high = (getattr(answers, name)[solved] for name in ENDS)
    room_kw = COVERAGE_TOLERANCE * rating_kw
    holds_accepted = (accepted_kw >= low_kw - room_kw) & (accepted_kw <= high_kw + room_kw)
    holds_price = (price_per_kwh >= low) & (price_per_kwh <= high)
    return Coverage(
        price=_share(holds_price[~is_shed]),
        price_curtailed=_share(holds_price[~is_shed & cut]),
        accepted=_share(holds_accepted),
        accepted_curtailed=_share(holds_accepted[cut]),
        width_per_kwh=float((high - low).astype(float)[~is_shed].mean()),
        width_share_of_rating=float(((high_kw - low_kw) / rating_kw).mean()),
        width_share_of_rating_curtailed=float(((high_kw - low_kw) / rating_kw)[cut].mean()) if cut.any() else math.nan,
    )


def _errors(truth: Float[np.ndarray, "..."], said: Float[np.ndarray, "..."], noise: float = 0.0) -> Errors:
    """A truth that deviates from its mean by no more than the noise has no R2."""
    if not truth.size:
        return Errors(math.nan, math.nan, math.nan)
    truth = truth.astype(float)
    off = said - truth
    variance = float(np.mean((truth - truth.mean()) ** 2))
    square = float(np.mean(off**2))
    r2 = 1.0 - square / variance if variance > noise**2 else math.nan
    return Errors(r2=r2, rmse=math.sqrt(square), mae=float(np.mean(np.abs(off))))


def _share(claims: Bool[np.ndarray, "..."]) -> float:
    return _ratio(float(claims.sum()), float(claims.size))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
