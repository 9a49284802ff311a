"""What does each agent see? A flat vector whose entries have names, units and ranges."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

from peergrid.envs.entries import PRICE_UNIT_PER_KWH, Entry
from peergrid.envs.p2p_trading.predictors import Prediction, Predictor, Question
from peergrid.envs.p2p_trading.transition import current_interval, intervals_from
from peergrid.envs.p2p_trading.types import Days, Now, Params, State

OPTIONS = ("full import", "last proposal", "full export")


def layout(params: Params) -> tuple[Entry, ...]:
    """The entries of an observation, in order; the same for every predictor and every microgrid."""
    highest = params.market.price_cap_per_kwh / PRICE_UNIT_PER_KWH
    rating, price = "share of rating", f"{PRICE_UNIT_PER_KWH:g} currency/kWh"

    def share(name: str, unit: str = "1", low: float = 0.0) -> Entry:
        return Entry(name=name, unit=unit, low=low, high=1.0)

    def priced(name: str, low: float = -highest) -> Entry:
        return Entry(name=name, unit=price, low=low, high=highest)

    ahead = range(1, params.lookahead)
    entries = [
        share("sine of time of day", low=-1.0),
        share("cosine of time of day", low=-1.0),
        share("share of the episode left"),
        share("state of charge", "share of usable energy"),
        share("least battery power", "share of battery rating", -1.0),
        share("most battery power", "share of battery rating", -1.0),
        share("PV now", rating),
        *(share(f"PV forecast in {k} intervals", rating) for k in ahead),
        share("reference demand now", rating),
        priced("diesel cost at no output", 0.0),
        priced("diesel cost at full output", 0.0),
        share("diesel capacity", rating),
        priced("utility of the first kWh", 0.0),
        priced("LMP now", 0.0),
        *(priced(f"day-ahead LMP in {k} intervals", 0.0) for k in ahead),
        priced("own nodal price in the last interval"),
        share("own proposal in the last interval", rating, -1.0),
        share("share of it that was accepted"),
    ]
    for option in OPTIONS:
        entries += [
            share(f"{option}: proposal", rating, -1.0),
            *(share(f"{option}: predicted acceptance{what}", rating, -1.0) for what in ("", ", low", ", high")),
            *(priced(f"{option}: predicted nodal price{what}") for what in ("", ", low", ", high")),
        ]
    return tuple(entries)


def proposals(now: Now, state: State) -> Float[np.ndarray, "batch agent option"]:
    """The three proposals whose response is predicted: full import, the last proposal, full export."""
    # Full import is at most a withdrawal, full export at least none.
    least_kw = np.minimum(now.idle_least_kw + now.battery_least_kw, 0.0)
    most_kw = np.maximum(now.idle_most_kw + now.battery_most_kw, 0.0)
    proposed_kw = np.empty((*least_kw.shape, len(OPTIONS)))
    for k, option_kw in enumerate((least_kw, state.last_proposed_kw.clip(least_kw, most_kw), most_kw)):
        proposed_kw[..., k] = option_kw
    return proposed_kw


def ask(
    proposed_kw: Float[np.ndarray, "batch agent option"], now: Now, state: State, predictor: Predictor, params: Params
) -> Prediction:
    """What the predictor says to proposals in this interval, from what was published."""
    question = Question(
        load_kw=now.load_kw,
        load_kvar=now.load_kvar,
        lmp_per_kwh=now.lmp_per_kwh,
        published_kw=state.last_accepted_kw,
        published_price_per_kwh=state.last_price_per_kwh,
        proposed_kw=proposed_kw,
    )
    return predictor(question, params)


def observe(state: State, days: Days, predictor: Predictor, params: Params) -> Float[np.ndarray, "batch agent entry"]:
    """What every microgrid sees before it acts, entry by entry as `layout` says; not clipped to its range yet."""
    now = current_interval(state, days, params)
    asked_kw = proposals(now, state)
    prediction = ask(asked_kw, now, state, predictor, params)
    grids, last = params.microgrids, state.last_proposed_kw
    rating = grids.rating_kw
    usable = np.maximum(grids.energy_max_kwh - grids.energy_min_kwh, 1e-9)
    battery_rating = np.maximum(grids.battery_rating_kw, 1e-9)

    def per_price(price: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return price / PRICE_UNIT_PER_KWH

    hours = 2.0 * np.pi * (state.step * params.step_hours % 24.0)[:, None] / 24.0
    ahead = intervals_from(state.step, 1, params.lookahead)
    columns = (
        np.sin(hours),
        np.cos(hours),
        (params.intervals - state.step)[:, None] / params.intervals,
        (state.stored_kwh - grids.energy_min_kwh) / usable,
        now.battery_least_kw / battery_rating,
        now.battery_most_kw / battery_rating,
        now.interval.pv_kw / rating,
        days.pv_forecast_kw[ahead].swapaxes(0, 1) / rating,
        now.interval.demand_kw / rating,
        per_price(grids.diesel_b_per_kwh),
        per_price(grids.diesel_b_per_kwh + 2.0 * grids.diesel_a_per_kw2h * grids.diesel_max_kw),
        grids.diesel_max_kw / rating,
        per_price(grids.utility_w_per_kwh),
        per_price(now.lmp_per_kwh[:, None]),
        per_price(days.lmp_day_ahead_per_kwh[ahead].T[..., None]),
        per_price(state.last_price_per_kwh),
        last / rating,
        np.divide(state.last_accepted_kw, last, out=np.ones_like(last), where=np.abs(last) > 1e-9),
    )
    powers = [asked_kw, prediction.accepted_kw, prediction.accepted_low_kw, prediction.accepted_high_kw]
    prices = [prediction.price_per_kwh, prediction.price_low_per_kwh, prediction.price_high_per_kwh]
    of_options = (np.array(powers) / rating[:, None], per_price(np.array(prices)))

    # What is ahead comes with a first axis for its entries.
    widths = [len(column) if column.ndim == 3 else 1 for column in columns]
    n_own, n_asked = sum(widths), len(OPTIONS) * (len(powers) + len(prices))
    seen, end = np.empty((*last.shape, n_own + n_asked)), 0
    entries = seen.transpose(2, 0, 1)
    for column, width in zip(columns, widths, strict=True):
        start, end = end, end + width
        entries[start:end] = column
    asked = seen[..., end:].reshape(*last.shape, len(OPTIONS), -1)
    np.concatenate(of_options, out=asked.transpose(3, 0, 1, 2))
    return seen


def state_layout(params: Params) -> tuple[Entry, ...]:
    """The entries of the global state: what every microgrid sees, then load and last voltage of every bus."""
    agents = range(len(params.trade_bus))
    seen = [
        Entry(name=f"microgrid_{i}: {e.name}", unit=e.unit, low=e.low, high=e.high)
        for i in agents
        for e in layout(params)
    ]
    buses = params.feeder.bus
    loads = [Entry(name=f"bus {b}: load", unit="share of nominal feeder load", low=-1.0, high=1.0) for b in buses]
    volts = [Entry(name=f"bus {b}: last voltage", unit="p.u.", low=0.0, high=2.0) for b in buses]
    return tuple(seen + loads + volts)


def global_state(
    observation: Float32[np.ndarray, "batch agent entry"], state: State, days: Days, params: Params
) -> Float[np.ndarray, "batch entry_of_state"]:
    """The global state of every row, for centralised critics; not clipped to its range yet."""
    now_kw = days.load_kw[np.arange(len(state.step)), state.step]
    flat = observation.reshape(len(observation), -1)
    return np.concatenate([flat, now_kw / params.feeder.base_kva, state.last_voltage_pu], axis=-1)
