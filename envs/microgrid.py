"""Microgrids: what each exports at which marginal value, in closed form and for any batch.

Once the battery's power is fixed, a microgrid has four ways to export one kW more. Each opens at some marginal value mu
of energy (currency per kWh) and is exhausted at another:

    feed in PV that was curtailed           at mu = 0
    run the diesel generator                from b to b + 2 a G_max
    consume less                            from 0 to w - alpha floor
    leave must-serve load unserved          at unserved_per_kwh

Their sum, the export E(mu), never falls as mu rises; every dispatch below is one point of that curve:

    E(mu) = PV 1[mu > 0] + clip((mu - b) / 2a, 0, G_max) + battery - load(mu)
    load(mu) = max(floor, clip((w - mu) / alpha, 0, w / alpha))  for mu < unserved_per_kwh,  else 0

An export, and a battery's discharge, are positive. Utility, costs and wear are rates, in currency per hour.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from peergrid.grid.compiled import compiled, inlined
from peergrid.grid.errors import InvalidScenario, raise_faults

Side = Literal["left", "right"]
Rung = tuple[float, float, float]


@dataclass(frozen=True, eq=False, kw_only=True)
class Microgrids:
    """What stays fixed during an episode.

    `rating_kw` is that of the point of connection and scales what is offered. Wear is paid per kWh that passes through
    the battery's terminals, in either direction. The share `must_serve_share` of the reference consumption is cut last
    of all, at `unserved_per_kwh`, which is at least `utility_w_per_kwh`.
    """

    rating_kw: Float[np.ndarray, " agent"]
    utility_w_per_kwh: Float[np.ndarray, " agent"]
    diesel_max_kw: Float[np.ndarray, " agent"]
    diesel_a_per_kw2h: Float[np.ndarray, " agent"]
    diesel_b_per_kwh: Float[np.ndarray, " agent"]
    battery_rating_kw: Float[np.ndarray, " agent"]
    energy_min_kwh: Float[np.ndarray, " agent"]
    energy_max_kwh: Float[np.ndarray, " agent"]
    charge_efficiency: Float[np.ndarray, " agent"]
    discharge_efficiency: Float[np.ndarray, " agent"]
    wear_per_kwh: Float[np.ndarray, " agent"]
    unserved_per_kwh: Float[np.ndarray, " agent"]
    must_serve_share: Float[np.ndarray, " agent"] | float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = np.array(getattr(self, field.name), dtype=float)
            if field.name == "must_serve_share" and value.ndim == 0:
                value = np.full(self.rating_kw.shape, value)
            value.setflags(write=False)
            object.__setattr__(self, field.name, value)
        check_microgrids(self)


@dataclass(frozen=True, eq=False, kw_only=True)
class Interval:
    """What an interval brings: PV available, reference consumption, and the battery power, decided before the dispatch.

    `alpha_per_kw2h` is the slope of the marginal utility w - alpha x; infinite where there is no demand.
    """

    pv_kw: Float[np.ndarray, "*batch agent"]
    demand_kw: Float[np.ndarray, "*batch agent"]
    alpha_per_kw2h: Float[np.ndarray, "*batch agent"]
    battery_kw: Float[np.ndarray, "*batch agent"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Dispatch:
    """What every device does; export = PV + diesel + battery - load, to the last bit."""

    pv_kw: Float[np.ndarray, "*batch agent"]
    diesel_kw: Float[np.ndarray, "*batch agent"]
    battery_kw: Float[np.ndarray, "*batch agent"]
    load_kw: Float[np.ndarray, "*batch agent"]
    export_kw: Float[np.ndarray, "*batch agent"]


def check_microgrids(microgrids: Microgrids) -> None:
    """Raise InvalidScenario naming every fault at once."""
    arrays = {field.name: getattr(microgrids, field.name) for field in fields(microgrids)}
    shape = microgrids.rating_kw.shape
    faults = [f"{name} has shape {a.shape}, rating_kw has {shape}" for name, a in arrays.items() if a.shape != shape]
    raise_faults(InvalidScenario, "microgrids", faults)

    def fault(bad: Bool[np.ndarray, " agent"], what: str) -> None:
        if bad.any():
            faults.append(f"{what} at microgrids {np.flatnonzero(bad).tolist()}")

    for name, array in arrays.items():
        fault(~np.isfinite(array), f"{name} is not finite")
        fault(array < 0, f"{name} is negative")
    fault(arrays["rating_kw"] == 0, "rating_kw is zero (there is nothing to trade)")
    for name in ("charge_efficiency", "discharge_efficiency"):
        fault((arrays[name] == 0) | (arrays[name] > 1), f"{name} is not in (0, 1]")
    fault(arrays["must_serve_share"] > 1, "must_serve_share is above 1")
    fault(arrays["energy_min_kwh"] > arrays["energy_max_kwh"], "energy_min_kwh is above energy_max_kwh")
    fault(arrays["unserved_per_kwh"] < arrays["utility_w_per_kwh"], "unserved_per_kwh is below utility_w_per_kwh")
    raise_faults(InvalidScenario, "microgrids", faults)


def export_range(
    microgrids: Microgrids, interval: Interval
) -> tuple[Float[np.ndarray, "*batch agent"], Float[np.ndarray, "*batch agent"]]:
    """The least and the most that each microgrid can export."""
    free_kw, floor_kw = _free_load_kw(microgrids, interval), _floor_kw(microgrids, interval)
    least_kw = interval.battery_kw - free_kw
    return least_kw, least_kw + (interval.pv_kw + microgrids.diesel_max_kw + (free_kw - floor_kw) + floor_kw)


def export_at(
    microgrids: Microgrids,
    interval: Interval,
    value_per_kwh: Float[np.ndarray, "*#batch #agent"],
    side: Side,
) -> Float[np.ndarray, "*batch agent"]:
    """Export E(mu) at a marginal value; at a jump, its limit from the left or from the right."""
    return _export_band(microgrids, interval, value_per_kwh, value_per_kwh)[0 if side == "left" else 1]


def marginal_value(
    microgrids: Microgrids, interval: Interval, export_kw: Float[np.ndarray, "*batch agent"]
) -> Float[np.ndarray, "*batch agent"]:
    """The least mu >= 0 at which the microgrid would export this much: inf {mu : E(mu) >= export}, per kWh.

    An export out of range is taken as the nearest one within.
    """
    return _reach(microgrids, interval, export_kw)[0]


def dispatch_to(microgrids: Microgrids, interval: Interval, export_kw: Float[np.ndarray, "*batch agent"]) -> Dispatch:
    """The cheapest dispatch with exactly this export; one out of range is taken as the nearest within.

    Devices that open at the very same value share what is left to take in proportion.
    """
    _, pv_kw, diesel_kw, load_kw, reached_kw = _reach(microgrids, interval, export_kw)
    return Dispatch(
        pv_kw=pv_kw, diesel_kw=diesel_kw, battery_kw=interval.battery_kw, load_kw=load_kw, export_kw=reached_kw
    )


def export_band(
    microgrids: Microgrids,
    interval: Interval,
    sell_per_kwh: Float[np.ndarray, "*#batch #agent"],
    buy_per_kwh: Float[np.ndarray, "*#batch #agent"],
) -> tuple[Float[np.ndarray, "*batch agent"], Float[np.ndarray, "*batch agent"]]:
    """The least and the most worth exporting where more than a contract earns the sell price, less costs the buy price.

    With sell <= buy, exporting more gains as long as mu < sell, and neither gains nor loses at mu = sell: below
    E(sell-), all of E(sell-) to E(sell+) is optimal, and E(sell-) is closest to the contract. Likewise, exporting less
    gains as long as mu > buy, and above E(buy+) that is the closest optimum. In between the contract is optimal.
    So the best export is the contract clipped to this band: that at mu = clip(mu of the contract, sell, buy), at a jump
    the one closest to the contract.
    """
    least_kw, most_kw = _export_band(microgrids, interval, sell_per_kwh, buy_per_kwh)
    return least_kw, most_kw


def utility(
    microgrids: Microgrids, interval: Interval, load_kw: Float[np.ndarray, "*batch agent"]
) -> Float[np.ndarray, "*batch agent"]:
    """Utility of consumption, currency per hour: w x - alpha / 2 x^2 up to w / alpha, then constant.

    Below the must-serve floor, every kWh that is missing costs `unserved_per_kwh`.

    Source: Samadi et al., IEEE SmartGridComm, 2010.
    """
    w = microgrids.utility_w_per_kwh
    satiation_kw = w / interval.alpha_per_kw2h
    floor_kw = _floor_kw(microgrids, interval)
    x = load_kw.clip(floor_kw, satiation_kw)
    # alpha x^2 as w x (x / satiation): an infinite alpha never meets its x = 0.
    used = x / np.where(satiation_kw > 0, satiation_kw, 1.0)
    unserved_kw = np.maximum(floor_kw - load_kw, 0.0)
    value: Float[np.ndarray, "*batch agent"] = w * x * (1 - used / 2) - microgrids.unserved_per_kwh * unserved_kw
    return value


def diesel_cost(
    microgrids: Microgrids, diesel_kw: Float[np.ndarray, "*batch agent"]
) -> Float[np.ndarray, "*batch agent"]:
    """Cost of generation a G^2 + b G, currency per hour."""
    a, b = microgrids.diesel_a_per_kw2h, microgrids.diesel_b_per_kwh
    cost: Float[np.ndarray, "*batch agent"] = (a * diesel_kw + b) * diesel_kw
    return cost


def wear(microgrids: Microgrids, battery_kw: Float[np.ndarray, "*batch agent"]) -> Float[np.ndarray, "*batch agent"]:
    """Cost of using the battery, currency per hour."""
    cost: Float[np.ndarray, "*batch agent"] = microgrids.wear_per_kwh * np.abs(battery_kw)
    return cost


def battery_reach(
    microgrids: Microgrids, interval: Interval
) -> tuple[Float[np.ndarray, "*batch agent"], Float[np.ndarray, "*batch agent"]]:
    """The least and the most battery power within the rating that leaves zero export feasible, whatever is stored.

    -(PV + G_max) <= battery <= the most the load can take; the interval's own `battery_kw` is not read.
    """
    least_kw = -np.minimum(microgrids.battery_rating_kw, interval.pv_kw + microgrids.diesel_max_kw)
    return least_kw, np.minimum(microgrids.battery_rating_kw, _free_load_kw(microgrids, interval))


def battery_limits(
    microgrids: Microgrids,
    interval: Interval,
    stored_kwh: Float[np.ndarray, "*batch agent"],
    least_kwh: Float[np.ndarray, "*#batch agent"],
    most_kwh: Float[np.ndarray, "*#batch agent"],
    step_hours: float,
) -> tuple[Float[np.ndarray, "*batch agent"], Float[np.ndarray, "*batch agent"]]:
    """The least and the most battery power in this interval, whose own `battery_kw` is not read.

    The power is within `battery_reach` and leads to an energy in the window. Where the energy is outside the window, or
    the window is out of reach, it goes as far towards it as rating and devices allow.

    Args:
        least_kwh: Lower end of the window for the energy at the interval's end.
        most_kwh: Its upper end.
    """
    eta_c, eta_d = microgrids.charge_efficiency, microgrids.discharge_efficiency
    least_kw, most_kw = battery_reach(microgrids, interval)

    def to_reach(energy_kwh: Float[np.ndarray, "*#batch agent"]) -> Float[np.ndarray, "*batch agent"]:
        gain_kw = (energy_kwh - stored_kwh) / step_hours
        # As no efficiency is above 1, the larger of the two is that for charging where it charges.
        drawn_kw = np.maximum(gain_kw / eta_c, gain_kw * eta_d)
        feasible_kw: Float[np.ndarray, "*batch agent"] = (-drawn_kw).clip(least_kw, most_kw)
        return feasible_kw

    return to_reach(most_kwh), to_reach(least_kwh)


def store(
    microgrids: Microgrids,
    stored_kwh: Float[np.ndarray, "*batch agent"],
    battery_kw: Float[np.ndarray, "*batch agent"],
    least_kwh: Float[np.ndarray, "*#batch agent"],
    most_kwh: Float[np.ndarray, "*#batch agent"],
    step_hours: float,
) -> Float[np.ndarray, "*batch agent"]:
    """Energy after an interval at a power within `battery_limits`: E + (eta_c charge - discharge / eta_d) dt.

    Rounding never takes it out of the window. Energy that began outside is not moved in by decree.
    """
    charged_kw = microgrids.charge_efficiency * np.maximum(-battery_kw, 0.0)
    drained_kw = np.maximum(battery_kw, 0.0) / microgrids.discharge_efficiency
    energy_kwh = stored_kwh + (charged_kw - drained_kw) * step_hours
    kept_kwh: Float[np.ndarray, "*batch agent"] = energy_kwh.clip(
        np.minimum(least_kwh, stored_kwh), np.maximum(most_kwh, stored_kwh)
    )
    return kept_kwh


def _free_load_kw(microgrids: Microgrids, interval: Interval) -> Float[np.ndarray, "*batch agent"]:
    """What is consumed when energy is free."""
    satiation_kw = microgrids.utility_w_per_kwh / interval.alpha_per_kw2h
    free_kw: Float[np.ndarray, "*batch agent"] = np.maximum(satiation_kw, _floor_kw(microgrids, interval))
    return free_kw


def _floor_kw(microgrids: Microgrids, interval: Interval) -> Float[np.ndarray, "*batch agent"]:
    """The must-serve part of the reference consumption."""
    floor_kw: Float[np.ndarray, "*batch agent"] = microgrids.must_serve_share * interval.demand_kw
    return floor_kw


class _Curves(NamedTuple):
    """What shapes the curve of every microgrid: [row, agent], or [agent] where it is the same in every interval."""

    pv_kw: Float[np.ndarray, "row agent"]
    demand_kw: Float[np.ndarray, "row agent"]
    alpha_per_kw2h: Float[np.ndarray, "row agent"]
    battery_kw: Float[np.ndarray, "row agent"]
    w_per_kwh: Float[np.ndarray, " agent"]
    must_serve_share: Float[np.ndarray, " agent"]
    diesel_max_kw: Float[np.ndarray, " agent"]
    diesel_a_per_kw2h: Float[np.ndarray, " agent"]
    diesel_b_per_kwh: Float[np.ndarray, " agent"]
    unserved_per_kwh: Float[np.ndarray, " agent"]


def _curves(microgrids: Microgrids, interval: Interval) -> _Curves:
    shape = interval.pv_kw.shape
    return _Curves(
        pv_kw=_rows(interval.pv_kw, shape),
        demand_kw=_rows(interval.demand_kw, shape),
        alpha_per_kw2h=_rows(interval.alpha_per_kw2h, shape),
        battery_kw=_rows(interval.battery_kw, shape),
        w_per_kwh=microgrids.utility_w_per_kwh,
        must_serve_share=np.asarray(microgrids.must_serve_share),
        diesel_max_kw=microgrids.diesel_max_kw,
        diesel_a_per_kw2h=microgrids.diesel_a_per_kw2h,
        diesel_b_per_kwh=microgrids.diesel_b_per_kwh,
        unserved_per_kwh=microgrids.unserved_per_kwh,
    )


def _rows(values: Float[np.ndarray, "*#batch #agent"], shape: tuple[int, ...]) -> Float[np.ndarray, "row agent"]:
    """The values, broadcast to a shape, with one axis for all batches."""
    if values.shape != shape:
        values = np.array(np.broadcast_to(values, shape))
    return np.ascontiguousarray(values, dtype=float).reshape(-1, shape[-1])


def _export_band(
    microgrids: Microgrids,
    interval: Interval,
    sell_per_kwh: Float[np.ndarray, "*#batch #agent"],
    buy_per_kwh: Float[np.ndarray, "*#batch #agent"],
) -> Float[np.ndarray, "end *batch agent"]:
    """E(sell-) and E(buy+)."""
    shape = interval.pv_kw.shape
    band_kw: Float[np.ndarray, "end row agent"] = _climb(
        _curves(microgrids, interval), _rows(sell_per_kwh, shape), _rows(buy_per_kwh, shape)
    )
    return band_kw.reshape(2, *shape)


def _reach(
    microgrids: Microgrids, interval: Interval, export_kw: Float[np.ndarray, "*batch agent"]
) -> Float[np.ndarray, "figure *batch agent"]:
    """Where the curve first reaches an export: the marginal value, PV, diesel, load, and the export reached."""
    shape = export_kw.shape
    figures: Float[np.ndarray, "figure row agent"] = _walk(_curves(microgrids, interval), _rows(export_kw, shape))
    return figures.reshape(-1, *shape)


@compiled
def _climb(
    curves: _Curves, sell_per_kwh: Float[np.ndarray, "row agent"], buy_per_kwh: Float[np.ndarray, "row agent"]
) -> Float[np.ndarray, "end row agent"]:
    """The exports at two marginal values; at a jump the first is seen from the left, the second from the right."""
    export_kw = np.empty((2, *sell_per_kwh.shape))
    for row in range(export_kw.shape[1]):
        for agent in range(export_kw.shape[2]):
            sold_kw = bought_kw = 0.0
            for rung in _ladder(curves, row, agent):
                sold_kw += _taken(rung, sell_per_kwh[row, agent], False)
                bought_kw += _taken(rung, buy_per_kwh[row, agent], True)
            least_kw = curves.battery_kw[row, agent] - _free_kw(curves, row, agent)
            export_kw[0, row, agent], export_kw[1, row, agent] = least_kw + sold_kw, least_kw + bought_kw
    return export_kw


@compiled
def _walk(curves: _Curves, export_kw: Float[np.ndarray, "row agent"]) -> Float[np.ndarray, "figure row agent"]:
    """Where each curve first reaches an export: the marginal value, PV, diesel, load, and the export reached.

    From corner to corner, each seen from the left and from the right, everything is linear. Interpolating the rungs
    rather than opening them at the interpolated value keeps the export exact however steep the curve is.
    """
    figures = np.empty((5, *export_kw.shape))
    taken = np.empty(5)
    for row in range(export_kw.shape[0]):
        for agent in range(export_kw.shape[1]):
            rungs, free_kw = _ladder(curves, row, agent), _free_kw(curves, row, agent)
            battery_kw = curves.battery_kw[row, agent]
            least_kw, most_kw = battery_kw - free_kw, 0.0
            for _, _, size_kw in rungs:
                most_kw += size_kw
            target_kw = min(max(export_kw[row, agent], least_kw), least_kw + most_kw)
            # The last two points of the walk: marginal value, what is taken of each rung, export.
            low, high = np.zeros(6), np.zeros(6)
            low[5] = high[5] = least_kw
            corner, from_right = 0.0, False
            while high[5] < target_kw:
                low, high = high, low
                high[0], taken_kw = corner, 0.0
                for k, rung in enumerate(rungs):
                    high[1 + k] = _taken(rung, corner, from_right)
                    taken_kw += high[1 + k]
                high[5] = least_kw + taken_kw
                if from_right:
                    corner = _next_corner(rungs, corner)
                from_right = not from_right
            rise_kw = high[5] - low[5]
            share = (target_kw - low[5]) / rise_kw if rise_kw > 0 else 0.0
            for k in range(5):
                taken[k] = min(max(low[k] + share * (high[k] - low[k]), low[k]), high[k])
            value_per_kwh, pv_kw, diesel_kw, cut_kw, unserved_kw = taken
            load_kw = max(free_kw - cut_kw - unserved_kw, 0.0)
            figures[0, row, agent], figures[1, row, agent], figures[2, row, agent] = value_per_kwh, pv_kw, diesel_kw
            figures[3, row, agent], figures[4, row, agent] = load_kw, pv_kw + diesel_kw + battery_kw - load_kw
    return figures


@inlined
def _free_kw(curves: _Curves, row: int, agent: int) -> float:
    """What is consumed when energy is free."""
    floor_kw = curves.must_serve_share[agent] * curves.demand_kw[row, agent]
    return max(curves.w_per_kwh[agent] / curves.alpha_per_kw2h[row, agent], floor_kw)


@inlined
def _ladder(curves: _Curves, row: int, agent: int) -> tuple[Rung, Rung, Rung, Rung]:
    """The ways to export more, each opening linearly between two values: where it opens, where it is exhausted, size.

    A rung whose two values coincide opens at once, as a jump of the curve.
    """
    b, diesel_max_kw = curves.diesel_b_per_kwh[agent], curves.diesel_max_kw[agent]
    w, alpha, unserved = curves.w_per_kwh[agent], curves.alpha_per_kw2h[row, agent], curves.unserved_per_kwh[agent]
    floor_kw = curves.must_serve_share[agent] * curves.demand_kw[row, agent]
    # With an infinite alpha nothing is consumed above the floor, and any value will do.
    at_floor = max(w - alpha * floor_kw, 0.0) if np.isfinite(alpha) else w
    return (
        (0.0, 0.0, curves.pv_kw[row, agent]),
        (b, b + 2 * curves.diesel_a_per_kw2h[agent] * diesel_max_kw, diesel_max_kw),
        (0.0, at_floor, _free_kw(curves, row, agent) - floor_kw),
        (unserved, unserved, floor_kw),
    )


@inlined
def _taken(rung: Rung, value_per_kwh: float, from_right: bool) -> float:
    """How much of a rung is worth taking at a marginal value, at a jump seen from the left or from the right."""
    opens, exhausted, size_kw = rung
    if opens < exhausted:
        return min(max(value_per_kwh - opens, 0.0), exhausted - opens) / (exhausted - opens) * size_kw
    return size_kw if value_per_kwh > opens or (from_right and value_per_kwh == opens) else 0.0


@inlined
def _next_corner(rungs: tuple[Rung, Rung, Rung, Rung], corner: float) -> float:
    """The least value above a corner at which a rung opens or is exhausted."""
    above = np.inf
    for opens, exhausted, _ in rungs:
        for value in (opens, exhausted):
            if corner < value < above:
                above = value
    return above
