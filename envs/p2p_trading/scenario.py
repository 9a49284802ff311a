"""A scenario of the P2P market: every number of a study, from `conf/scenario/<name>.yaml` or from plain Python.

`build_*` turn it into the arrays and parts that the simulation works with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from peergrid.envs.common.configuration import (
    MOST_INTERVALS,
    faulty_fields,
    faulty_numbers,
    from_mapping,
    read_file,
    shipped_names,
)
from peergrid.envs.common.network import DsoSpec, NetworkSpec, build_feeder, build_penalty, faulty_dso, strain
from peergrid.envs.common.profiles import ProfileSource, SyntheticProfiles, TableProfiles
from peergrid.envs.devices.device import Device, fleets
from peergrid.envs.microgrid import Microgrids
from peergrid.grid.catalogue import feeder_names, load_feeder
from peergrid.grid.dso import DsoQuery, DsoStatus, Generators, OpfDso, UncheckedDso
from peergrid.grid.errors import InvalidScenario, raise_faults
from peergrid.grid.parts import part_name

GROUP = "scenario"
# The published 33-bus case sheds 1.1 % of its largest load to keep 0.95 p.u.; more says that the limits don't fit.
MOST_SHED = 0.02


@dataclass(frozen=True, kw_only=True)
class GeneratorSpec:
    """A generator that the DSO dispatches, at `a p^2 + b p` per hour."""

    bus: str
    p_max_kw: float
    q_max_kvar: float
    a_per_kw2h: float
    b_per_kwh: float
    p_min_kw: float = 0.0


@dataclass(frozen=True, kw_only=True)
class MicrogridSpec:
    """One microgrid; sizes are multiplied by the scenario's `scale`, quadratic coefficients divided by it."""

    bus: str
    demand_class: str
    demand_peak_kw: float
    diesel_max_kw: float = 0.0
    diesel_a_per_kw2h: float = 0.0
    diesel_b_per_kwh: float = 0.0
    pv_peak_kw: float = 0.0
    battery_kw: float = 0.0
    battery_min_kwh: float = 0.0
    battery_max_kwh: float = 0.0
    charge_efficiency: float = 0.95
    discharge_efficiency: float = 0.95
    wear_per_kwh: float = 0.01
    utility_w_per_kwh: float = 0.75
    demand_price_per_kwh: float = 0.15
    """The price at which it would consume its reference demand: alpha = (w - price) / demand."""
    must_serve_share: float = 0.0
    unserved_per_kwh: float = 3.0


