"""What lies ahead: loads and prices as they are expected, and what microgrids ask their predictor about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from peergrid.envs.microgrid import Interval, battery_reach, export_range
from peergrid.envs.p2p_trading.predictors import Prediction, Predictor, Question, no_prediction
from peergrid.envs.p2p_trading.transition import intervals_from
from peergrid.envs.p2p_trading.types import Days, Params, State

ALONG = 0.5  # share of its own change by which a microgrid supposes that the others change
AHEAD_OPTIONS = ("no trade", "full import", "full export")


@dataclass(frozen=True, eq=False, kw_only=True)
class Expected:
    """Loads and LMP of the interval that begins, as they are, and of later ones, as everybody may expect them."""

    load_kw: Float[np.ndarray, "batch ahead bus"]
    load_kvar: Float[np.ndarray, "batch ahead bus"]
    lmp_per_kwh: Float[np.ndarray, "batch ahead"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Foretold:
    """What was predicted, when the day began, of each own nodal price above the LMP, with intervals.

    For each interval of the day and of the lookahead beyond, without a trade of one's own, at full import and at full
    export, the others moving along.
    """

    above_lmp_per_kwh: Float[np.ndarray, "batch agent time option"]
    above_lmp_low_per_kwh: Float[np.ndarray, "batch agent time option"]
    above_lmp_high_per_kwh: Float[np.ndarray, "batch agent time option"]


def expected(state: State, days: Days, params: Params, intervals: int) -> Expected:
    """What is expected of so many intervals, from the one that begins on.

    That one is known. Later ones are as published the day before, and what it is off by persists:

        load(k) = forecast(k) (1 + rho^k (load(0) / forecast(0) - 1))

    for every bus, likewise the LMP around the day-ahead price; neither exceeds what its source can draw.
    """
    known, ahead, now = params.forecasting, intervals_from(state.interval, 0, intervals), intervals_from(state.interval)

    def of_loads(actual: np.ndarray, forecast: np.ndarray, nominal: np.ndarray) -> np.ndarray:
        most = known.max_load_pu * np.abs(nominal)
        return _persisting(actual[now], forecast[ahead], known.load_persistence, most)

    return Expected(
        load_kw=of_loads(days.load_kw, days.load_forecast_kw, params.feeder.load_kw),
        load_kvar=of_loads(days.load_kvar, days.load_forecast_kvar, params.feeder.load_kvar),
        lmp_per_kwh=expected_lmp_per_kwh(state, days, params, intervals),
    )


def expected_lmp_per_kwh(state: State, days: Days, params: Params, intervals: int) -> Float[np.ndarray, "batch ahead"]:
    """The LMP alone, as `expected` has it."""
    known, ahead, now = params.forecasting, intervals_from(state.interval, 0, intervals), intervals_from(state.interval)
    most = np.asarray(known.max_lmp_per_kwh)
    return _persisting(days.lmp_per_kwh[now], days.lmp_day_ahead_per_kwh[ahead], known.lmp_persistence, most)


def expected_feeder_load_kw(
    state: State, days: Days, params: Params, intervals: int
) -> Float[np.ndarray, "batch ahead"]:
    """The load of the whole feeder, from its forecast and what that is off by in sum."""
    known, ahead, now = params.forecasting, intervals_from(state.interval, 0, intervals), intervals_from(state.interval)
    most = np.asarray(known.max_load_pu * np.abs(params.feeder.load_kw).sum())
    actual, forecast = days.load_kw[now].sum(axis=-1), days.load_forecast_kw[ahead].sum(axis=-1)
    return _persisting(actual, forecast, known.load_persistence, most)


def _persisting(
    actual: Float[np.ndarray, "batch *more"],
    forecast: Float[np.ndarray, "batch ahead *more"],
    persistence: float,
    most: Float[np.ndarray, "*more"],
) -> Float[np.ndarray, "batch ahead *more"]:
    """What is expected of the intervals of a forecast, the first of which is known."""
    first = forecast[:, 0]
    off = np.divide(actual, first, out=np.ones_like(first), where=first != 0) - 1.0
    left = persistence ** np.arange(forecast.shape[1]).reshape(-1, *[1] * (forecast.ndim - 2))
    values: Float[np.ndarray, "batch ahead *more"] = (forecast * (1.0 + left * off[:, None])).clip(-most, most)
    values[:, 0] = actual
    return values


def supposed(
    own_kw: Float[np.ndarray, "batch agent ahead option"],
    others_kw: Float[np.ndarray, "batch #ahead trade"],
) -> Float[np.ndarray, "batch agent ahead option trade"]:
    """What each microgrid supposes everybody to propose: its own proposals, and the others' as given."""
    everybody = np.broadcast_to(others_kw[:, None, :, None, :], (*own_kw.shape, own_kw.shape[1])).copy()
    np.einsum("bakoa->bako", everybody)[...] = own_kw
    return everybody


