"""What does each agent, and the DSO, see? Flat vectors whose entries have names, units and ranges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float32

from peergrid.envs.common.entries import PRICE_UNIT_PER_KWH, Entry
from peergrid.envs.transactive.types import Days, Now, Params, State

# Prices are clipped at this many times the unit.
HIGHEST = 10.0
PRICE = f"{PRICE_UNIT_PER_KWH:g} currency/kWh"


def _share(name: str, unit: str = "1", low: float = 0.0) -> Entry:
    return Entry(name=name, unit=unit, low=low, high=1.0)


def _priced(name: str) -> Entry:
    return Entry(name=name, unit=PRICE, low=0.0, high=HIGHEST)


def _gap(name: str) -> Entry:
    # Of the order of 1 where agents optimise; where they do anything, gaps are several times as large.
    return Entry(name=name, unit="10 % of nominal feeder load", low=-5.0, high=5.0)


def _clock() -> list[Entry]:
    return [
        _share("sine of time of day", low=-1.0),
        _share("cosine of time of day", low=-1.0),
        _share("share of the day left"),
        _share("share of the hour's iterations done"),
    ]


def layout(params: Params) -> tuple[Entry, ...]:
    """The entries of an agent's observation, in order."""
    rating, ahead = "share of rating", range(1, params.lookahead)
    return (
        *_clock(),
        _priced("own signal now"),
        *(_priced(f"day-ahead signal in {k} intervals" if k else "day-ahead signal now") for k in (0, *ahead)),
        _share("own load now", rating),
        _share("PV now", rating),
        *(_share(f"PV forecast in {k} intervals", rating) for k in ahead),
        _share("state of charge", "share of storage"),
        _share("least storage power", "share of storage rating", -1.0),
        _share("most storage power", "share of storage rating", -1.0),
        _share("shifted energy to return", "share of the day's most", -1.0),
        _share("least shift", "share of the most at peak", -1.0),
        _share("most shift", "share of the most at peak", -1.0),
        _share("scheduled exchange now", rating, -1.0),
        _share("own exchange in the last iteration", rating, -1.0),
    )


def dso_layout(params: Params) -> tuple[Entry, ...]:
    """The entries of the DSO's observation, in order."""
    size = "share of nominal feeder load"
    ahead = range(1, params.lookahead)
    return (
        *_clock(),
        _priced("LMP now"),
        *(_priced(f"day-ahead LMP in {k} intervals" if k else "day-ahead LMP now") for k in (0, *ahead)),
        _share("root signal", "share of its bounds around its base", -1.0),
        _share("scheduled import now", size, -1.0),
        *(_share(f"scheduled import in {k} intervals", size, -1.0) for k in ahead),
        _gap("gap in the last iteration of this hour"),
        _gap("gap with which the hour before closed"),
        _share("agents' flexible injection in the last iteration", size, -1.0),
    )


def observe(state: State, days: Days, now: Now, params: Params) -> Float[np.ndarray, "batch agent entry"]:
    """What every agent sees, entry by entry as `layout` says; not clipped to its range yet."""
    r, agents = params.resources, params.agent_bus
    n_row, n_agent = state.stored_kwh.shape
    rating = np.maximum(r.rating_kw, 1e-9)
    t = _intervals(state, params)
    rows = np.arange(n_row)[:, None]
    most_shift = np.maximum(r.shiftable_share * r.peak_kw, 1e-9)
    load = params.own_of(now.load_kw)
    ahead = days.day_ahead.signal_per_kwh[:, :, agents][rows, t]
    columns = [
        *_times(state, params, (n_row, n_agent)),
        (state.signal_per_kwh[:, agents] / PRICE_UNIT_PER_KWH)[..., None],
        ahead.swapaxes(1, 2) / PRICE_UNIT_PER_KWH,
        (load / rating)[..., None],
        (now.pv_kw / rating)[..., None],
        days.forecast.pv_kw[rows, t][:, 1:].swapaxes(1, 2) / rating[:, None],
        (state.stored_kwh / np.maximum(r.storage_max_kwh, 1e-9))[..., None],
        (now.limits.storage_least_kw / np.maximum(r.storage_max_kw, 1e-9))[..., None],
        (now.limits.storage_most_kw / np.maximum(r.storage_max_kw, 1e-9))[..., None],
        (-state.shifted_kwh / np.maximum(days.shifted_most_kwh[:, 0], 1e-9))[..., None],
        (now.limits.shift_least_kw / most_shift)[..., None],
        (now.limits.shift_most_kw / most_shift)[..., None],
        (days.day_ahead.exchange_kw[np.arange(n_row), t[:, 0]] / rating)[..., None],
        ((state.last_flexible_kw - load) / rating)[..., None],
    ]
    return np.concatenate(columns, axis=-1)


def observe_dso(state: State, days: Days, now: Now, params: Params) -> Float[np.ndarray, "batch entry"]:
    """What the DSO sees, entry by entry as `dso_layout` says; not clipped to its range yet."""
    size = params.feeder.base_kva
    t, rows = _intervals(state, params), np.arange(len(state.steps))[:, None]
    imported = days.day_ahead.import_kw[rows, t] / size
    columns = [
        *(column[:, 0] for column in _times(state, params, (len(t), 1))),
        now.lmp_per_kwh[:, None] / PRICE_UNIT_PER_KWH,
        days.forecast.lmp_per_kwh[rows, t] / PRICE_UNIT_PER_KWH,
        ((state.root_per_kwh / now.base_per_kwh - 1.0) / max(params.loop.bound_share, 1e-9))[:, None],
        imported,
        (10.0 * state.gap_kw / size)[:, None],
        (10.0 * state.last_gap_kw / size)[:, None],
        (state.last_flexible_kw.sum(axis=-1) / size)[:, None],
    ]
    return np.concatenate(columns, axis=-1)


def state_layout(params: Params) -> tuple[Entry, ...]:
    """The entries of the global state: what every agent sees, what the DSO sees, the last voltage of every bus."""
    seen = [replace(e, name=f"bus {name}: {e.name}") for name in params.agent_name for e in layout(params)]
    dso = [replace(e, name=f"dso: {e.name}") for e in dso_layout(params)]
    volts = [Entry(name=f"bus {b}: last voltage", unit="p.u.", low=0.0, high=2.0) for b in params.feeder.bus]
    return tuple(seen + dso + volts)


def global_state(
    seen: Float32[np.ndarray, "batch agent entry"], seen_by_dso: Float32[np.ndarray, "batch dso_entry"], state: State
) -> Float[np.ndarray, "batch entry_of_state"]:
    """The global state of every row, for centralised critics; not clipped to its range yet."""
    return np.concatenate([seen.reshape(len(seen), -1), seen_by_dso, state.last_voltage_pu], axis=-1)


def _intervals(state: State, params: Params) -> np.ndarray:
    """The open interval of each row and those in sight after it, [row, interval]; beyond the day's end, its last."""
    return np.minimum(state.interval[:, None] + np.arange(params.lookahead), params.intervals - 1)


def _times(state: State, params: Params, shape: tuple[int, int]) -> list[Float[np.ndarray, "batch place 1"]]:
    hours = 2.0 * np.pi * (state.interval * params.step_hours % 24.0) / 24.0
    of_rows = (
        np.sin(hours),
        np.cos(hours),
        (params.intervals - state.interval) / params.intervals,
        state.iteration / params.loop.max_iterations,
    )
    return [np.broadcast_to(values[:, None, None], (*shape, 1)) for values in of_rows]
