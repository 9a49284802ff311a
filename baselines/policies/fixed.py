"""Fixed policies: what learning agents are measured against.

Each plays any environment that `peergrid.envs.common.policy.Policy` allows. Random needs action spaces alone; the
others read the P2P market's own description of its observations, and each microgrid's private data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32
from pettingzoo import ParallelEnv

from peergrid.baselines.policies.plans import DayPlan, Optimum, Schedule
from peergrid.envs.common.entries import unbent
from peergrid.envs.common.policy import Observations
from peergrid.envs.common.rows import rows_of
from peergrid.envs.microgrid import battery_limits, export_at, export_range, marginal_value, store
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.scenario import Scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.transition import encode, no_trade, with_fleets
from peergrid.envs.p2p_trading.types import Decisions, Now, Powers

FORGETTING, MARGIN_RATE = 0.5, 0.3  # of adaptive bidders


class RandomPolicy:
    """Uniform actions; every episode has its own, and the same seed gives the same sequence of episodes."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._env: ParallelEnv[Any, Any, Any] | None = None
        self._drawn = np.zeros((0, 0, 0, 0), dtype=np.float32)  # [row, interval, agent, number]

    def begin(self, env: ParallelEnv[Any, Any, Any]) -> None:
        self._env = env

    def act(self, observations: Observations) -> dict[str, np.ndarray]:
        assert self._env is not None, "begin() comes first"
        spaces = {agent: self._env.action_space(agent) for agent in observations}
        return {agent: self._rng.uniform(s.low, s.high).astype(s.dtype) for agent, s in spaces.items()}

    def begin_rows(self, simulation: Simulation, rows: Bool[np.ndarray, " batch"]) -> None:
        shape = (simulation.params.intervals, simulation.n_agent, simulation.params.n_actions)
        if self._drawn.shape != (len(rows), *shape):
            self._drawn = np.zeros((len(rows), *shape), dtype=np.float32)
        for i, rng in zip(np.flatnonzero(rows), simulation.spawn(rows), strict=True):
            own = np.random.default_rng([self._seed, int(rng.integers(2**63))])
            self._drawn[i] = own.uniform(-1.0, 1.0, shape)

    def act_rows(
        self, simulation: Simulation, seen: Float32[np.ndarray, "batch agent entry"]
    ) -> Float[np.ndarray, "batch agent number"]:
        step = simulation.running()[0].interval
        return self._drawn[np.arange(len(step)), step]


class MarketPolicy:
    """What the policies of the P2P market share: from decisions in physical units to actions.

    Abstract: `decide` is what differs, and `begin_rows` what is computed when episodes begin.
    """

    market: P2PTrading

    def begin(self, env: ParallelEnv[Any, Any, Any]) -> None:
        market = env.unwrapped
        if not isinstance(market, P2PTrading):
            raise TypeError(f"{type(self).__name__} plays p2p_trading_v0 only, not {type(market).__name__}")
        self.market = market
        self.begin_rows(market.simulation, np.ones(1, dtype=bool))

    def act(self, observations: Observations) -> dict[str, np.ndarray]:
        agents = self.market.agents
        seen = np.stack([observations[a] for a in agents])
        return dict(zip(agents, self.act_rows(self.market.simulation, seen[None])[0], strict=True))

    def begin_rows(self, simulation: Simulation, rows: Bool[np.ndarray, " batch"]) -> None:
        """What is computed once an episode; nothing by default."""

    def act_rows(
        self, simulation: Simulation, seen: Float32[np.ndarray, "batch agent entry"]
    ) -> Float[np.ndarray, "batch agent number"]:
        now = simulation.now()
        return encode(self.decide(simulation, now, seen), now, simulation.params).astype(np.float32)

    def decide(self, simulation: Simulation, now: Now, seen: Float[np.ndarray, "batch agent entry"]) -> Decisions:
        """The decisions of all microgrids in the interval that begins."""
        raise NotImplementedError


class NoTrade(MarketPolicy):
    """Nobody trades: exchange with the grid at the last nodal price, batteries idle. The zero of the score."""

    def decide(self, simulation: Simulation, now: Now, seen: Float[np.ndarray, "batch agent entry"]) -> Decisions:
        state, _ = simulation.running()
        return no_trade(state, now)