def moving_along(
    own_kw: Float[np.ndarray, "batch agent ahead option"], state: State, params: Params, share: float = ALONG
) -> Float[np.ndarray, "batch agent ahead option trade"]:
    """What each microgrid supposes everybody to propose if the others change as it does.

    Its own proposals are as given. Of another it supposes what was accepted of that one last, plus `share` of its own
    change since then times the ratio of their ratings: a dear hour or a strong sun moves all of them.
    """
    rating, last = params.microgrids.rating_kw, state.last_accepted_kw
    changed = (own_kw - last[:, :, None, None]) / rating[:, None, None]
    everybody = last[:, None, None, None, :] + share * changed[..., None] * rating
    everybody = everybody.clip(-rating, rating)
    np.einsum("bakoa->bako", everybody)[...] = own_kw
    return everybody


def ask(
    supposed_kw: Float[np.ndarray, "batch agent ahead option trade"],
    coming: Expected,
    state: State,
    predictor: Predictor,
    params: Params,
    predicted_intervals: int | None = None,
) -> Prediction:
    """What the predictor says to proposals in the intervals from the one that begins on, from what was published.

    Args:
        predicted_intervals: Later ones are answered as without a predictor; the market's own number if None.
    """
    intervals = supposed_kw.shape[2]
    predicted = min(params.predicted_intervals if predicted_intervals is None else predicted_intervals, intervals)
    question = Question(
        load_kw=coming.load_kw[:, :intervals],
        load_kvar=coming.load_kvar[:, :intervals],
        lmp_per_kwh=coming.lmp_per_kwh[:, :intervals],
        published_per_kwh=state.last_price_per_kwh,
        published_lmp_per_kwh=state.last_lmp_per_kwh,
        supposed_kw=supposed_kw,
    )
    if predicted == intervals:
        return predictor(question, params.public)
    blind = no_prediction(question, params.public)
    if predicted == 0:
        return blind
    seen = predictor(question.between(0, predicted), params.public)
    names = Prediction.__dataclass_fields__
    ends = {name: getattr(blind, name)[:, :, predicted:] for name in names}
    return Prediction(**{name: np.concatenate([getattr(seen, name), ends[name]], axis=2) for name in names})


def foretell(state: State, days: Days, predictor: Predictor, params: Params) -> Foretold:
    """What is predicted of the whole day and its lookahead when it begins, from what was published the day before."""
    n = days.lmp_per_kwh.shape[1]
    coming = Expected(
        load_kw=days.load_forecast_kw,
        load_kvar=days.load_forecast_kvar,
        lmp_per_kwh=days.lmp_day_ahead_per_kwh,
    )
    own_kw = np.zeros((*state.stored_kwh.shape, n, len(AHEAD_OPTIONS)))
    own_kw[..., 1:] = np.stack(reach(days, params), axis=-1).swapaxes(1, 2)
    is_wanted = params.predicted_intervals > 1
    everybody = moving_along(own_kw, state, params)
    found = ask(everybody, coming, state, predictor, params, n if is_wanted else 0)
    lmp = days.lmp_day_ahead_per_kwh[:, None, :, None]
    return Foretold(
        above_lmp_per_kwh=found.price_per_kwh - lmp,
        above_lmp_low_per_kwh=found.price_low_per_kwh - lmp,
        above_lmp_high_per_kwh=found.price_high_per_kwh - lmp,
    )


def reach(
    days: Days, params: Params
) -> tuple[Float[np.ndarray, "batch time agent"], Float[np.ndarray, "batch time agent"]]:
    """Full import and full export of each microgrid in every interval, by the forecast sun, with a free battery."""
    interval = Interval(
        pv_kw=days.pv_forecast_kw,
        demand_kw=days.demand_kw,
        alpha_per_kw2h=days.alpha_per_kw2h,
        battery_kw=np.zeros_like(days.pv_kw),
    )
    least_kw, most_kw = export_range(params.microgrids, interval)
    charging_kw, discharging_kw = battery_reach(params.microgrids, interval)
    return least_kw + charging_kw, most_kw + discharging_kw
