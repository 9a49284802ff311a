"""A record of one episode of the P2P market, interval by interval, and its tables for plots of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from peergrid.envs.common.policy import Policy
from peergrid.envs.common.rollout import rollout_in
from peergrid.envs.microgrid import Interval, diesel_cost, utility, wear
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.mechanisms import pairs_kw
from peergrid.envs.p2p_trading.types import Days, Outcome, Params
from peergrid.grid.errors import UnknownName
from peergrid.grid.prices import PriceParts

PARTS = ("energy", "loss", "reactive", "voltage", "congestion")  # of a nodal price
OF_MICROGRIDS = (
    *("contract_kw", "contract_price_per_kwh", "first_proposed_kw", "first_accepted_kw", "proposed_kw", "accepted_kw"),
    *("curtailed_kw", "is_curtailed", "pv_kw", "diesel_kw", "battery_kw", "consumption_kw"),
)
WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    "parquet": lambda table, path: table.to_parquet(path, index=False),
    "csv": lambda table, path: table.to_csv(path, index=False),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Money:
    """What makes up each microgrid's gain in an interval, in currency: the parts add up to the gain.

    Costs and payments are negative. `devices` is what devices beside the standard ones cost: wear, and comfort that is
    missed. `stored_energy` is what a day that terminates pays in its last interval for the energy left.
    """

    utility: Float[np.ndarray, "time agent"]
    generation: Float[np.ndarray, "time agent"]
    wear: Float[np.ndarray, "time agent"]
    devices: Float[np.ndarray, "time agent"]
    contract: Float[np.ndarray, "time agent"]
    network_charge: Float[np.ndarray, "time agent"]
    deviation: Float[np.ndarray, "time agent"]
    stored_energy: Float[np.ndarray, "time agent"]

    def total(self) -> Float[np.ndarray, "time agent"]:
        """Sum of the parts."""
        return sum(vars(self).values(), start=np.zeros_like(self.utility))


@dataclass(frozen=True, eq=False, kw_only=True)
class Episode:
    """Everything that happened in an episode; the names and signs are those of `Outcome` and `DsoResponse`.

    Attributes:
        params: What stayed fixed: feeder, microgrids, generators, rules.
        loading: Of the line into each bus, as a share of its rating; 0 at the substation.
        trade_kw: What each row's microgrid sold to each column's, pro rata.
        stored_kwh: At the boundaries between intervals, the first included.
    """

    params: Params
    lmp_per_kwh: Float[np.ndarray, " time"]
    substation_kw: Float[np.ndarray, " time"]
    generator_kw: Float[np.ndarray, "time generator"]
    losses_kw: Float[np.ndarray, " time"]
    welfare: Float[np.ndarray, " time"]
    dso_result: Float[np.ndarray, " time"]
    status: Int[np.ndarray, " time"]
    dso_calls: Int[np.ndarray, " time"]
    voltage_pu: Float[np.ndarray, "time bus"]
    flow_kw: Float[np.ndarray, "time bus"]
    flow_kvar: Float[np.ndarray, "time bus"]
    current_a: Float[np.ndarray, "time bus"]
    loading: Float[np.ndarray, "time bus"]
    load_kw: Float[np.ndarray, "time bus"]
    shed_kw: Float[np.ndarray, "time bus"]
    price_per_kwh: Float[np.ndarray, "time bus"]
    price_parts: PriceParts
    contract_kw: Float[np.ndarray, "time agent"]
    contract_price_per_kwh: Float[np.ndarray, "time agent"]
    trade_kw: Float[np.ndarray, "time agent agent"]
    first_proposed_kw: Float[np.ndarray, "time agent"]
    first_accepted_kw: Float[np.ndarray, "time agent"]
    proposed_kw: Float[np.ndarray, "time agent"]
    accepted_kw: Float[np.ndarray, "time agent"]
    is_curtailed: Bool[np.ndarray, "time agent"]
    pv_kw: Float[np.ndarray, "time agent"]
    diesel_kw: Float[np.ndarray, "time agent"]
    battery_kw: Float[np.ndarray, "time agent"]
    consumption_kw: Float[np.ndarray, "time agent"]
    stored_kwh: Float[np.ndarray, "boundary agent"]
    money: Money
    gain: Float[np.ndarray, "time agent"]
    reward: Float[np.ndarray, "time agent"]

    @property
    def intervals(self) -> int:
        return len(self.lmp_per_kwh)

    @property
    def n_agent(self) -> int:
        return len(self.params.agent_bus)

    @property
    def curtailed_kw(self) -> Float[np.ndarray, "time agent"]:
        """What the DSO cut from the last proposal, as a magnitude."""
        return np.abs(self.proposed_kw - self.accepted_kw)


def play_episode(env: P2PTrading, policy: Policy, day: int, after_each: Callable[[], None] | None = None) -> Episode:
    """Play held-out day `day` to its end and return all that happened.

    Args:
        after_each: Called after every interval, to take its picture.
    """
    outcomes: list[Outcome] = []
    for step in rollout_in(env, policy, day):
        outcomes.append(step.outcome)
        if after_each is not None:
            after_each()
    return record(outcomes, env.simulation.running()[1], env.simulation.params)


def record(outcomes: Sequence[Outcome], days: Days, params: Params) -> Episode:
    """The episode that these outcomes of the first row make up, in order."""
    over_time = partial(_over_time, outcomes)
    contract_kw = over_time(lambda o: o.contracts.quantity_kw)
    current_a = over_time(lambda o: o.response.current_a)
    loading = np.zeros_like(current_a)
    loading[:, 1:] = current_a[:, 1:] / params.feeder.i_max_a[1:]
    return Episode(
        params=params,
        lmp_per_kwh=over_time(lambda o: o.lmp_per_kwh),
        substation_kw=over_time(lambda o: o.response.substation_kw),
        generator_kw=over_time(lambda o: o.response.generator_kw),
        losses_kw=over_time(lambda o: o.response.losses_kw),
        welfare=over_time(lambda o: o.welfare),
        dso_result=over_time(lambda o: o.dso_result),
        status=over_time(lambda o: o.response.status),
        dso_calls=over_time(lambda o: o.dso_calls),
        voltage_pu=over_time(lambda o: o.response.voltage_pu),
        flow_kw=over_time(lambda o: o.response.flow_kw),
        flow_kvar=over_time(lambda o: o.response.flow_kvar),
        current_a=current_a,
        loading=loading,
        load_kw=days.load_kw[0, : len(outcomes)],
        shed_kw=over_time(lambda o: o.response.shed_kw),
        price_per_kwh=over_time(lambda o: o.response.price_per_kwh),
        price_parts=PriceParts(
            energy=over_time(lambda o: o.response.price_parts.energy),
            loss=over_time(lambda o: o.response.price_parts.loss),
            reactive=over_time(lambda o: o.response.price_parts.reactive),
            voltage=over_time(lambda o: o.response.price_parts.voltage),
            congestion=over_time(lambda o: o.response.price_parts.congestion),
        ),
        contract_kw=contract_kw,
        contract_price_per_kwh=over_time(lambda o: o.contracts.price_per_kwh),
        trade_kw=pairs_kw(contract_kw),
        first_proposed_kw=over_time(lambda o: o.first_proposed_kw),
        first_accepted_kw=over_time(lambda o: o.first_accepted_kw),
        proposed_kw=over_time(lambda o: o.proposed_kw),
        accepted_kw=over_time(lambda o: o.response.accepted_kw),
        is_curtailed=over_time(lambda o: o.is_curtailed),
        pv_kw=over_time(lambda o: o.dispatch.pv_kw),
        diesel_kw=over_time(lambda o: o.dispatch.diesel_kw),
        battery_kw=over_time(lambda o: o.dispatch.battery_kw),
        consumption_kw=over_time(lambda o: o.dispatch.load_kw),
        stored_kwh=np.concatenate([params.initial_kwh[None], over_time(lambda o: o.stored_kwh)]),
        money=_money(outcomes, days, params),
        gain=over_time(lambda o: o.gain),
        reward=over_time(lambda o: o.reward),
    )


def _over_time(outcomes: Sequence[Outcome], of: Callable[[Outcome], np.ndarray]) -> np.ndarray:
    return np.stack([of(outcome)[0] for outcome in outcomes])


def _money(outcomes: Sequence[Outcome], days: Days, params: Params) -> Money:
    grids, hours, n = params.microgrids, params.step_hours, len(outcomes)
    over_time = partial(_over_time, outcomes)
    battery_kw = over_time(lambda o: o.dispatch.battery_kw)
    brought = Interval(
        pv_kw=days.pv_kw[0, :n],
        demand_kw=days.demand_kw[0, :n],
        alpha_per_kw2h=days.alpha_per_kw2h[0, :n],
        battery_kw=battery_kw,
    )
    own_use = utility(grids, brought, over_time(lambda o: o.dispatch.load_kw)) * hours
    generation = -diesel_cost(grids, over_time(lambda o: o.dispatch.diesel_kw)) * hours
    worn = -wear(grids, battery_kw) * hours
    stored_energy = np.zeros_like(worn)
    if params.terminates:
        left_kwh = (outcomes[-1].stored_kwh[0] - params.initial_kwh) * grids.discharge_efficiency
        stored_energy[params.intervals - 1 :] = left_kwh * days.lmp_day_ahead_per_kwh[0, : params.intervals].mean()
    return Money(
        utility=own_use,
        generation=generation,
        wear=worn,
        devices=-over_time(lambda o: np.sum(o.fleet_costs, axis=0) if o.fleet_costs else np.zeros_like(o.gain)),
        contract=-over_time(lambda o: o.bills.contract),
        network_charge=-over_time(lambda o: o.bills.network_charge),
        deviation=-over_time(lambda o: o.bills.deviation),
        stored_energy=stored_energy,
    )


# --- as tables --------------------------------------------------------------------------------------------------------


def tables(episode: Episode) -> dict[str, pd.DataFrame]:
    """The episode as tables: a row for each interval, interval and bus, interval and microgrid, and for each trade."""
    params, feeder = episode.params, episode.params.feeder
    time = np.arange(episode.intervals)
    microgrid = np.arange(episode.n_agent)
    intervals = pd.DataFrame(
        {
            "interval": time,
            "hour": time * params.step_hours,
            "lmp_per_kwh": episode.lmp_per_kwh,
            "substation_kw": episode.substation_kw,
            "generation_kw": episode.generator_kw.sum(axis=1),
            "losses_kw": episode.losses_kw,
            "shed_kw": episode.shed_kw.sum(axis=1),
            "traded_kw": episode.trade_kw.sum(axis=(1, 2)),
            "welfare": episode.welfare,
            "dso_result": episode.dso_result,
            "dso_status": episode.status,
            "dso_calls": episode.dso_calls,
        }
    )
    of_buses = {
        **{name: getattr(episode, name) for name in ("voltage_pu", "load_kw", "shed_kw")},
        **{f"line_{name}": getattr(episode, name) for name in ("flow_kw", "flow_kvar", "current_a", "loading")},
        "price_per_kwh": episode.price_per_kwh,
        **{f"price_{part}_per_kwh": getattr(episode.price_parts, part) for part in PARTS},
    }
    of_microgrids = {
        "price_per_kwh": episode.price_per_kwh[:, params.agent_bus],
        **{name: getattr(episode, name) for name in OF_MICROGRIDS},
        "stored_kwh": episode.stored_kwh[1:],
        **{f"money_{part}": amount for part, amount in vars(episode.money).items()},
        "gain": episode.gain,
        "reward": episode.reward,
    }
    when, seller, buyer = np.nonzero(episode.trade_kw)
    return {
        "intervals": intervals,
        "buses": _long({"interval": time, "bus": np.array(feeder.bus)}, of_buses),
        "microgrids": _long({"interval": time, "microgrid": microgrid}, of_microgrids),
        "trades": pd.DataFrame(
            {"interval": when, "seller": seller, "buyer": buyer, "trade_kw": episode.trade_kw[when, seller, buyer]}
        ),
    }


def write_tables(episode: Episode, folder: Path, kind: str = "parquet") -> list[Path]:
    """Write `intervals`, `buses`, `microgrids` and `trades` to a folder; returns the files.

    Args:
        kind: "parquet" or "csv".

    Raises:
        UnknownName: Another kind.
    """
    if kind not in WRITERS:
        raise UnknownName("kind of table", kind, WRITERS)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in tables(episode).items():
        written.append(folder / f"{name}.{kind}")
        WRITERS[kind](content, written[-1])
    return written


def _long(keys: dict[str, np.ndarray], columns: dict[str, np.ndarray]) -> pd.DataFrame:
    """A row for each pair of keys, in the order of the columns' entries."""
    (first, outer), (second, inner) = keys.items()
    places = {first: np.repeat(outer, len(inner)), second: np.tile(inner, len(outer))}
    return pd.DataFrame(places | {name: values.ravel() for name, values in columns.items()})