class Truthful(MarketPolicy):
    """Offers what pays at the nodal price that it expects, within what it expects to be accepted.

    The expected price and acceptance are those of the prediction in its observation: with predictor "none" the price
    published last and no curtailment. At nodal network charges everybody's honest limit price is the LMP. Batteries
    charge in hours cheaper than the mean of the day-ahead prices in sight, and discharge in dearer ones, if losses
    and wear pay.
    """

    def decide(self, simulation: Simulation, now: Now, seen: Float[np.ndarray, "batch agent entry"]) -> Decisions:
        params, names = simulation.params, [e.name for e in simulation.entries]

        def predicted(option: str, what: str) -> Float[np.ndarray, "batch agent"]:
            return seen[..., names.index(f"{option}: predicted {what}")].astype(np.float64)

        battery_kw = _arbitrage(simulation, now)
        interval = replace(now.interval, battery_kw=battery_kw)
        price = np.clip(unbent(predicted("last proposal", "nodal price")), 0.0, params.market.price_cap_per_kwh)
        rating = params.microgrids.rating_kw
        importing, exporting = (predicted(option, "acceptance") * rating for option in ("full import", "full export"))
        quantity_kw = np.clip(export_at(params.microgrids, interval, price, "left"), importing, exporting)
        return Decisions(
            battery_kw=battery_kw,
            quantity_kw=quantity_kw,
            limit_price_per_kwh=np.broadcast_to(now.lmp_per_kwh[:, None], quantity_kw.shape),
            dispatch_price_per_kwh=price,
        )


class Planned(MarketPolicy):
    """The cooperative day plan: batteries by a convex program over forecasts, exports by the sun that really shines.

    The community trades internally without cost and with the grid at LMP +- half-spread; the network is not looked at.
    """

    def __init__(self) -> None:
        self._program: DayPlan | None = None
        self._of: Scenario | None = None
        self.plans: dict[int, Schedule] = {}

    def begin_rows(self, simulation: Simulation, rows: Bool[np.ndarray, " batch"]) -> None:
        if self._program is None or self._of != simulation.scenario:
            self._program, self._of = DayPlan.of(simulation.scenario), simulation.scenario
        for i in np.flatnonzero(rows).tolist():
            self.plans[i] = self._program.solve(simulation.row(i))

    def decide(self, simulation: Simulation, now: Now, seen: Float[np.ndarray, "batch agent entry"]) -> Decisions:
        now = with_fleets(now, _scheduled_fleets(self.plans, simulation), simulation.params)
        battery_kw = within_limits(_scheduled(self.plans, "battery_kw", simulation), now)
        export_kw = community_export(simulation, now, battery_kw)
        lmp = np.broadcast_to(now.lmp_per_kwh[:, None], export_kw.shape)
        return Decisions(
            battery_kw=battery_kw,
            quantity_kw=export_kw,
            limit_price_per_kwh=lmp,
            dispatch_price_per_kwh=lmp,
            fleet_kw=now.fleet_kw,
        )


class Receding(MarketPolicy):
    """Model-predictive control: the rest of the day planned anew in every interval, of which the first is done.

    A plan starts from what is stored, with the sun and the price of the interval and the forecasts for later ones. The
    network is not looked at. Together, microgrids plan and offer as one, as in `Planned`. Apart, each plans its own
    battery against the grid, and exports what pays at the nodal price published last.
    """

    def __init__(self, together: bool = True) -> None:
        self.together = together
        self._program: DayPlan | None = None
        self._of: Scenario | None = None
        self._stored: dict[int, list[np.ndarray]] = {}

    def begin_rows(self, simulation: Simulation, rows: Bool[np.ndarray, " batch"]) -> None:
        if self._program is None or self._of != simulation.scenario:
            self._program, self._of = DayPlan.of(simulation.scenario, self.together), simulation.scenario
        self._stored |= {i: [] for i in np.flatnonzero(rows).tolist()}

    def decide(self, simulation: Simulation, now: Now, seen: Float[np.ndarray, "batch agent entry"]) -> Decisions:
        assert self._program is not None, "begin_rows() comes first"
        state, _ = simulation.running()
        battery_kw = np.zeros_like(state.stored_kwh)
        fleet_kw = tuple(np.zeros_like(power_kw) for power_kw in now.fleet_kw)
        for i, t in enumerate(state.interval.tolist()):
            if t < simulation.params.intervals:
                del self._stored[i][t:]  # if this interval was asked about before
                self._stored[i].append(state.stored_kwh[i])
                plan = self._program.solve(simulation.row(i), np.stack(self._stored[i]))
                battery_kw[i] = plan.battery_kw[t]
                for wished_kw, planned_kw in zip(fleet_kw, plan.fleet_kw, strict=True):
                    wished_kw[i] = planned_kw[t]
        now = with_fleets(now, fleet_kw, simulation.params)
        battery_kw = within_limits(battery_kw, now)
        lmp = np.broadcast_to(now.lmp_per_kwh[:, None], battery_kw.shape)
        if self.together:
            export_kw, price = community_export(simulation, now, battery_kw), lmp
        else:
            price = now.published_per_kwh
            interval = replace(now.interval, battery_kw=battery_kw)
            export_kw = export_at(simulation.params.microgrids, interval, price, "left")
        return Decisions(
            battery_kw=battery_kw,
            quantity_kw=export_kw,
            limit_price_per_kwh=lmp,
            dispatch_price_per_kwh=price,
            fleet_kw=now.fleet_kw,
        )


