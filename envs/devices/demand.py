"""Demand: elastic, with a quadratic utility above a floor that is cut last of all; or shiftable within a day.

Elastic, as microgrids have it:

    U(x) = w x - alpha / 2 x^2  up to w / alpha, then constant
    load(mu) = max(floor, clip((w - mu) / alpha, 0, w / alpha))  for mu < unserved_per_kwh,  else 0

Shiftable, as agents of the transactive loop have it: x is put off (positive) or brought forward at `cost x^2` per hour,
and what was shifted has returned when the day ends.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from peergrid.envs.devices.curve import Rung
from peergrid.grid.compiled import inlined

# --- elastic ----------------------------------------------------------------------------------------------------------


@inlined
def free_kw(w_per_kwh: float, alpha_per_kw2h: float, floor_kw: float) -> float:
    """What is consumed when energy is free."""
    return max(w_per_kwh / alpha_per_kw2h, floor_kw)


@inlined
def rungs(w_per_kwh: float, alpha_per_kw2h: float, floor_kw: float, unserved_per_kwh: float) -> tuple[Rung, Rung]:
    """What can be left unconsumed, as steps of an export curve: above the floor, and the floor itself."""
    # With an infinite alpha nothing is consumed above the floor, and any value will do.
    at_floor = max(w_per_kwh - alpha_per_kw2h * floor_kw, 0.0) if np.isfinite(alpha_per_kw2h) else w_per_kwh
    return (
        (0.0, at_floor, free_kw(w_per_kwh, alpha_per_kw2h, floor_kw) - floor_kw),
        (unserved_per_kwh, unserved_per_kwh, floor_kw),
    )


def utility(
    w_per_kwh: Float[np.ndarray, " agent"],
    alpha_per_kw2h: Float[np.ndarray, "*batch agent"],
    floor_kw: Float[np.ndarray, "*batch agent"],
    unserved_per_kwh: Float[np.ndarray, " agent"],
    load_kw: Float[np.ndarray, "*batch agent"],
) -> Float[np.ndarray, "*batch agent"]:
    """Utility of consumption, currency per hour; below the floor, every kWh that is missing costs `unserved_per_kwh`.

    Source: Samadi et al., IEEE SmartGridComm, 2010.
    """
    w = w_per_kwh
    satiation_kw = w / alpha_per_kw2h
    x = load_kw.clip(floor_kw, satiation_kw)
    # alpha x^2 as w x (x / satiation): an infinite alpha never meets its x = 0.
    used = x / np.where(satiation_kw > 0, satiation_kw, 1.0)
    unserved_kw = np.maximum(floor_kw - load_kw, 0.0)
    value: Float[np.ndarray, "*batch agent"] = w * x * (1 - used / 2) - unserved_per_kwh * unserved_kw
    return value


# --- shiftable --------------------------------------------------------------------------------------------------------


def shift_cost(
    cost_per_kw2h: Float[np.ndarray, " agent"], shift_kw: Float[np.ndarray, "*batch agent"]
) -> Float[np.ndarray, "*batch agent"]:
    """Cost of shifting, currency per hour."""
    of_shift: Float[np.ndarray, "*batch agent"] = cost_per_kw2h * shift_kw**2
    return of_shift


def shift_limits(
    most_kw: Float[np.ndarray, "batch agent"],
    window_kwh: Float[np.ndarray, "batch agent"],
    shifted_kwh: Float[np.ndarray, "batch agent"],
    step_hours: float,
) -> tuple[Float[np.ndarray, "batch agent"], Float[np.ndarray, "batch agent"]]:
    """The least and the most that can be put off in an interval, so that what was shifted stays within its window."""
    return (
        np.clip((-window_kwh - shifted_kwh) / step_hours, -most_kw, most_kw),
        np.clip((window_kwh - shifted_kwh) / step_hours, -most_kw, most_kw),
    )


def shift_window(
    shift_most_kw: Float[np.ndarray, "*batch interval agent"], step_hours: float
) -> Float[np.ndarray, "*batch boundary agent"]:
    """The most energy, either way, that shifting may have delivered at each boundary so that all of it can return."""
    left = np.cumsum(shift_most_kw[..., ::-1, :], axis=-2)[..., ::-1, :] * step_hours
    return np.concatenate([left, np.zeros_like(left[..., :1, :])], axis=-2)
