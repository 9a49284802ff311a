"""The best use of batteries against what each kW is worth in every interval ahead, by dynamic programming."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from peergrid.envs.devices.curve import between
from peergrid.envs.microgrid import DEVICES, Microgrids
from peergrid.grid.compiled import compiled, inlined

ENERGIES = 65  # levels between the least and the most that a battery holds
POWERS = 41  # tried from the least to the most power, then as many again around the best
OUTSIDE_PER_KWH = 10.0  # what energy outside its window costs: more than any price


def plan_storage(
    microgrids: Microgrids,
    stored_kwh: Float[np.ndarray, "row agent"],
    least_kwh: Float[np.ndarray, "row boundary agent"],
    most_kwh: Float[np.ndarray, "row boundary agent"],
    least_kw: Float[np.ndarray, "row ahead agent"],
    most_kw: Float[np.ndarray, "row ahead agent"],
    worth: Float[np.ndarray, "row ahead agent power"],
    step_hours: float,
) -> Float[np.ndarray, "row ahead agent"]:
    """The battery power of every interval ahead, positive discharging, that is worth most in all.

    Energies are on a grid, but the path from what is stored now is not: it takes the best of many powers, and values
    what is left by the grid's values, interpolated.

    Args:
        least_kwh: Lower end of the window for the energy at each boundary; the first is not read.
        most_kwh: Its upper end.
        least_kw: The least power.
        most_kw: The most power.
        worth: Currency in the interval, at powers evenly spaced from the least to the most; concave in them.
    """
    planned_kw: Float[np.ndarray, "row ahead agent"] = _plan(
        np.ascontiguousarray(stored_kwh),
        microgrids.energy_min_kwh,
        microgrids.energy_max_kwh,
        microgrids.charge_efficiency,
        microgrids.discharge_efficiency,
        np.ascontiguousarray(least_kwh),
        np.ascontiguousarray(most_kwh),
        np.ascontiguousarray(least_kw),
        np.ascontiguousarray(most_kw),
        np.ascontiguousarray(worth),
        step_hours,
    )
    return planned_kw


@compiled(folder=DEVICES)  # type: ignore[untyped-decorator]
def _plan(
    stored_kwh: Float[np.ndarray, "row agent"],
    energy_min_kwh: Float[np.ndarray, " agent"],
    energy_max_kwh: Float[np.ndarray, " agent"],
    charge_efficiency: Float[np.ndarray, " agent"],
    discharge_efficiency: Float[np.ndarray, " agent"],
    least_kwh: Float[np.ndarray, "row boundary agent"],
    most_kwh: Float[np.ndarray, "row boundary agent"],
    least_kw: Float[np.ndarray, "row ahead agent"],
    most_kw: Float[np.ndarray, "row ahead agent"],
    worth: Float[np.ndarray, "row ahead agent power"],
    step_hours: float,
) -> Float[np.ndarray, "row ahead agent"]:
    n_row, n_ahead, n_agent, _ = worth.shape
    planned_kw = np.zeros((n_row, n_ahead, n_agent))
    value = np.zeros((n_ahead + 1, ENERGIES))
    # A change of energy by so many levels costs or gives this power, which is worth this much.
    gained = np.zeros(2 * ENERGIES - 1)
    for row in range(n_row):
        for agent in range(n_agent):
            floor_kwh = energy_min_kwh[agent]
            level_kwh = (energy_max_kwh[agent] - floor_kwh) / (ENERGIES - 1)
            if level_kwh <= 0.0:
                continue
            eta_c, eta_d = charge_efficiency[agent], discharge_efficiency[agent]
            for h in range(n_ahead, -1, -1):
                low, high = least_kwh[row, h, agent], most_kwh[row, h, agent]
                if h < n_ahead:
                    from_kw, to_kw = least_kw[row, h, agent], most_kw[row, h, agent]
                    for d in range(2 * ENERGIES - 1):
                        rise_kw = (d - ENERGIES + 1) * level_kwh / step_hours
                        power_kw = -rise_kw / eta_c if rise_kw > 0.0 else -rise_kw * eta_d
                        if from_kw <= power_kw <= to_kw:
                            gained[d] = between(worth[row, h, agent], from_kw, to_kw, power_kw)
                        else:
                            gained[d] = -np.inf
                for i in range(ENERGIES):
                    best = 0.0
                    if h < n_ahead:
                        best = -np.inf
                        for j in range(ENERGIES):
                            best = max(best, gained[j - i + ENERGIES - 1] + value[h + 1, j])
                    value[h, i] = best - _outside(floor_kwh + i * level_kwh, low, high)
            energy_kwh = stored_kwh[row, agent]
            for h in range(n_ahead):
                low, high = least_kwh[row, h + 1, agent], most_kwh[row, h + 1, agent]
                least, most = least_kw[row, h, agent], most_kw[row, h, agent]
                from_kw, to_kw = least, most
                best, best_kw, best_kwh = -np.inf, 0.0, energy_kwh
                for _ in range(2):
                    for k in range(POWERS):
                        power_kw = from_kw + (to_kw - from_kw) * k / (POWERS - 1)
                        moved_kw = eta_c * max(-power_kw, 0.0) - max(power_kw, 0.0) / eta_d
                        after_kwh = energy_kwh + moved_kw * step_hours
                        kept_kwh = min(max(after_kwh, floor_kwh), energy_max_kwh[agent])
                        total = between(worth[row, h, agent], least, most, power_kw)
                        total += between(value[h + 1], floor_kwh, energy_max_kwh[agent], kept_kwh)
                        # The grid's values have the window's price between its levels only roughly.
                        total -= _outside(after_kwh, low, high) + _outside(after_kwh, kept_kwh, kept_kwh)
                        if total > best:
                            best, best_kw, best_kwh = total, power_kw, kept_kwh
                    room_kw = (to_kw - from_kw) / (POWERS - 1)
                    from_kw, to_kw = max(best_kw - room_kw, least), min(best_kw + room_kw, most)
                planned_kw[row, h, agent], energy_kwh = best_kw, best_kwh
    return planned_kw


@inlined
def _outside(energy_kwh: float, low_kwh: float, high_kwh: float) -> float:
    """What energy outside a window costs."""
    return OUTSIDE_PER_KWH * (max(low_kwh - energy_kwh, 0.0) + max(energy_kwh - high_kwh, 0.0))


def interpolated(
    at: Float[np.ndarray, "*batch wanted"], x: Float[np.ndarray, "*batch point"], y: Float[np.ndarray, "*batch point"]
) -> Float[np.ndarray, "*batch wanted"]:
    """y over x where it is wanted, linear between points and constant beyond them; x never falls."""
    found: Float[np.ndarray, "row wanted"] = _interpolate(
        *(np.ascontiguousarray(values).reshape(-1, values.shape[-1]) for values in (at, x, y))
    )
    return found.reshape(at.shape)


@compiled
def _interpolate(
    at: Float[np.ndarray, "row wanted"], x: Float[np.ndarray, "row point"], y: Float[np.ndarray, "row point"]
) -> Float[np.ndarray, "row wanted"]:
    found = np.empty(at.shape)
    for row in range(at.shape[0]):
        for k in range(at.shape[1]):
            right = min(max(np.searchsorted(x[row], at[row, k], side="right"), 1), x.shape[1] - 1)
            width = x[row, right] - x[row, right - 1]
            share = (at[row, k] - x[row, right - 1]) / width if width > 0.0 else 1.0
            share = min(max(share, 0.0), 1.0)
            found[row, k] = y[row, right - 1] + share * (y[row, right] - y[row, right - 1])
    return found
