"""What does each agent see? A flat vector whose entries have names, units and ranges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float32

from peergrid.envs.common.entries import BENT_PRICE, PRICE_UNIT_PER_KWH, Entry, bent
from peergrid.envs.devices.device import Fleet
from peergrid.envs.p2p_trading.outlook import (
    AHEAD_OPTIONS,
    Foretold,
    ask,
    expected,
    expected_feeder_load_kw,
    expected_lmp_per_kwh,
    supposed,
)
from peergrid.envs.p2p_trading.predictors import Predictor
from peergrid.envs.p2p_trading.transition import intervals_from
from peergrid.envs.p2p_trading.types import Days, Now, Params, State

OPTIONS = ("full import", "no trade", "last proposal", "full export")


def layout(params: Params) -> tuple[Entry, ...]:
    """The entries of an observation, in order; the same for every predictor and every microgrid."""
    highest = params.market.price_cap_per_kwh / PRICE_UNIT_PER_KWH
    most = float(bent(np.array([params.market.price_cap_per_kwh]))[0])
    rating, price = "share of rating", f"{PRICE_UNIT_PER_KWH:g} currency/kWh"

    def share(name: str, unit: str = "1", low: float = 0.0) -> Entry:
        return Entry(name=name, unit=unit, low=low, high=1.0)

    def priced(name: str, low: float = 0.0) -> Entry:
        return Entry(name=name, unit=price, low=low, high=highest)

    def nodal(name: str) -> tuple[Entry, Entry, Entry]:
        """A predicted nodal price, and how far below and above the true one may be."""
        return (
            Entry(name=name, unit=BENT_PRICE, low=-most, high=most),
            Entry(name=f"{name}, below", unit=BENT_PRICE, low=-2.0 * most, high=0.0),
            Entry(name=f"{name}, above", unit=BENT_PRICE, low=0.0, high=2.0 * most),
        )

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
        priced("diesel cost at no output"),
        priced("diesel cost at full output"),
        share("diesel capacity", rating),
        priced("utility of the first kWh"),
        priced("LMP now"),
        *(priced(f"day-ahead LMP in {k} intervals") for k in ahead),
        share("load of the feeder now", "share of nominal", -1.0),
        *(share(f"load of the feeder expected in {k} intervals", "share of nominal", -1.0) for k in ahead),
        *(priced(f"LMP expected in {k} intervals") for k in ahead),
        nodal("own nodal price in the last interval")[0],
        priced("LMP in the last interval"),
        priced("transactive signal in the last interval", -highest),
        share("own proposal in the last interval", rating, -1.0),
        share("share of it that was accepted"),
    ]
    for option in OPTIONS:
        entries += [
            share(f"{option}: proposal", rating, -1.0),
            *(share(f"{option}: predicted acceptance{what}", rating, -1.0) for what in ("", ", below", ", above")),
            *nodal(f"{option}: predicted nodal price"),
        ]
    of_later = [nodal(f"{option} in {k} intervals: predicted nodal price") for k in ahead for option in AHEAD_OPTIONS]
    of_fleets = [entry for fleet in params.fleets for entry in _of_fleet(fleet)]
    return (*entries, *(each[what] for what in range(3) for each in of_later), *of_fleets)


def _of_fleet(fleet: Fleet) -> list[Entry]:
    """The entries of a device beside the standard ones: what it keeps, what it may do, what its owner is told of it."""
    name, rating = fleet.name, "share of its rating"
    powers = ("least power", "most power", "power if nobody decides")
    return [
        Entry(name=f"{name}: {fleet.kind.level_name}", unit="share of its span", low=-1.0, high=2.0),
        *(Entry(name=f"{name}: {what}", unit=rating, low=-1.0, high=1.0) for what in powers),
        *(replace(entry, name=f"{name}: {entry.name}") for entry in fleet.kind.told),
    ]


def proposals(now: Now, state: State) -> Float[np.ndarray, "batch agent option"]:
    """The proposals whose response in this interval is predicted, in the order of `OPTIONS`."""
    # Full import is at most a withdrawal, full export at least none.
    least_kw = np.minimum(now.idle_least_kw + now.battery_least_kw, 0.0)
    most_kw = np.maximum(now.idle_most_kw + now.battery_most_kw, 0.0)
    last_kw = state.last_proposed_kw.clip(least_kw, most_kw)
    return np.stack([least_kw, np.zeros_like(least_kw), last_kw, most_kw], axis=-1)


def observe(
    state: State, days: Days, now: Now, foretold: Foretold, predictor: Predictor, params: Params
) -> Float[np.ndarray, "batch agent entry"]:
    """What every microgrid sees before it acts, entry by entry as `layout` says; not clipped to its range yet."""
    coming = expected(state, days, params, 1)
    lmp_ahead = expected_lmp_per_kwh(state, days, params, params.lookahead)[:, 1:]
    asked_kw = proposals(now, state)
    others_kw = state.last_accepted_kw[:, None]
    prediction = ask(supposed(asked_kw[:, :, None], others_kw), coming, state, predictor, params)
    grids, last = params.microgrids, state.last_proposed_kw
    rating = grids.rating_kw
    usable = np.maximum(grids.energy_max_kwh - grids.energy_min_kwh, 1e-9)
    battery_rating = np.maximum(grids.battery_rating_kw, 1e-9)

    def per_price(price: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return price / PRICE_UNIT_PER_KWH

    def entries_ahead(values: Float[np.ndarray, "batch ahead"]) -> Float[np.ndarray, "ahead batch 1"]:
        return values.T[..., None]

    hours = 2.0 * np.pi * (state.interval * params.step_hours % 24.0)[:, None] / 24.0
    ahead = intervals_from(state.interval, 1, params.lookahead)
    feeder_load = expected_feeder_load_kw(state, days, params, params.lookahead) / np.abs(params.feeder.load_kw).sum()
    powers = _with_room([getattr(prediction, f"accepted{end}_kw")[:, :, 0] for end in ("", "_low", "_high")])
    prices = _with_room([bent(getattr(prediction, f"price{end}_per_kwh")[:, :, 0]) for end in ("", "_low", "_high")])
    asked = np.concatenate([np.array([asked_kw, *powers]) / rating[:, None], prices])
    # In this order: option by option, what is asked and answered of each.
    of_options = asked.transpose(3, 0, 1, 2).reshape(-1, *last.shape)
    columns = (
        np.sin(hours),
        np.cos(hours),
        (params.intervals - state.interval)[:, None] / params.intervals,
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
        entries_ahead(per_price(days.lmp_day_ahead_per_kwh[ahead])),
        entries_ahead(feeder_load),
        entries_ahead(per_price(lmp_ahead)),
        bent(state.last_price_per_kwh),
        per_price(state.last_lmp_per_kwh[:, None]),
        per_price(state.last_te_price_per_kwh),
        last / rating,
        np.divide(state.last_accepted_kw, last, out=np.ones_like(last), where=np.abs(last) > 1e-9),
        of_options,
        _prices_ahead(state, foretold, lmp_ahead, params),
        *(column for k in range(len(params.fleets)) for column in _columns_of_fleet(k, state, now, params)),
    )
    # What is ahead comes with a first axis for its entries.
    widths = [len(column) if column.ndim == 3 else 1 for column in columns]
    seen, end = np.empty((*last.shape, sum(widths))), 0
    entries = seen.transpose(2, 0, 1)
    for column, width in zip(columns, widths, strict=True):
        start, end = end, end + width
        entries[start:end] = column
    return seen


def _columns_of_fleet(
    k: int, state: State, now: Now, params: Params
) -> list[Float[np.ndarray, "batch agent"] | Float[np.ndarray, "told batch agent"]]:
    """What is seen of a fleet, in the order of its entries."""
    fleet = params.fleets[k]
    rating = np.maximum(np.maximum(fleet.draws_kw, fleet.gives_kw), 1e-9)
    powers_kw = (now.fleet_least_kw[k], now.fleet_most_kw[k], now.fleet_kw[k])
    return [
        np.where(fleet.has, (state.levels[k] - fleet.low) / np.maximum(fleet.high - fleet.low, 1e-9), 0.0),
        *(power_kw / rating for power_kw in powers_kw),
        now.courses[k].told.transpose(2, 0, 1),
    ]


def _prices_ahead(
    state: State, foretold: Foretold, lmp_per_kwh: Float[np.ndarray, "batch ahead"], params: Params
) -> Float[np.ndarray, "entry batch agent"]:
    """The nodal prices that are predicted of later intervals, as they are seen, in the order of `layout`.

    What the day's first prediction has above the LMP, on top of the LMP that is expected now.
    """
    rows, ahead = intervals_from(state.interval, 1, params.lookahead)
    above = [foretold.above_lmp_per_kwh, foretold.above_lmp_low_per_kwh, foretold.above_lmp_high_per_kwh]
    # [end batch ahead agent option]
    by_time = np.array([values.swapaxes(1, 2)[rows, ahead] for values in above])
    by_time[:, :, max(params.predicted_intervals, 1) - 1 :] = 0.0
    prices = np.array(_with_room(list(bent(by_time + lmp_per_kwh[:, :, None, None]))))
    return prices.transpose(0, 2, 4, 1, 3).reshape(-1, *state.stored_kwh.shape)


def _with_room(middle_low_high: list[Float[np.ndarray, "..."]]) -> list[Float[np.ndarray, "..."]]:
    """What is predicted, and how far below and above its interval reaches."""
    middle, low, high = middle_low_high
    return [middle, np.minimum(low - middle, 0.0), np.maximum(high - middle, 0.0)]


def state_layout(params: Params) -> tuple[Entry, ...]:
    """The entries of the global state: what every microgrid sees, then load and last voltage of every bus."""
    agents = range(len(params.agent_bus))
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
    now_kw = days.load_kw[np.arange(len(state.interval)), state.interval]
    flat = observation.reshape(len(observation), -1)
    return np.concatenate([flat, now_kw / params.feeder.base_kva, state.last_voltage_pu], axis=-1)