class Selfish(MarketPolicy):
    """Model-predictive control by each microgrid for itself: `Receding`, apart."""

    def __init__(self) -> None:
        self.planned = Receding(together=False)

    def begin_rows(self, simulation: Simulation, rows: Bool[np.ndarray, " batch"]) -> None:
        self.planned.begin_rows(simulation, rows)

    def decide(self, simulation: Simulation, now: Now, seen: Float[np.ndarray, "batch agent entry"]) -> Decisions:
        return self.planned.decide(simulation, now, seen)


class ZeroIntelligence(MarketPolicy):
    """Random offers that never lose: a random limit price, and a random part of what pays at it. Batteries idle.

    Source: the constrained zero-intelligence traders of Gode and Sunder, Journal of Political Economy 101(1), 1993.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._drawn = np.zeros((0, 0, 0, 2))  # [row, interval, agent, price and share]

    def begin_rows(self, simulation: Simulation, rows: Bool[np.ndarray, " batch"]) -> None:
        shape = (simulation.params.intervals, simulation.n_agent, 2)
        if self._drawn.shape != (len(rows), *shape):
            self._drawn = np.zeros((len(rows), *shape))
        for i, rng in zip(np.flatnonzero(rows), simulation.spawn(rows), strict=True):
            own = np.random.default_rng([self._seed, int(rng.integers(2**63))])
            self._drawn[i] = own.uniform(0.0, 1.0, shape)

    def decide(self, simulation: Simulation, now: Now, seen: Float[np.ndarray, "batch agent entry"]) -> Decisions:
        step = np.minimum(simulation.running()[0].interval, simulation.params.intervals - 1)
        where, share = np.moveaxis(self._drawn[np.arange(len(step)), step], -1, 0)
        spread = simulation.params.market.half_spread_per_kwh
        limit = now.lmp_per_kwh[:, None] + spread * (2.0 * where - 1.0)
        pays_kw = export_at(simulation.params.microgrids, now.interval, np.maximum(limit, 0.0), "left")
        return Decisions(
            battery_kw=np.zeros_like(limit),
            quantity_kw=share * pays_kw,
            limit_price_per_kwh=limit,
            dispatch_price_per_kwh=now.published_per_kwh,
        )


class Adaptive(MarketPolicy):
    """Adaptive bidding: what each microgrid asks or bids follows the market, and what it expects the published prices.

    It offers what pays at the nodal price that it expects: the LMP and a mean of how far its nodal price was from it,
    which forgets by half in every interval. Its limit price is its honest one, the LMP, and a part of the half-spread
    on top: a margin, which it raises when the market pays more, and lowers when it is left unserved. Margins are drawn
    anew for every episode, and learned in it. Batteries are used as in `Truthful`.

    Source: the zero-intelligence-plus traders of Cliff, HP Laboratories HPL-97-91, 1997, one call a step.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._known = np.zeros(0, dtype=int)  # the step up to which each row has learned
        self._lmp_per_kwh = np.zeros(0)
        self._offset_per_kwh = np.zeros((0, 0))
        self._margin = np.zeros((0, 0))
        self._offered_kw = np.zeros((0, 0))

    def begin_rows(self, simulation: Simulation, rows: Bool[np.ndarray, " batch"]) -> None:
        shape = (len(rows), simulation.n_agent)
        if self._margin.shape != shape:
            self._known, self._lmp_per_kwh = np.zeros(len(rows), dtype=int), np.zeros(len(rows))
            self._offset_per_kwh, self._margin, self._offered_kw = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self._known[rows], self._offset_per_kwh[rows] = 0, 0.0
        for i, rng in zip(np.flatnonzero(rows), simulation.spawn(rows), strict=True):
            own = np.random.default_rng([self._seed, int(rng.integers(2**63))])
            self._margin[i] = own.uniform(0.0, 1.0, simulation.n_agent)

    def decide(self, simulation: Simulation, now: Now, seen: Float[np.ndarray, "batch agent entry"]) -> Decisions:
        params, step = simulation.params, simulation.running()[0].interval
        spread = params.market.half_spread_per_kwh
        self._learn(simulation, step > self._known, spread)
        self._known, self._lmp_per_kwh = step.copy(), now.lmp_per_kwh.copy()
        price = np.clip(now.lmp_per_kwh[:, None] + self._offset_per_kwh, 0.0, params.market.price_cap_per_kwh)
        battery_kw = _arbitrage(simulation, now)
        offered_kw = export_at(params.microgrids, replace(now.interval, battery_kw=battery_kw), price, "left")
        self._offered_kw = offered_kw
        return Decisions(
            battery_kw=battery_kw,
            quantity_kw=offered_kw,
            limit_price_per_kwh=now.lmp_per_kwh[:, None] + spread * self._margin * np.sign(offered_kw),
            dispatch_price_per_kwh=price,
        )

    def _learn(self, simulation: Simulation, rows: Bool[np.ndarray, " batch"], spread: float) -> None:
        """Take note of what the last interval showed, in the marked rows."""
        if simulation.outcome is None or not rows.any():
            return
        outcome = rows_of(simulation.outcome, rows[simulation.played])
        lmp, published = self._lmp_per_kwh[rows, None], simulation.running()[0].last_price_per_kwh[rows]
        self._offset_per_kwh[rows] += FORGETTING * (published - lmp - self._offset_per_kwh[rows])

        margin, offered_kw, sold_kw = self._margin[rows], self._offered_kw[rows], outcome.contracts.quantity_kw
        side, is_market = np.sign(offered_kw), (sold_kw != 0).any(axis=1, keepdims=True)
        price = outcome.contracts.price_per_kwh.max(axis=1, keepdims=True)
        # What the market paid above the LMP, as a margin: of sellers upwards, of buyers downwards.
        paid = np.where(is_market, side * (price - lmp) / spread if spread else 0.0 * margin, -1.0)
        is_unserved = np.abs(offered_kw) > np.abs(sold_kw) * (1 + 1e-6)
        moves = (paid > margin) | is_unserved
        self._margin[rows] = np.clip(margin + np.where(moves, MARGIN_RATE * (paid - margin), 0.0), -1.0, 1.0)


