"""Microgrids, each a set of devices at a bus: what it exports at which marginal value, in closed form, in any batch.

Once the powers that are decided are fixed, the battery's and those of further devices, a microgrid has four ways to
export one kW more. Each opens at some marginal value mu of energy (currency per kWh) and is exhausted at another:

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
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from peergrid.envs.devices import demand, generator, pv, storage
from peergrid.envs.devices.curve import Rung, next_corner, taken
from peergrid.envs.devices.storage import Storage
from peergrid.grid.compiled import compiled, inlined
from peergrid.grid.errors import InvalidScenario, raise_faults

Side = Literal["left", "right"]
DEVICES = Path(storage.__file__).parent  # whose rungs are compiled into the curve


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

    @cached_property
    def battery(self) -> Storage:
        """Their batteries alone."""
        return Storage(
            rating_kw=self.battery_rating_kw,
            energy_min_kwh=self.energy_min_kwh,
            energy_max_kwh=self.energy_max_kwh,
            charge_efficiency=self.charge_efficiency,
            discharge_efficiency=self.discharge_efficiency,
            wear_per_kwh=self.wear_per_kwh,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Interval:
    """What an interval brings: PV available, reference consumption, and the battery power, decided before the dispatch.

    `alpha_per_kw2h` is the slope of the marginal utility w - alpha x; infinite where there is no demand. `others_kw` is
    what further devices give that are decided before the dispatch, likewise; None where there are none.
    """

    pv_kw: Float[np.ndarray, "*batch agent"]
    demand_kw: Float[np.ndarray, "*batch agent"]
    alpha_per_kw2h: Float[np.ndarray, "*batch agent"]
    battery_kw: Float[np.ndarray, "*batch agent"]
    others_kw: Float[np.ndarray, "*batch agent"] | None = None

    @property
    def decided_kw(self) -> Float[np.ndarray, "*batch agent"]:
        """What is given by all that is decided before the dispatch."""
        return self.battery_kw if self.others_kw is None else self.battery_kw + self.others_kw


@dataclass(frozen=True, eq=False, kw_only=True)
class Dispatch:
    """What every device does; export = PV + diesel + (battery + others) - load, to the last bit."""

    pv_kw: Float[np.ndarray, "*batch agent"]
    diesel_kw: Float[np.ndarray, "*batch agent"]
    battery_kw: Float[np.ndarray, "*batch agent"]
    load_kw: Float[np.ndarray, "*batch agent"]
    export_kw: Float[np.ndarray, "*batch agent"]
    others_kw: Float[np.ndarray, "*batch agent"] | None = None


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
    least_kw = interval.decided_kw - free_kw
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
        pv_kw=pv_kw,
        diesel_kw=diesel_kw,
        battery_kw=interval.battery_kw,
        load_kw=load_kw,
        export_kw=reached_kw,
        others_kw=interval.others_kw,
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
    """Utility of consumption, currency per hour, less what must-serve load that is missing costs."""
    return demand.utility(
        microgrids.utility_w_per_kwh,
        interval.alpha_per_kw2h,
        _floor_kw(microgrids, interval),
        microgrids.unserved_per_kwh,
        load_kw,
    )


def diesel_cost(
    microgrids: Microgrids, diesel_kw: Float[np.ndarray, "*batch agent"]
) -> Float[np.ndarray, "*batch agent"]:
    """Cost of generation a G^2 + b G, currency per hour."""
    return generator.cost(microgrids.diesel_a_per_kw2h, microgrids.diesel_b_per_kwh, diesel_kw)


def wear(microgrids: Microgrids, battery_kw: Float[np.ndarray, "*batch agent"]) -> Float[np.ndarray, "*batch agent"]:
    """Cost of using the battery, currency per hour."""
    return storage.wear(microgrids.battery, battery_kw)


def battery_reach(
    microgrids: Microgrids, interval: Interval
) -> tuple[Float[np.ndarray, "*batch agent"], Float[np.ndarray, "*batch agent"]]:
    """The least and the most battery power within the rating that leaves zero export feasible, whatever is stored.

    The interval's own `battery_kw` is not read.
    """
    drawn_kw, given_kw = decided_reach(microgrids, interval)
    return -np.minimum(microgrids.battery_rating_kw, drawn_kw), np.minimum(microgrids.battery_rating_kw, given_kw)


def decided_reach(
    microgrids: Microgrids, interval: Interval
) -> tuple[Float[np.ndarray, "*batch agent"], Float[np.ndarray, "*batch agent"]]:
    """How much more can be drawn, and given, by decision, so that zero export stays feasible.

    -(PV + G_max) <= what is decided <= the most the load can take: all of it but the battery's own is counted.
    """
    drawn_kw, given_kw = interval.pv_kw + microgrids.diesel_max_kw, _free_load_kw(microgrids, interval)
    if interval.others_kw is None:
        return drawn_kw, given_kw
    return drawn_kw + interval.others_kw, given_kw - interval.others_kw


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
    battery, (least_kw, most_kw) = microgrids.battery, battery_reach(microgrids, interval)
    return (
        storage.power_to_reach(battery, stored_kwh, most_kwh, least_kw, most_kw, step_hours),
        storage.power_to_reach(battery, stored_kwh, least_kwh, least_kw, most_kw, step_hours),
    )


def store(
    microgrids: Microgrids,
    stored_kwh: Float[np.ndarray, "*batch agent"],
    battery_kw: Float[np.ndarray, "*batch agent"],
    least_kwh: Float[np.ndarray, "*#batch agent"],
    most_kwh: Float[np.ndarray, "*#batch agent"],
    step_hours: float,
) -> Float[np.ndarray, "*batch agent"]:
    """Energy in the batteries after an interval at powers within `battery_limits`."""
    return storage.store(microgrids.battery, stored_kwh, battery_kw, least_kwh, most_kwh, step_hours)


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
    decided_kw: Float[np.ndarray, "row agent"]
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
        decided_kw=_rows(interval.decided_kw, shape),
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


@compiled(folder=DEVICES)  # type: ignore[untyped-decorator]
def _climb(
    curves: _Curves, sell_per_kwh: Float[np.ndarray, "row agent"], buy_per_kwh: Float[np.ndarray, "row agent"]
) -> Float[np.ndarray, "end row agent"]:
    """The exports at two marginal values; at a jump the first is seen from the left, the second from the right."""
    export_kw = np.empty((2, *sell_per_kwh.shape))
    for row in range(export_kw.shape[1]):
        for agent in range(export_kw.shape[2]):
            sold_kw = bought_kw = 0.0
            for rung in _ladder(curves, row, agent):
                sold_kw += taken(rung, sell_per_kwh[row, agent], False)
                bought_kw += taken(rung, buy_per_kwh[row, agent], True)
            least_kw = curves.decided_kw[row, agent] - _free_kw(curves, row, agent)
            export_kw[0, row, agent], export_kw[1, row, agent] = least_kw + sold_kw, least_kw + bought_kw
    return export_kw


@compiled(folder=DEVICES)  # type: ignore[untyped-decorator]
def _walk(curves: _Curves, export_kw: Float[np.ndarray, "row agent"]) -> Float[np.ndarray, "figure row agent"]:
    """Where each curve first reaches an export: the marginal value, PV, diesel, load, and the export reached.

    From corner to corner, each seen from the left and from the right, everything is linear. Interpolating the rungs
    rather than opening them at the interpolated value keeps the export exact however steep the curve is.
    """
    figures = np.empty((5, *export_kw.shape))
    reached = np.empty(5)
    for row in range(export_kw.shape[0]):
        for agent in range(export_kw.shape[1]):
            rungs, free_kw = _ladder(curves, row, agent), _free_kw(curves, row, agent)
            decided_kw = curves.decided_kw[row, agent]
            least_kw, most_kw = decided_kw - free_kw, 0.0
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
                    high[1 + k] = taken(rung, corner, from_right)
                    taken_kw += high[1 + k]
                high[5] = least_kw + taken_kw
                if from_right:
                    corner = next_corner(rungs, corner)
                from_right = not from_right
            rise_kw = high[5] - low[5]
            share = (target_kw - low[5]) / rise_kw if rise_kw > 0 else 0.0
            for k in range(5):
                reached[k] = min(max(low[k] + share * (high[k] - low[k]), low[k]), high[k])
            value_per_kwh, pv_kw, diesel_kw, cut_kw, unserved_kw = reached
            load_kw = max(free_kw - cut_kw - unserved_kw, 0.0)
            figures[0, row, agent], figures[1, row, agent], figures[2, row, agent] = value_per_kwh, pv_kw, diesel_kw
            figures[3, row, agent], figures[4, row, agent] = load_kw, pv_kw + diesel_kw + decided_kw - load_kw
    return figures


@inlined
def _floor_of(curves: _Curves, row: int, agent: int) -> float:
    """The must-serve part of the reference consumption."""
    return curves.must_serve_share[agent] * curves.demand_kw[row, agent]


@inlined
def _free_kw(curves: _Curves, row: int, agent: int) -> float:
    """What is consumed when energy is free."""
    return demand.free_kw(curves.w_per_kwh[agent], curves.alpha_per_kw2h[row, agent], _floor_of(curves, row, agent))


@inlined
def _ladder(curves: _Curves, row: int, agent: int) -> tuple[Rung, Rung, Rung, Rung]:
    """The ways to export more, each a device's."""
    less, none = demand.rungs(
        curves.w_per_kwh[agent],
        curves.alpha_per_kw2h[row, agent],
        _floor_of(curves, row, agent),
        curves.unserved_per_kwh[agent],
    )
    return (
        pv.rung(curves.pv_kw[row, agent]),
        generator.rung(curves.diesel_max_kw[agent], curves.diesel_a_per_kw2h[agent], curves.diesel_b_per_kwh[agent]),
        less,
        none,
    )
