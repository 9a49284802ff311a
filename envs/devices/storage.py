"""Storage: energy behind a rating, with losses either way and wear.

    E' = E + (eta_c charge - discharge / eta_d) dt,   E_min <= E <= E_max,   |power| <= rating

Power is positive discharging. It is decided before the dispatch, and moves a microgrid's whole export curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False, kw_only=True)
class Storage:
    """The storage of every agent; a rating of zero is none. Wear is paid per kWh through its terminals, either way."""

    rating_kw: Float[np.ndarray, " agent"]
    energy_min_kwh: Float[np.ndarray, " agent"]
    energy_max_kwh: Float[np.ndarray, " agent"]
    charge_efficiency: Float[np.ndarray, " agent"]
    discharge_efficiency: Float[np.ndarray, " agent"]
    wear_per_kwh: Float[np.ndarray, " agent"]


def power_to_reach(
    storage: Storage,
    stored_kwh: Float[np.ndarray, "*batch agent"],
    energy_kwh: Float[np.ndarray, "*#batch agent"],
    least_kw: Float[np.ndarray, "*#batch agent"],
    most_kw: Float[np.ndarray, "*#batch agent"],
    step_hours: float,
) -> Float[np.ndarray, "*batch agent"]:
    """The power with which an interval ends at this energy, or as near to it as the powers given allow."""
    gain_kw = (energy_kwh - stored_kwh) / step_hours
    # As no efficiency is above 1, the larger of the two is that for charging where it charges.
    drawn_kw = np.maximum(gain_kw / storage.charge_efficiency, gain_kw * storage.discharge_efficiency)
    feasible_kw: Float[np.ndarray, "*batch agent"] = (-drawn_kw).clip(least_kw, most_kw)
    return feasible_kw


def store(
    storage: Storage,
    stored_kwh: Float[np.ndarray, "*batch agent"],
    power_kw: Float[np.ndarray, "*batch agent"],
    least_kwh: Float[np.ndarray, "*#batch agent"],
    most_kwh: Float[np.ndarray, "*#batch agent"],
    step_hours: float,
) -> Float[np.ndarray, "*batch agent"]:
    """Energy after an interval at a power within its limits.

    Rounding never takes it out of the window given. Energy that began outside is not moved in by decree.
    """
    charged_kw = storage.charge_efficiency * np.maximum(-power_kw, 0.0)
    drained_kw = np.maximum(power_kw, 0.0) / storage.discharge_efficiency
    energy_kwh = stored_kwh + (charged_kw - drained_kw) * step_hours
    kept_kwh: Float[np.ndarray, "*batch agent"] = energy_kwh.clip(
        np.minimum(least_kwh, stored_kwh), np.maximum(most_kwh, stored_kwh)
    )
    return kept_kwh


def wear(storage: Storage, power_kw: Float[np.ndarray, "*batch agent"]) -> Float[np.ndarray, "*batch agent"]:
    """Cost of use, currency per hour."""
    cost: Float[np.ndarray, "*batch agent"] = storage.wear_per_kwh * np.abs(power_kw)
    return cost


def window(
    storage: Storage,
    end_kwh: Float[np.ndarray, " agent"],
    chargeable_kwh: Float[np.ndarray, "*batch boundary agent"],
    drainable_kwh: Float[np.ndarray, "*batch boundary agent"],
) -> tuple[Float[np.ndarray, "*batch boundary agent"], Float[np.ndarray, "*batch boundary agent"]]:
    """The least and the most energy at each boundary between intervals from which the last can be met with `end_kwh`.

    Args:
        chargeable_kwh: By how much its energy could still rise from each boundary to the last.
        drainable_kwh: By how much it could still fall.
    """
    return (
        np.maximum(storage.energy_min_kwh, end_kwh - chargeable_kwh),
        np.minimum(storage.energy_max_kwh, end_kwh + drainable_kwh),
    )