class Optimal(MarketPolicy):
    """Plays the perfect-foresight optimum of everybody's resources with the network: it knows the day to come.

    A bound, not a competitor. Where a generator's cost is linear, an export between two corners of its curve has no
    dispatch price that leads to it, and the schedule is met only nearly. In a state that it would not have come to it
    plans nothing anew: batteries go back to the energies of its plan, and the plan's dispatch prices hold.
    """

    def __init__(self) -> None:
        self._program: Optimum | None = None
        self._of: Scenario | None = None
        self.plans: dict[int, Schedule] = {}
        self._stored_kwh: dict[int, list[np.ndarray]] = {}  # of the plans, boundary by boundary

    def begin_rows(self, simulation: Simulation, rows: Bool[np.ndarray, " batch"]) -> None:
        if self._program is None or self._of != simulation.scenario:
            self._program, self._of = Optimum.of(simulation.scenario), simulation.scenario
        params, (_, days) = simulation.params, simulation.running()
        for i in np.flatnonzero(rows).tolist():
            self.plans[i] = self._program.solve(simulation.row(i))
            self._stored_kwh[i] = [params.initial_kwh]
            for t, battery_kw in enumerate(self.plans[i].battery_kw):
                window, before_kwh = (days.least_kwh[i, t + 1], days.most_kwh[i, t + 1]), self._stored_kwh[i][-1]
                self._stored_kwh[i].append(store(params.microgrids, before_kwh, battery_kw, *window, params.step_hours))

    def decide(self, simulation: Simulation, now: Now, seen: Float[np.ndarray, "batch agent entry"]) -> Decisions:
        params, (state, _) = simulation.params, simulation.running()
        now = with_fleets(now, _scheduled_fleets(self.plans, simulation), params)
        planned_kw = within_limits(_scheduled(self.plans, "battery_kw", simulation), now)
        decisions = targeting(simulation, now, planned_kw, _scheduled(self.plans, "export_kw", simulation))
        aim_kwh = np.stack([self._stored_kwh[i][t + 1] for i, t in enumerate(state.interval)])
        there_kw, _ = battery_limits(
            params.microgrids, now.interval, state.stored_kwh, aim_kwh, aim_kwh, params.step_hours
        )
        return replace(decisions, battery_kw=within_limits(there_kw, now))


