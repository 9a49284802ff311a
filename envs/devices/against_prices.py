"""The best use of devices with a level against what each kW is worth in every interval ahead: dynamic programming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from peergrid.envs.devices.curve import between
from peergrid.envs.devices.device import Course, Fleet
from peergrid.grid.compiled import compiled, inlined

LEVELS = 65  # of the grid over the span of what a device keeps
POWERS = 41  # tried on the way from the level as it is, then as many again around the best
BEYOND_PER_SPAN = 1000.0  # what a level outside its limits costs, for the whole span: more than it could earn


def plan_levels(
    fleet: Fleet,
    course: Course,
    level: Float[np.ndarray, "row agent"],
    least_kw: Float[np.ndarray, "row ahead agent"],
    most_kw: Float[np.ndarray, "row ahead agent"],
    worth: Float[np.ndarray, "row ahead agent power"],
    step_hours: float,
) -> Float[np.ndarray, "row ahead agent"]:
    """The power in every interval of the course, positive given, that is worth most in all.

    Levels are on a grid, but the path from the level as it is now is not: it takes the best of many powers, and values
    where it leads to by the grid's values, interpolated.

    Args:
        least_kw: The least power.
        most_kw: The most power.
        worth: Currency in the interval, at powers evenly spaced from the least to the most; concave in them.
    """
    span = np.maximum(fleet.high - fleet.low, 1e-9)
    planned_kw: Float[np.ndarray, "row ahead agent"] = _plan(
        np.ascontiguousarray(level),
        fleet.low,
        span,
        fleet.outside_per_hour * step_hours,
        np.stack([course.keep, course.drift, course.per_drawn, course.per_given]),
        np.stack([course.least_level, course.most_level, course.low_level, course.high_level]),
        np.ascontiguousarray(least_kw),
        np.ascontiguousarray(most_kw),
        np.ascontiguousarray(worth),
    )
    return planned_kw


@compiled(folder=Path(__file__).parent)  # type: ignore[untyped-decorator]
def _plan(
    level: Float[np.ndarray, "row agent"],
    low: Float[np.ndarray, " agent"],
    span: Float[np.ndarray, " agent"],
    outside_cost: Float[np.ndarray, " agent"],
    motion: Float[np.ndarray, "4 row ahead agent"],
    bounds: Float[np.ndarray, "4 row ahead agent"],
    least_kw: Float[np.ndarray, "row ahead agent"],
    most_kw: Float[np.ndarray, "row ahead agent"],
    worth: Float[np.ndarray, "row ahead agent power"],
) -> Float[np.ndarray, "row ahead agent"]:
    n_row, n_ahead, n_agent, n_power = worth.shape
    planned_kw = np.zeros((n_row, n_ahead, n_agent))
    value = np.zeros((n_ahead + 1, LEVELS))
    for row in range(n_row):
        for agent in range(n_agent):
            start, width, price = low[agent], span[agent], outside_cost[agent]
            for h in range(n_ahead - 1, -1, -1):
                motion_now, bounds_now = motion[:, row, h, agent], bounds[:, row, h, agent]
                from_kw, to_kw = least_kw[row, h, agent], most_kw[row, h, agent]
                for i in range(LEVELS):
                    here, best = start + width * i / (LEVELS - 1), -np.inf
                    for k in range(n_power if to_kw > from_kw else 1):
                        power_kw = from_kw + (to_kw - from_kw) * k / (n_power - 1)
                        after = _moved(motion_now, here, power_kw)
                        total = worth[row, h, agent, k] + _left(value[h + 1], start, width, after)
                        best = max(best, total - _outside(bounds_now, after, price, width))
                    value[h, i] = best
            here = level[row, agent]
            for h in range(n_ahead):
                motion_now, bounds_now = motion[:, row, h, agent], bounds[:, row, h, agent]
                least, most = least_kw[row, h, agent], most_kw[row, h, agent]
                from_kw, to_kw, best, best_kw = least, most, -np.inf, min(max(0.0, least), most)
                for _ in range(2):
                    for k in range(POWERS):
                        power_kw = from_kw + (to_kw - from_kw) * k / (POWERS - 1)
                        after = _moved(motion_now, here, power_kw)
                        total = between(worth[row, h, agent], least, most, power_kw)
                        total += _left(value[h + 1], start, width, after)
                        total -= _outside(bounds_now, after, price, width)
                        if total > best:
                            best, best_kw = total, power_kw
                    room_kw = (to_kw - from_kw) / (POWERS - 1)
                    from_kw, to_kw = max(best_kw - room_kw, least), min(best_kw + room_kw, most)
                planned_kw[row, h, agent] = best_kw
                here = _moved(motion_now, here, best_kw)
            value[:] = 0.0
    return planned_kw


@inlined
def _moved(motion: Float[np.ndarray, "4"], level: float, power_kw: float) -> float:
    """The level after an interval."""
    return motion[0] * level + motion[1] + motion[2] * max(-power_kw, 0.0) - motion[3] * max(power_kw, 0.0)


@inlined
def _outside(bounds: Float[np.ndarray, "4"], level: float, price: float, width: float) -> float:
    """What it costs that a level is outside its limits, or outside its band."""
    beyond = max(bounds[0] - level, 0.0) + max(level - bounds[1], 0.0)
    return BEYOND_PER_SPAN * beyond / width + price * (max(bounds[2] - level, 0.0) + max(level - bounds[3], 0.0))


@inlined
def _left(value: Float[np.ndarray, " level"], start: float, width: float, level: float) -> float:
    """What a level is worth later; beyond the grid's ends it goes on as it does there."""
    place = (level - start) / width * (len(value) - 1)
    k = min(max(int(place), 0), len(value) - 2)
    return value[k] + (place - k) * (value[k + 1] - value[k])