@dataclass(frozen=True, kw_only=True)
class MarketSpec:
    """The P2P market and its settlement."""

    mechanism: str = part_name("call_auction")
    half_spread_per_kwh: float = 0.03
    price_cap_per_kwh: float = 1.0
    retail_per_kwh: float = 0.15
    correction_rounds: int = 1


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Everything that a study fixes. Hashable, so that what is computed for it can be cached.

    Batteries start every day at `initial_charge` between their bounds. With `daily_cycle` they also end it there:
    towards the end of the day, set-points are clipped so that the way back stays possible. Then days and policies
    compare, as no one lives off what was stored. `horizon` is "terminate" (a finite task, in which the energy left
    above the initial is paid at the day's mean price) or "truncate" (the day is cut, the future goes on).
    """

    name: str
    network: NetworkSpec
    microgrids: tuple[MicrogridSpec, ...]
    generators: tuple[GeneratorSpec, ...] = ()
    devices: tuple[Device, ...] = ()
    """Further devices at the microgrids' buses, at most one of a kind at each; sizes are multiplied by `scale`."""
    dso: DsoSpec = field(default_factory=DsoSpec)
    market: MarketSpec = field(default_factory=MarketSpec)
    profiles: SyntheticProfiles = field(default_factory=SyntheticProfiles)
    profiles_file: str = ""
    """The user's CSV or Parquet, instead of `profiles`."""
    scale: float = 1.0
    pv_scale: float = 1.0
    """PV peaks are multiplied by it as well as by `scale`."""
    n_microgrids: int = 0
    """Only the first so many of `microgrids` are there; all, if 0."""
    first_day: int = 0
    """With `n_days`: the season that days are drawn from, held-out days too."""
    n_days: int = 0
    """How many days from `first_day` on, around the year's end; all, if 0."""
    intervals: int = 24
    step_hours: float = 1.0
    lookahead: int = 8
    """How many intervals ahead agents see day-ahead prices and forecasts."""
    initial_charge: float = 0.5
    daily_cycle: bool = True
    horizon: str = "terminate"
    cooperation: float = 0.0
    """The share of the reward that is an equal share of the welfare; the rest is the own gain."""
    over_no_trade: bool = False
    """Gain and welfare are paid less what the same interval of a day without trade gives."""
    seed: int = 0

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.n_microgrids:
            object.__setattr__(self, "microgrids", self.microgrids[: self.n_microgrids])
            buses = {m.bus for m in self.microgrids}
            object.__setattr__(self, "devices", tuple(d for d in self.devices if d.bus in buses))


def scenario_names() -> tuple[str, ...]:
    """Names of the shipped scenarios."""
    return shipped_names(GROUP)


def load_scenario(scenario: str | Path | Scenario, **changes: Any) -> Scenario:
    """The scenario of that name, of a YAML file, or the one given, with some top-level fields changed.

    Raises:
        UnknownName: Neither a shipped scenario nor a file.
        InvalidScenario: Unknown or missing keys, wrong types, contradictions; every fault is named.
    """
    if not isinstance(scenario, Scenario):
        scenario = scenario_from_dict(read_file(GROUP, str(scenario)))
    return replace(scenario, **changes) if changes else scenario


def scenario_from_dict(values: Mapping[str, Any]) -> Scenario:
    """A scenario from nested mappings and lists, as YAML and Hydra give them."""
    return from_mapping(Scenario, values)


def _check_numbers(scenario: Scenario) -> None:
    faults: list[str] = []
    if not scenario.microgrids:
        faults.append("there is no microgrid")
    buses = [m.bus for m in scenario.microgrids]
    if len(set(buses)) < len(buses):
        faults.append(f"two microgrids share a bus: {buses}")
    for where, part in (("network", scenario.network), ("dso", scenario.dso), ("market", scenario.market)):
        faults += faulty_numbers(where, part)
    for i, g in enumerate(scenario.generators):
        where = f"generators[{i}] at bus {g.bus}"
        faults += faulty_numbers(where, g, may_be_negative=("p_min_kw", "b_per_kwh"))
        if g.p_min_kw > g.p_max_kw:
            faults.append(f"{where}: p_min_kw is above p_max_kw")
    for i, m in enumerate(scenario.microgrids):
        where = f"microgrids[{i}] at bus {m.bus}"
        faults += faulty_numbers(where, m)
        if m.battery_min_kwh > m.battery_max_kwh:
            faults.append(f"{where}: battery_min_kwh is above battery_max_kwh")
        if not (0 < m.charge_efficiency <= 1 and 0 < m.discharge_efficiency <= 1):
            faults.append(f"{where}: efficiencies must lie in (0, 1]")
        if m.utility_w_per_kwh <= m.demand_price_per_kwh:
            faults.append(f"{where}: utility_w_per_kwh must be above demand_price_per_kwh")
        if m.must_serve_share > 1:
            faults.append(f"{where}: must_serve_share is above 1")
        if m.unserved_per_kwh < m.utility_w_per_kwh:
            faults.append(
                f"{where}: unserved_per_kwh is below utility_w_per_kwh, so must-serve load would be cut first"
            )
    faults += _faulty_devices(scenario)
    if scenario.n_microgrids > len(scenario.microgrids):
        faults.append(f"n_microgrids is {scenario.n_microgrids}, and there are {len(scenario.microgrids)}")
    faults += faulty_fields(
        scenario,
        positive=("scale", "step_hours"),
        least={"intervals": 1, "lookahead": 1, "seed": 0, "n_microgrids": 0, "first_day": 0, "n_days": 0},
        most={"intervals": MOST_INTERVALS, "lookahead": MOST_INTERVALS},
        shares=("initial_charge", "cooperation"),
    )
    if not 0 <= scenario.pv_scale < np.inf:
        faults.append(f"pv_scale is {scenario.pv_scale}, not a number from 0")
    if scenario.network.ratings not in ("nominal_load", "feeder"):
        faults.append(f"network.ratings is {scenario.network.ratings!r}; it is 'nominal_load' or 'feeder'")
    if scenario.horizon not in ("truncate", "terminate"):
        faults.append(f"horizon is {scenario.horizon!r}; it is 'truncate' or 'terminate'")
    faults += faulty_dso(scenario.dso)
    if scenario.dso.penalty == "paper" and scenario.dso.c_ls_per_kw2h <= 0:
        faults.append("dso.penalty is 'paper', so c_ls_per_kw2h must be positive: else shedding would be free")
    if scenario.market.price_cap_per_kwh == 0:
        faults.append("market.price_cap_per_kwh must be positive")
    if scenario.market.correction_rounds < 1:
        faults.append("market.correction_rounds is below 1")
    raise_faults(InvalidScenario, f"scenario {scenario.name!r}", faults)


def _faulty_devices(scenario: Scenario) -> list[str]:
    faults = []
    diesel_kw = {m.bus: m.diesel_max_kw for m in scenario.microgrids}
    for i, device in enumerate(scenario.devices):
        where = f"devices[{i}], a {device.kind} at bus {device.bus}"
        faults += faulty_numbers(where, device, may_be_negative=device.may_be_negative)
        faults += [f"{where}: {fault}" for fault in device.faults()]
        if device.bus not in diesel_kw:
            faults.append(f"{where}: there is no microgrid")
        if any(d.kind == device.kind and d.bus == device.bus for d in scenario.devices[:i]):
            faults.append(f"{where}: there is one already; make one of both")
    for bus, most_kw in diesel_kw.items():
        draws_kw = sum(d.draws_kw for d in scenario.devices if d.bus == bus)
        if draws_kw > most_kw:
            faults.append(
                f"devices at bus {bus} draw up to {draws_kw:g} kW, and diesel_max_kw is {most_kw:g} there: they could "
                "not run where the operator curtails every import"
            )
    return faults


def build_profiles(scenario: Scenario) -> ProfileSource:
    """The source of the scenario's days."""
    return TableProfiles(scenario.profiles_file) if scenario.profiles_file else scenario.profiles


def build_microgrids(scenario: Scenario) -> Microgrids:
    """The microgrids as arrays, with `scale` applied.

    The rating, which scales offers, is the most that a microgrid could ever export or draw.
    """
    k = scenario.scale

    def each(name: str) -> Float[np.ndarray, " agent"]:
        return np.array([getattr(m, name) for m in scenario.microgrids])

    battery, diesel, pv = k * each("battery_kw"), k * each("diesel_max_kw"), k * scenario.pv_scale * each("pv_peak_kw")
    w, price = each("utility_w_per_kwh"), each("demand_price_per_kwh")
    most_load = k * each("demand_peak_kw") * w / (w - price)
    decided = battery
    for fleet in fleets(build_devices(scenario), [m.bus for m in scenario.microgrids]):
        decided = decided + np.maximum(fleet.draws_kw, fleet.gives_kw)
    return Microgrids(
        rating_kw=decided + np.maximum(pv + diesel, most_load),
        utility_w_per_kwh=w,
        diesel_max_kw=diesel,
        diesel_a_per_kw2h=each("diesel_a_per_kw2h") / k,
        diesel_b_per_kwh=each("diesel_b_per_kwh"),
        battery_rating_kw=battery,
        energy_min_kwh=k * each("battery_min_kwh"),
        energy_max_kwh=k * each("battery_max_kwh"),
        charge_efficiency=each("charge_efficiency"),
        discharge_efficiency=each("discharge_efficiency"),
        wear_per_kwh=each("wear_per_kwh"),
        must_serve_share=each("must_serve_share"),
        unserved_per_kwh=each("unserved_per_kwh"),
    )


def build_devices(scenario: Scenario) -> tuple[Device, ...]:
    """The microgrids' further devices, with `scale` applied."""
    return tuple(device.scaled(scenario.scale) for device in scenario.devices)


def build_dso(scenario: Scenario) -> OpfDso:
    """The scenario's DSO: the optimal power flow on its feeder, with a trade at every microgrid's bus."""
    feeder = build_feeder(scenario.network)
    spec, generators = scenario.dso, scenario.generators

    def each(name: str) -> Float[np.ndarray, " gen"]:
        return np.array([getattr(g, name) for g in generators], dtype=float)

    return OpfDso(
        feeder,
        [feeder.index(m.bus) for m in scenario.microgrids],
        generators=Generators(
            bus=tuple(feeder.index(g.bus) for g in generators),
            p_min_kw=each("p_min_kw"),
            p_max_kw=each("p_max_kw"),
            q_min_kvar=-each("q_max_kvar"),
            q_max_kvar=each("q_max_kvar"),
            a_per_kw2h=each("a_per_kw2h"),
            b_per_kwh=each("b_per_kwh"),
        ),
        penalty=build_penalty(spec, scenario.scale),
        upper_voltage=spec.upper_voltage,
        solver=spec.solver,
    )


def build_unchecked_dso(scenario: Scenario) -> UncheckedDso:
    """An operator that carries out every trade unchecked; its own generators run as the scenario's DSO plans them."""
    return UncheckedDso(build_dso(scenario))


def check_scenario(scenario: Scenario) -> None:
    """Raise InvalidScenario if its DSO would shed load to save trades, or can't serve the loads without any trade.

    Without trades, the largest load that can be drawn and half of it are solved.
    """
    is_shipped = scenario.network.feeder in feeder_names() and not scenario.profiles_file
    (_check_shipped if is_shipped else _check_scenario)(scenario)


@lru_cache(maxsize=64)
def _check_shipped(scenario: Scenario) -> None:
    _check_scenario(scenario)


def _check_scenario(scenario: Scenario) -> None:
    source, rating = build_profiles(scenario), build_microgrids(scenario).rating_kw
    spec = scenario.dso
    faults: list[str] = []
    if spec.penalty == "default":
        worst = (
            2 * spec.lambda_corr_per_kw2h / scenario.scale * rating.max() + spec.kappa_per_kwh + source.max_lmp_per_kwh
        )
        if worst >= spec.voll_per_kwh:
            faults.append(
                f"2 lambda_corr t_max + kappa + max LMP = {worst:.3g} reaches voll = {spec.voll_per_kwh:.3g} per kWh, "
                "so load would be shed to save trades: raise dso.voll_per_kwh or lower dso.lambda_corr_per_kw2h"
            )
    if scenario.market.price_cap_per_kwh < source.max_lmp_per_kwh:
        faults.append(
            f"market.price_cap_per_kwh = {scenario.market.price_cap_per_kwh:.3g} is below the largest LMP "
            f"{source.max_lmp_per_kwh:.3g}, so undelivered contracts would pay: raise it"
        )
    known = load_feeder(scenario.network.feeder).bus
    wanted = [(f"microgrids[{i}]", m.bus) for i, m in enumerate(scenario.microgrids)]
    wanted += [(f"generators[{i}]", g.bus) for i, g in enumerate(scenario.generators)]
    wanted += [("network.rating_floor_path_to", scenario.network.rating_floor_path_to or known[0])]
    faults += [f"{where}: feeder {scenario.network.feeder!r} has no bus {b!r}" for where, b in wanted if b not in known]
    if not faults:
        dso = build_dso(scenario)
        feeder = dso.feeder
        scale = np.array([[source.max_load_pu], [0.5 * source.max_load_pu]])
        query = DsoQuery(
            load_kw=scale * feeder.load_kw,
            load_kvar=scale * feeder.load_kvar,
            proposed_kw=np.zeros((2, len(rating))),
            lmp_per_kwh=np.full(2, source.max_lmp_per_kwh),
        )
        response = dso(query)
        for status, load in zip(response.status, scale[:, 0], strict=True):
            if status != DsoStatus.OPTIMAL:
                advice = f" ({strain(feeder, load)})" if status == DsoStatus.INFEASIBLE else ""
                faults.append(f"at {load:.2f} of nominal load without trades: {DsoStatus(status).sentence}{advice}")
        drawn_kw = np.maximum(query.load_kw[0], 0.0).sum()
        shed = response.shed_kw[0].sum() / drawn_kw if drawn_kw > 0 else 0.0
        if spec.penalty == "default" and shed > MOST_SHED:
            faults.append(
                f"at {source.max_load_pu:.2f} of nominal load and without trades {100 * shed:.2g} % must be shed to "
                "keep the limits: lower profiles.max_load_pu, widen the network's limits, or add a generator"
            )
    raise_faults(InvalidScenario, f"scenario {scenario.name!r}", faults)
