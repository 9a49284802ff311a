"""A transactive scenario: every number of a study, from `conf/transactive/<name>.yaml` or from plain Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
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
from peergrid.envs.common.network import DsoSpec, NetworkSpec, build_feeder, build_penalty, faulty_dso
from peergrid.envs.common.profiles import ProfileSource, SyntheticProfiles, TableProfiles
from peergrid.envs.transactive.resources import Resources
from peergrid.envs.transactive.signal import SignalBase
from peergrid.grid.catalogue import load_feeder
from peergrid.grid.dso import DsoQuery, DsoStatus, OpfDso
from peergrid.grid.errors import InvalidScenario, raise_faults
from peergrid.grid.parts import part_name

GROUP = "transactive"
# Quadratic costs are given for an agent of this peak; those of a larger one are smaller in proportion.
TYPICAL_PEAK_KW = 100.0


@dataclass(frozen=True, kw_only=True)
class AgentSpec:
    """One agent: its resources as shares of its peak, which is `load_share` of the nominal load of its bus.

    Several agents may stand at one bus, each with its share of the load there; what they leave is nobody's. A share of
    0 leaves a resource out. Marginal costs are those at no output and at full output.
    """

    bus: str
    load_share: float = 1.0
    shiftable_share: float = 0.15
    shift_per_kw2h: float = 0.003
    generator_share: float = 0.25
    generator_first_per_kwh: float = 0.09
    generator_last_per_kwh: float = 0.13
    storage_share: float = 0.10
    storage_hours: float = 4.0
    charge_efficiency: float = 0.95
    discharge_efficiency: float = 0.95
    wear_per_kwh: float = 0.01
    storage_per_kw2h: float = 0.003
    pv_share: float = 0.4


@dataclass(frozen=True, kw_only=True)
class LoopSpec:
    """How the DSO moves the root signal and when it closes an hour.

    `rule` is "halving", "fixed" (the paper's), "proportional", "none" or "module:attribute". The signal starts each
    hour at the LMP of `signal_base`, "day_ahead" or "real_time". It moves by `step_share` of that, by the proportional
    rule by `gain` of it times the gap as a share of the schedule, and stays within `bound_share` of it. The hour closes
    when the gap is within `threshold_share` of the schedule, when the signal stands still, or after `max_iterations`.
    """

    rule: str = part_name("halving")
    signal_base: str = "day_ahead"
    step_share: float = 0.01
    gain: float = 0.8
    bound_share: float = 0.20
    threshold_share: float = 0.01
    max_iterations: int = 30


@dataclass(frozen=True, kw_only=True)
class TransactiveScenario:
    """Everything that a study of the transactive loop fixes. Hashable, so that what is computed for it can be cached.

    Storage starts every day at `initial_charge` of its energy and ends there; shifted load has returned by then. What
    is missing or left over against the schedule is settled at the real-time LMP raised or lowered by
    `imbalance_spread`.
    """

    name: str
    network: NetworkSpec
    agents: tuple[AgentSpec, ...]
    loop: LoopSpec = field(default_factory=LoopSpec)
    dso: DsoSpec = field(default_factory=DsoSpec)
    imbalance_spread: float = 0.20
    profiles: SyntheticProfiles = field(default_factory=SyntheticProfiles)
    profiles_file: str = ""
    """The user's CSV or Parquet, instead of `profiles`."""
    intervals: int = 24
    step_hours: float = 1.0
    lookahead: int = 8
    """How many intervals ahead agents see day-ahead signals and forecasts."""
    initial_charge: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        _check_numbers(self)


def scenario_names() -> tuple[str, ...]:
    """Names of the shipped transactive scenarios."""
    return shipped_names(GROUP)


def load_scenario(scenario: str | Path | TransactiveScenario, **changes: Any) -> TransactiveScenario:
    """The scenario of that name, of a YAML file, or the one given, with some top-level fields changed.

    Raises:
        UnknownName: Neither a shipped scenario nor a file.
        InvalidScenario: Unknown or missing keys, wrong types, contradictions; every fault is named.
    """
    if not isinstance(scenario, TransactiveScenario):
        scenario = scenario_from_dict(read_file(GROUP, str(scenario)))
    return replace(scenario, **changes) if changes else scenario


def scenario_from_dict(values: Mapping[str, Any]) -> TransactiveScenario:
    """A scenario from nested mappings and lists, as YAML and Hydra give them."""
    return from_mapping(TransactiveScenario, values)


def agent_names(buses: Sequence[str]) -> tuple[str, ...]:
    """What tells agents apart: their buses, with a number where several stand at one: "701", "713_1", "713_2"."""
    return tuple(f"{bus}_{1 + buses[:i].count(bus)}" if buses.count(bus) > 1 else bus for i, bus in enumerate(buses))


def _check_numbers(scenario: TransactiveScenario) -> None:
    faults: list[str] = []
    if not scenario.agents:
        faults.append("there is no agent")
    buses = [a.bus for a in scenario.agents]
    for bus in dict.fromkeys(buses):
        share = sum(a.load_share for a in scenario.agents if a.bus == bus)
        if share > 1 + 1e-9:
            faults.append(f"agents at bus {bus} have {share:g} of its load: give each a load_share, together at most 1")
    names = agent_names(buses)
    if len(set(names)) < len(names):
        faults.append(f"two agents go by one name, as a bus is called like another's agent: {list(names)}")
    for where, part in (("network", scenario.network), ("dso", scenario.dso), ("loop", scenario.loop)):
        faults += faulty_numbers(where, part)
    for i, agent in enumerate(scenario.agents):
        where = f"agents[{i}] at bus {agent.bus}"
        faults += faulty_numbers(where, agent)
        faults += [f"{where}: {what}" for what in _not_strictly_convex(agent)]
        if agent.load_share == 0:
            faults.append(f"{where}: load_share is 0, and all resources are shares of that load")
        if agent.shiftable_share > 1:
            faults.append(f"{where}: shiftable_share is above 1")
        if not (0 < agent.charge_efficiency <= 1 and 0 < agent.discharge_efficiency <= 1):
            faults.append(f"{where}: efficiencies must lie in (0, 1]")
    faults += faulty_fields(
        scenario,
        positive=("step_hours", "imbalance_spread"),
        least={"intervals": 1, "lookahead": 1, "seed": 0},
        most={"intervals": MOST_INTERVALS, "lookahead": MOST_INTERVALS},
        shares=("initial_charge",),
    )
    if scenario.loop.bound_share >= 1:
        faults.append("loop.bound_share must be below 1, so that signals stay positive")
    if scenario.loop.signal_base not in list(SignalBase):
        known = " or ".join(repr(str(b)) for b in SignalBase)
        faults.append(f"loop.signal_base is {scenario.loop.signal_base!r}; it is {known}")
    if scenario.loop.gain == 0:
        faults.append("loop.gain is 0: the proportional rule would never move the signal")
    if scenario.loop.max_iterations < 1:
        faults.append("loop.max_iterations is below 1")
    faults += faulty_dso(scenario.dso)
    if scenario.dso.penalty == "paper":
        faults.append("dso.penalty must be 'default': under the paper's, loads are shed where nothing binds")
    raise_faults(InvalidScenario, f"scenario {scenario.name!r}", faults)


def _not_strictly_convex(agent: AgentSpec) -> list[str]:
    """Linear costs would make agents jump from bound to bound, and the loop cycle."""
    faults = []
    for share, coefficient in (("shiftable_share", "shift_per_kw2h"), ("storage_share", "storage_per_kw2h")):
        if getattr(agent, share) > 0 and getattr(agent, coefficient) == 0:
            faults.append(f"{coefficient} must be positive, or the agent's answer jumps and the loop cycles")
    if agent.generator_share > 0 and agent.generator_last_per_kwh <= agent.generator_first_per_kwh:
        faults.append(
            "generator_last_per_kwh must be above generator_first_per_kwh, or the agent's answer jumps and the loop "
            "cycles"
        )
    return faults


def build_profiles(scenario: TransactiveScenario) -> ProfileSource:
    """The source of the scenario's days."""
    return TableProfiles(scenario.profiles_file) if scenario.profiles_file else scenario.profiles


def build_resources(scenario: TransactiveScenario) -> Resources:
    """The agents' resources as arrays."""
    feeder = load_feeder(scenario.network.feeder)
    spec = {
        f.name: np.array([getattr(a, f.name) for a in scenario.agents]) for f in fields(AgentSpec) if f.name != "bus"
    }
    peak = feeder.load_kw[[feeder.index(a.bus) for a in scenario.agents]] * spec["load_share"]
    smaller = TYPICAL_PEAK_KW / np.maximum(peak, 1e-9)
    generator, storage = spec["generator_share"] * peak, spec["storage_share"] * peak
    rise = spec["generator_last_per_kwh"] - spec["generator_first_per_kwh"]
    return Resources(
        peak_kw=peak,
        shiftable_share=spec["shiftable_share"],
        shift_per_kw2h=spec["shift_per_kw2h"] * smaller,
        generator_max_kw=generator,
        generator_a_per_kw2h=np.divide(rise, 2.0 * generator, out=np.zeros_like(peak), where=generator > 0),
        generator_b_per_kwh=spec["generator_first_per_kwh"],
        storage_max_kw=storage,
        storage_max_kwh=storage * spec["storage_hours"],
        charge_efficiency=spec["charge_efficiency"],
        discharge_efficiency=spec["discharge_efficiency"],
        wear_per_kwh=spec["wear_per_kwh"],
        storage_per_kw2h=spec["storage_per_kw2h"] * smaller,
        pv_peak_kw=spec["pv_share"] * peak,
    )


def build_dso(scenario: TransactiveScenario) -> OpfDso:
    """The scenario's DSO: an optimal power flow with a flexible injection of every agent at its bus."""
    feeder, spec = build_feeder(scenario.network), scenario.dso
    return OpfDso(
        feeder,
        [feeder.index(a.bus) for a in scenario.agents],
        penalty=build_penalty(spec),
        upper_voltage=spec.upper_voltage,
        solver=spec.solver,
    )


def check_scenario(scenario: TransactiveScenario) -> None:
    """Raise InvalidScenario if an agent's bus is unknown or has no load, or the largest load can't be served."""
    known = load_feeder(scenario.network.feeder)
    faults = []
    for i, agent in enumerate(scenario.agents):
        if agent.bus not in known.bus:
            faults.append(f"agents[{i}]: feeder {scenario.network.feeder!r} has no bus {agent.bus!r}")
        elif known.load_kw[known.index(agent.bus)] <= 0:
            faults.append(f"agents[{i}]: bus {agent.bus} has no load, of which the agent's resources are shares")
    if not faults:
        dso, most = build_dso(scenario), build_profiles(scenario).max_load_pu
        nobody = np.zeros(len(scenario.agents))
        load, load_q = most * dso.feeder.load_kw, most * dso.feeder.load_kvar
        response = dso(DsoQuery(load_kw=load, load_kvar=load_q, proposed_kw=nobody, lmp_per_kwh=0.1))
        shed_kw: Float[np.ndarray, ""] = response.shed_kw.sum()
        if response.status != DsoStatus.OPTIMAL:
            faults.append(f"at {most:.2f} of nominal load: {DsoStatus(int(response.status)).sentence}")
        elif shed_kw > 1e-3 * load.sum():
            faults.append(
                f"at {most:.2f} of nominal load {100 * shed_kw / load.sum():.2g} % must be shed to keep the limits: "
                "lower profiles.max_load_pu, or widen the network's limits"
            )
    raise_faults(InvalidScenario, f"scenario {scenario.name!r}", faults)
