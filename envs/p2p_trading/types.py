"""What is known: what stays fixed in an episode, what is drawn for it, what one step hands to the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from peergrid.envs.devices.device import Course, Fleet
from peergrid.envs.microgrid import Dispatch, Interval, Microgrids
from peergrid.envs.p2p_trading.mechanisms import Contracts, Mechanism
from peergrid.envs.p2p_trading.scenario import MarketSpec
from peergrid.envs.p2p_trading.settlement import Bills
from peergrid.grid.dso import Dso, DsoResponse, Generators
from peergrid.grid.feeder import Feeder

N_ACTIONS = 4  # of a microgrid without further devices
Powers = tuple[Float[np.ndarray, "batch agent"], ...]
"""One array for each kind of further device."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Public:
    """What everybody may know of a market: the network, its operator with its rules, who is connected where, how large.

    This is all of the market's parameters that a predictor is handed: nobody's costs, devices or storage.
    """

    feeder: Feeder
    dso: Dso
    agent_bus: Int[np.ndarray, " agent"]
    rating_kw: Float[np.ndarray, " agent"]
    step_hours: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Forecasting:
    """How to reckon with deviations from the published forecasts.

    The persistences are the shares of a deviation that are expected to be left an interval later; no load is above
    `max_load_pu` of nominal, no price above `max_lmp_per_kwh`.
    """

    load_persistence: float
    lmp_persistence: float
    max_load_pu: float
    max_lmp_per_kwh: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Params:
    """What stays fixed: the network, the microgrids, the rules of the market, and who answers proposals.

    `fleets` are the microgrids' devices beside the standard ones: each kind adds a number to every action.
    """

    feeder: Feeder
    agent_bus: Int[np.ndarray, " agent"]
    microgrids: Microgrids
    generators: Generators
    voll_per_kwh: float
    c_ls_per_kw2h: float
    market: MarketSpec
    mechanism: Mechanism
    dso: Dso
    intervals: int
    step_hours: float
    lookahead: int
    predicted_intervals: int
    initial_kwh: Float[np.ndarray, " agent"]
    cooperation: float
    over_no_trade: bool
    terminates: bool
    daily_cycle: bool
    forecasting: Forecasting
    fleets: tuple[Fleet, ...] = ()

    @property
    def n_actions(self) -> int:
        """How many numbers an action has."""
        return N_ACTIONS + len(self.fleets)

    @property
    def public(self) -> Public:
        """The part of it that everybody may know."""
        return Public(
            feeder=self.feeder,
            dso=self.dso,
            agent_bus=self.agent_bus,
            rating_kw=self.microgrids.rating_kw,
            step_hours=self.step_hours,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Days:
    """What is drawn for an episode: `time` runs over its intervals and the lookahead beyond.

    `least_kwh` and `most_kwh` are the window for the stored energy when an interval begins. `no_trade_gain` and
    `no_trade_welfare`, in currency, are what each interval would give if nobody traded all day; nought where rewards
    are not counted from there. `courses` and `forecast_courses` are what the day brings to each fleet, and what was
    forecast of it.
    """

    load_kw: Float[np.ndarray, "batch time bus"]
    load_kvar: Float[np.ndarray, "batch time bus"]
    load_forecast_kw: Float[np.ndarray, "batch time bus"]
    load_forecast_kvar: Float[np.ndarray, "batch time bus"]
    pv_kw: Float[np.ndarray, "batch time agent"]
    pv_forecast_kw: Float[np.ndarray, "batch time agent"]
    demand_kw: Float[np.ndarray, "batch time agent"]
    alpha_per_kw2h: Float[np.ndarray, "batch time agent"]
    lmp_per_kwh: Float[np.ndarray, "batch time"]
    lmp_day_ahead_per_kwh: Float[np.ndarray, "batch time"]
    least_kwh: Float[np.ndarray, "batch boundary agent"]
    most_kwh: Float[np.ndarray, "batch boundary agent"]
    no_trade_gain: Float[np.ndarray, "batch interval agent"]
    no_trade_welfare: Float[np.ndarray, "batch interval"]
    courses: tuple[Course, ...] = ()
    forecast_courses: tuple[Course, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class State:
    """What one step hands to the next: with the params and the days, it is everything.

    `interval` is the one that begins, and so the number of those that are over.

    What was published last is the outcome of the interval before: before the first, the LMP and no trade. Arrays are
    never changed in place: make another state.
    """

    interval: Int[np.ndarray, " batch"]
    stored_kwh: Float[np.ndarray, "batch agent"]
    last_lmp_per_kwh: Float[np.ndarray, " batch"]
    last_price_per_kwh: Float[np.ndarray, "batch agent"]
    last_te_price_per_kwh: Float[np.ndarray, "batch agent"]
    last_proposed_kw: Float[np.ndarray, "batch agent"]
    last_accepted_kw: Float[np.ndarray, "batch agent"]
    last_voltage_pu: Float[np.ndarray, "batch bus"]
    levels: Powers = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Now:
    """What the current interval brings to each row of the batch.

    `idle_least_kw` and `idle_most_kw` are the least and the most that can be exported with the battery idle;
    `published_per_kwh` is each own nodal price in the interval before, between 0 and the price cap.

    Of each fleet, `fleet_kw` is what it does, if nobody decides otherwise: what batteries may do, and what can be
    exported, goes with it. It may do anything from `fleet_least_kw` to `fleet_most_kw`.
    """

    load_kw: Float[np.ndarray, "batch bus"]
    load_kvar: Float[np.ndarray, "batch bus"]
    lmp_per_kwh: Float[np.ndarray, " batch"]
    battery_least_kw: Float[np.ndarray, "batch agent"]
    battery_most_kw: Float[np.ndarray, "batch agent"]
    idle_least_kw: Float[np.ndarray, "batch agent"]
    idle_most_kw: Float[np.ndarray, "batch agent"]
    least_kwh: Float[np.ndarray, "batch agent"]
    most_kwh: Float[np.ndarray, "batch agent"]
    published_per_kwh: Float[np.ndarray, "batch agent"]
    interval: Interval
    stored_kwh: Float[np.ndarray, "batch agent"]
    courses: tuple[Course, ...] = ()
    fleet_kw: Powers = ()
    fleet_least_kw: Powers = ()
    fleet_most_kw: Powers = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Decisions:
    """What the numbers of an action mean in this interval; `battery_kw` positive discharges, `fleet_kw` likewise.

    Fleets of which nothing is said do what they do if nobody decides.
    """

    battery_kw: Float[np.ndarray, "batch agent"]
    quantity_kw: Float[np.ndarray, "batch agent"]
    limit_price_per_kwh: Float[np.ndarray, "batch agent"]
    dispatch_price_per_kwh: Float[np.ndarray, "batch agent"]
    fleet_kw: Powers = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome:
    """What happened in an interval, in physical and money units; rewards and metrics read it.

    Prices are at the microgrids' own buses. Money is currency in this interval. `first_proposed_kw` and
    `first_accepted_kw` are those of the first submission, before any correction round. `common_reward` is what somebody
    is paid who acts for all: the welfare, less that without trade where rewards are counted from there. `levels` and
    `fleet_costs` are those of each fleet at the interval's end and in it.
    """

    decisions: Decisions
    contracts: Contracts
    first_proposed_kw: Float[np.ndarray, "batch agent"]
    first_accepted_kw: Float[np.ndarray, "batch agent"]
    proposed_kw: Float[np.ndarray, "batch agent"]
    is_curtailed: Bool[np.ndarray, "batch agent"]
    response: DsoResponse
    dispatch: Dispatch
    stored_kwh: Float[np.ndarray, "batch agent"]
    bills: Bills
    lmp_per_kwh: Float[np.ndarray, " batch"]
    te_price_per_kwh: Float[np.ndarray, "batch agent"]
    gain: Float[np.ndarray, "batch agent"]
    dso_result: Float[np.ndarray, " batch"]
    welfare: Float[np.ndarray, " batch"]
    reward: Float[np.ndarray, "batch agent"]
    common_reward: Float[np.ndarray, " batch"]
    dso_calls: Int[np.ndarray, " batch"]
    clipped_kw: Float[np.ndarray, "batch agent"]
    levels: Powers = ()
    fleet_costs: Powers = ()