def targeting(
    simulation: Simulation,
    now: Now,
    battery_kw: Float[np.ndarray, "batch agent"],
    export_kw: Float[np.ndarray, "batch agent"],
) -> Decisions:
    """Decisions that lead to this export without a contract: the dispatch price at which exactly that pays."""
    params = simulation.params
    interval = replace(now.interval, battery_kw=battery_kw)
    value = marginal_value(params.microgrids, interval, export_kw)
    spread = params.market.half_spread_per_kwh
    return Decisions(
        battery_kw=battery_kw,
        quantity_kw=np.zeros_like(export_kw),
        limit_price_per_kwh=np.broadcast_to(now.lmp_per_kwh[:, None], export_kw.shape),
        dispatch_price_per_kwh=value + spread * np.sign(export_kw),
        fleet_kw=now.fleet_kw,
    )


def community_export(
    simulation: Simulation, now: Now, battery_kw: Float[np.ndarray, "batch agent"]
) -> Float[np.ndarray, "batch agent"]:
    """Exports of a community that shares one marginal value: where it is balanced, within LMP +- half-spread."""
    grids = simulation.params.microgrids
    spread = simulation.params.market.half_spread_per_kwh
    interval = replace(now.interval, battery_kw=battery_kw)
    low, high = now.lmp_per_kwh[:, None] - spread, now.lmp_per_kwh[:, None] + spread

    def net_kw(value: Float[np.ndarray, "batch 1"]) -> Float[np.ndarray, "batch 1"]:
        return export_at(grids, interval, value, "right").sum(axis=-1, keepdims=True)

    for _ in range(60):  # bisection: the sum of the curves never falls
        middle = 0.5 * (low + high)
        is_long = net_kw(middle) > 0
        low, high = np.where(is_long, low, middle), np.where(is_long, middle, high)
    least, most = export_range(grids, interval)
    return np.clip(export_at(grids, interval, high, "right"), least, most)


def _scheduled(plans: Mapping[int, Schedule], what: str, simulation: Simulation) -> Float[np.ndarray, "batch agent"]:
    """What each row's plan says of the interval that begins."""
    step = simulation.running()[0].interval
    return np.stack([getattr(plans[i], what)[t] for i, t in enumerate(step)])


def _scheduled_fleets(plans: Mapping[int, Schedule], simulation: Simulation) -> Powers:
    """What each row's plan says of further devices in the interval that begins."""
    step = simulation.running()[0].interval
    each = range(len(simulation.params.fleets))
    return tuple(np.stack([plans[i].fleet_kw[k][t] for i, t in enumerate(step)]) for k in each)


def _arbitrage(simulation: Simulation, now: Now) -> Float[np.ndarray, "batch agent"]:
    params, (state, days) = simulation.params, simulation.running()
    grids, rows = params.microgrids, np.arange(len(state.interval))
    ahead = np.stack([days.lmp_day_ahead_per_kwh[rows, state.interval + k] for k in range(params.lookahead)], axis=-1)
    mean, price = ahead.mean(axis=-1)[:, None], now.lmp_per_kwh[:, None]
    charges = price / grids.charge_efficiency + grids.wear_per_kwh < mean * grids.discharge_efficiency
    discharges = price * grids.discharge_efficiency - grids.wear_per_kwh > mean / grids.charge_efficiency
    wished_kw = grids.battery_rating_kw * (discharges.astype(float) - charges.astype(float))
    return within_limits(wished_kw, now)


def within_limits(battery_kw: Float[np.ndarray, "batch agent"], now: Now) -> Float[np.ndarray, "batch agent"]:
    """Battery powers in kW, as near to those given as the interval allows."""
    return np.clip(battery_kw, now.battery_least_kw, now.battery_most_kw)
