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
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from peergrid.grid.errors import InvalidScenario, raise_faults

Side = Literal["left", "right"]
_SIDES: tuple[Side, Side] = ("left", "right")


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
    return _ladder(microgrids, interval).export_kw(value_per_kwh, side)


def marginal_value(
    microgrids: Microgrids, interval: Interval, export_kw: Float[np.ndarray, "*batch agent"]
) -> Float[np.ndarray, "*batch agent"]:
    """The least mu >= 0 at which the microgrid would export this much: inf {mu : E(mu) >= export}, per kWh.

    An export out of range is taken as the nearest one within.
    """
    return _point(_ladder(microgrids, interval), export_kw)[0]


def dispatch_to(microgrids: Microgrids, interval: Interval, export_kw: Float[np.ndarray, "*batch agent"]) -> Dispatch:
    """The cheapest dispatch with exactly this export; one out of range is taken as the nearest within.

    Devices that open at the very same value share what is left to take in proportion.
    """
    _, (pv_kw, diesel_kw, cut_kw, unserved_kw) = _point(_ladder(microgrids, interval), export_kw)
    load_kw = np.maximum(_free_load_kw(microgrids, interval) - cut_kw - unserved_kw, 0.0)
    return Dispatch(
        pv_kw=pv_kw,
        diesel_kw=diesel_kw,
        battery_kw=interval.battery_kw,
        load_kw=load_kw,
        export_kw=pv_kw + diesel_kw + interval.battery_kw - load_kw,
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
    ladder = _ladder(microgrids, interval)
    return ladder.export_kw(sell_per_kwh, "left"), ladder.export_kw(buy_per_kwh, "right")


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


def battery_limits(
    microgrids: Microgrids,
    interval: Interval,
    stored_kwh: Float[np.ndarray, "*batch agent"],
    least_kwh: Float[np.ndarray, "*#batch agent"],
    most_kwh: Float[np.ndarray, "*#batch agent"],
    step_hours: float,
) -> tuple[Float[np.ndarray, "*batch agent"], Float[np.ndarray, "*batch agent"]]:
    """The least and the most battery power in this interval, whose own `battery_kw` is not read.

    The power keeps within the rating, leads to an energy in the window, and leaves zero export feasible:
    -(PV + G_max) <= battery <= the most the load can take. Where the energy is outside the window, or the window is out
    of reach, it goes as far towards it as rating and devices allow.

    Args:
        least_kwh: Lower end of the window for the energy at the interval's end.
        most_kwh: Its upper end.
    """
    rating_kw, eta_c, eta_d = (
        microgrids.battery_rating_kw,
        microgrids.charge_efficiency,
        microgrids.discharge_efficiency,
    )
    supply_kw, free_load_kw = interval.pv_kw + microgrids.diesel_max_kw, _free_load_kw(microgrids, interval)

    def to_reach(energy_kwh: Float[np.ndarray, "*#batch agent"]) -> Float[np.ndarray, "*batch agent"]:
        gain_kw = (energy_kwh - stored_kwh) / step_hours
        power_kw = -np.maximum(gain_kw / eta_c, gain_kw * eta_d)  # the one where it charges, the other elsewhere
        feasible_kw: Float[np.ndarray, "*batch agent"] = power_kw.clip(-rating_kw, rating_kw).clip(
            -supply_kw, free_load_kw
        )
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


@dataclass(frozen=True, eq=False, kw_only=True)
class _Ladder:
    """The ways to export more: PV, diesel, cut load, unserved load, each opening linearly between two values.

    A rung whose two values coincide opens at once, as a jump of the curve.
    """

    least_kw: Float[np.ndarray, "*batch agent"]
    opens_per_kwh: Float[np.ndarray, "rung *batch agent"]
    exhausted_per_kwh: Float[np.ndarray, "rung *batch agent"]
    size_kw: Float[np.ndarray, "rung *batch agent"]

    def taken_kw(self, value_per_kwh: Float[np.ndarray, "..."], side: Side) -> Float[np.ndarray, "..."]:
        """How much of each rung is worth taking at this marginal value, at a jump seen from the left or the right.

        Args:
            value_per_kwh: One for each microgrid, or several along axes in front of an axis for the rungs.
        """
        span = self.exhausted_per_kwh - self.opens_per_kwh
        above = value_per_kwh - self.opens_per_kwh
        is_jump, jumped = span <= 0, above > 0 if side == "left" else above >= 0
        opened = above.clip(0.0, span) / np.where(is_jump, 1.0, span)
        return np.where(is_jump, jumped, opened) * self.size_kw

    def export_kw(
        self, value_per_kwh: Float[np.ndarray, "*#batch #agent"], side: Side
    ) -> Float[np.ndarray, "*batch agent"]:
        export: Float[np.ndarray, "*batch agent"] = self.least_kw + self.taken_kw(value_per_kwh, side).sum(axis=0)
        return export


def _ladder(microgrids: Microgrids, interval: Interval) -> _Ladder:
    w, alpha = microgrids.utility_w_per_kwh, interval.alpha_per_kw2h
    a, b, unserved = microgrids.diesel_a_per_kw2h, microgrids.diesel_b_per_kwh, microgrids.unserved_per_kwh
    free_kw, floor_kw = _free_load_kw(microgrids, interval), _floor_kw(microgrids, interval)
    # With an infinite alpha nothing is consumed above the floor, and any value will do.
    at_floor = np.maximum(w - np.where(np.isfinite(alpha), alpha, 0.0) * floor_kw, 0.0)

    def rungs(*of_each: Float[np.ndarray, "..."] | float) -> Float[np.ndarray, "rung *batch agent"]:
        together = np.empty((len(of_each), *interval.pv_kw.shape))
        for rung, one in zip(together, of_each, strict=True):
            rung[...] = one
        return together

    return _Ladder(
        least_kw=interval.battery_kw - free_kw,
        opens_per_kwh=rungs(0.0, b, 0.0, unserved),
        exhausted_per_kwh=rungs(0.0, b + 2 * a * microgrids.diesel_max_kw, at_floor, unserved),
        size_kw=rungs(interval.pv_kw, microgrids.diesel_max_kw, free_kw - floor_kw, floor_kw),
    )


def _point(
    ladder: _Ladder, export_kw: Float[np.ndarray, "*batch agent"]
) -> tuple[Float[np.ndarray, "*batch agent"], Float[np.ndarray, "rung *batch agent"]]:
    """Where the curve first reaches an export: the marginal value, and what is taken of each rung.

    Between two neighbouring corners everything is linear, jumps included. Interpolating the rungs rather than opening
    them at the interpolated value keeps the export exact however steep the curve is.
    """
    corners = np.sort(np.concatenate([ladder.opens_per_kwh, ladder.exhausted_per_kwh]), axis=0)
    # Every corner from the left and from the right: its value, the export there, and what is taken of each rung.
    points = np.empty((len(corners), 2, 2 + len(ladder.size_kw), *export_kw.shape))
    points[:, :, 0] = corners[:, None]
    for k, side in enumerate(_SIDES):
        points[:, k, 2:] = ladder.taken_kw(corners[:, None], side)
    points = points.reshape(-1, *points.shape[2:])
    curve_kw = points[:, 1] = ladder.least_kw + points[:, 2:].sum(axis=1)
    target_kw = export_kw.clip(curve_kw[0], curve_kw[-1])

    # A corner listed twice walks its jump twice; what counts is the first point that reaches the target.
    reached = np.argmax(curve_kw >= target_kw, axis=0).ravel()
    of_cells, cells = points.reshape(*points.shape[:2], -1), np.arange(reached.size)
    low, high = of_cells[np.maximum(reached - 1, 0), :, cells], of_cells[reached, :, cells]
    rise_kw = high[:, 1] - low[:, 1]
    share = (target_kw.ravel() - low[:, 1]) / np.where(rise_kw > 0, rise_kw, 1.0)
    between = (low + share[:, None] * (high - low)).clip(low, high).T.reshape(points.shape[1:])
    return between[0], between[2:]
