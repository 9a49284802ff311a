"""Policies that look ahead: every microgrid plans the rest of its day against the nodal prices that it would cause.

For each interval ahead, a microgrid asks its predictor what the operator would accept, and at which nodal price, over
the range of its own exports. That makes a curve: the price that its own bus would have at each export. Diesel and load
follow a price in closed form (`envs.microgrid`), so what is left of the curve is what a kW of its battery is worth, and
the best use of the battery is a small dynamic program (`storage`). Around the plan that comes out, it asks again, and
plans again. The proposal then fits the price that it causes, and is submitted once.

    curve        price(export) at the own bus, from what is predicted at a few exports, refined around the plan
    battery      worth of a kW: the price at which the export, less diesel, sun and load, leaves room for it
    plan         battery of every interval ahead by dynamic programming; exports follow from the curves
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from peergrid.baselines.policies.fixed import MarketPolicy, targeting, within_limits
from peergrid.baselines.policies.storage import interpolated, plan_storage
from peergrid.envs.common.rows import rows_of
from peergrid.envs.devices.against_prices import plan_levels
from peergrid.envs.devices.device import START, Course, Fleet, undecided
from peergrid.envs.microgrid import Interval, Microgrids, battery_reach, decided_reach, export_at, export_range
from peergrid.envs.p2p_trading.outlook import Expected, ask, expected, moving_along
from peergrid.envs.p2p_trading.predictors import Predictor
from peergrid.envs.p2p_trading.simulation import Simulation, energy_window
from peergrid.envs.p2p_trading.transition import with_fleets
from peergrid.envs.p2p_trading.types import Days, Decisions, Now, Params, Powers, State
from peergrid.grid.dso import DsoQuery

EXPORTS = 7  # that are asked about first, from full import to full export
REFINEMENTS = 2  # times that three more are asked about around the plan, each time four times closer
FINER = 8  # points of a curve for each that was predicted
POWERS = 33  # powers at which the worth of a kW is taken
TURNS = 2  # in which battery and further devices are planned anew, each against the plans of the others
SHOWN = ("pv_kw", "demand_kw", "alpha_per_kw2h", "battery_kw")  # of an interval; `others_kw` is what is planned
PARTS = ("interval", "courses", "fleets")  # of the rest of a day, that are no arrays
FIRST_ROUNDS, ROUNDS = (
    3,
    1,
)  # in which the central plan goes from microgrid to microgrid: at first, and in each interval

# From own exports to what would be accepted of them and the price then.
Answer = Callable[
    [Float[np.ndarray, "row ahead agent export"]],
    tuple[Float[np.ndarray, "row ahead agent export"], Float[np.ndarray, "row ahead agent export"]],
]


@dataclass(frozen=True, eq=False, kw_only=True)
class Rest:
    """What is left of the day for rows that are in the same interval, as the microgrids expect it.

    Sun and demand of each microgrid's own, what it can export at least and at most with its battery anywhere between
    `charging_kw` (negative) and `discharging_kw`, and the window of its stored energy at every boundary. `courses` and
    `levels` are those of further devices, `fleet_kw` what they do if nobody decides.
    """

    interval: Interval
    stored_kwh: Float[np.ndarray, "row agent"]
    idle_least_kw: Float[np.ndarray, "row ahead agent"]
    idle_most_kw: Float[np.ndarray, "row ahead agent"]
    charging_kw: Float[np.ndarray, "row ahead agent"]
    discharging_kw: Float[np.ndarray, "row ahead agent"]
    least_kwh: Float[np.ndarray, "row boundary agent"]
    most_kwh: Float[np.ndarray, "row boundary agent"]
    courses: tuple[Course, ...] = ()
    levels: tuple[Float[np.ndarray, "row agent"], ...] = ()
    fleet_kw: tuple[Float[np.ndarray, "row ahead agent"], ...] = ()
    fleets: tuple[Fleet, ...] = ()

    @classmethod
    def of(cls, state: State, days: Days, params: Params) -> Rest:
        """The sun of the interval that begins is known, later ones by forecast; own demand is known."""
        n, t, grids = params.intervals, int(state.interval[0]), params.microgrids
        pv_kw = days.pv_forecast_kw[:, t:n].copy()
        pv_kw[:, 0] = days.pv_kw[:, t]
        interval = Interval(
            pv_kw=pv_kw,
            demand_kw=days.demand_kw[:, t:n],
            alpha_per_kw2h=days.alpha_per_kw2h[:, t:n],
            battery_kw=np.zeros_like(pv_kw),
        )
        idle_least_kw, idle_most_kw = export_range(grids, interval)
        charging_kw, discharging_kw = battery_reach(grids, interval)
        most_load_kw = grids.utility_w_per_kwh / interval.alpha_per_kw2h
        courses = tuple(
            _expected(course, forecast, t, n)
            for course, forecast in zip(days.courses, days.forecast_courses, strict=True)
        )
        least_kwh, most_kwh = energy_window(params, pv_kw, most_load_kw, courses)
        return cls(
            interval=interval,
            stored_kwh=state.stored_kwh,
            idle_least_kw=idle_least_kw,
            idle_most_kw=idle_most_kw,
            charging_kw=charging_kw,
            discharging_kw=discharging_kw,
            least_kwh=least_kwh,
            most_kwh=most_kwh,
            courses=courses,
            levels=state.levels,
            fleets=params.fleets,
            fleet_kw=tuple(undecided(c, level) for c, level in zip(courses, state.levels, strict=True)),
        )

    def export_range(self) -> tuple[Float[np.ndarray, "row ahead agent"], Float[np.ndarray, "row ahead agent"]]:
        """The least and the most that could be exported, whatever is stored."""
        least_kw, most_kw = self.idle_least_kw + self.charging_kw, self.idle_most_kw + self.discharging_kw
        for course in self.courses:
            least_kw, most_kw = least_kw + course.least_kw, most_kw + course.most_kw
        return least_kw, most_kw

    def only(self, agent: int) -> Rest:
        """That of one microgrid alone."""
        here = (..., slice(agent, agent + 1))
        return Rest(
            interval=_part(self.interval, here),
            courses=tuple(course.of_agent(agent) for course in self.courses),
            fleets=tuple(fleet.of_agent(agent) for fleet in self.fleets),
            **{f.name: rows_of(getattr(self, f.name), here) for f in fields(Rest) if f.name not in PARTS},
        )

    def now(self, battery_kw: Float[np.ndarray, "row agent"], fleet_kw: Powers = ()) -> Rest:
        """The interval that begins alone, with batteries, and further devices, as given."""
        given_kw = battery_kw[:, None]
        return replace(
            self,
            interval=_part(self.interval, (slice(None), slice(1))),
            courses=tuple(
                replace(c.over((slice(None), slice(1))), least_kw=power_kw[:, None], most_kw=power_kw[:, None])
                for c, power_kw in zip(self.courses, fleet_kw, strict=True)
            ),
            fleet_kw=tuple(power_kw[:, None] for power_kw in fleet_kw),
            idle_least_kw=self.idle_least_kw[:, :1],
            idle_most_kw=self.idle_most_kw[:, :1],
            charging_kw=given_kw,
            discharging_kw=given_kw,
        )


def _part(interval: Interval, index: Any) -> Interval:
    """What an index takes of an interval's arrays."""
    return replace(interval, **{name: getattr(interval, name)[index] for name in SHOWN})


def _expected(course: Course, forecast: Course, t: int, n: int) -> Course:
    """The intervals of a day from t on: that one as it is, later ones as forecast."""
    seen, ahead = course.over((slice(None), slice(t, t + 1))), forecast.over((slice(None), slice(t + 1, n)))
    values = {
        f.name: np.concatenate([getattr(seen, f.name), getattr(ahead, f.name)], axis=1)
        for f in fields(Course)
        if f.name != START
    }
    return Course(**values, start_level=course.start_level)


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """Exports, batteries and further devices in the intervals ahead."""

    export_kw: Float[np.ndarray, "row ahead agent"]
    battery_kw: Float[np.ndarray, "row ahead agent"]
    fleet_kw: tuple[Float[np.ndarray, "row ahead agent"], ...] = ()


def plan_against(
    answer: Answer, rest: Rest, microgrids: Microgrids, params: Params, counts_influence: bool = False
) -> Plan:
    """The plan of each microgrid against the prices that its own exports would meet.

    Args:
        counts_influence: Whether it reckons with what its own export does to the price of all that it sells or buys,
            as a monopolist does, rather than take the price as given.
    """
    cap = params.market.price_cap_per_kwh
    least_kw, most_kw = rest.export_range()
    range_kw = most_kw - least_kw
    asked_kw = least_kw[..., None] + range_kw[..., None] * np.linspace(0.0, 1.0, EXPORTS)
    accepted_kw, price = answer(asked_kw)
    plan, width_kw = None, range_kw / (EXPORTS - 1) / 2
    for k in range(REFINEMENTS + 1):
        curve = _curve(accepted_kw, price.clip(0.0, cap), asked_kw, microgrids, cap)
        plan = _plan_along(*curve, rest, microgrids, params, counts_influence)
        if k < REFINEMENTS:
            near_kw = plan.export_kw[..., None] + width_kw[..., None] * np.array([-1.0, 0.0, 1.0])
            near_kw = near_kw.clip(least_kw[..., None], (least_kw + range_kw)[..., None])
            more_kw, more = answer(near_kw)
            accepted_kw, price = np.concatenate([accepted_kw, more_kw], -1), np.concatenate([price, more], -1)
            width_kw = width_kw / 4
    assert plan is not None
    return plan


def _curve(
    accepted_kw: Float[np.ndarray, "row ahead agent export"],
    price_per_kwh: Float[np.ndarray, "row ahead agent export"],
    asked_kw: Float[np.ndarray, "row ahead agent asked"],
    microgrids: Microgrids,
    cap: float,
) -> tuple[Float[np.ndarray, "row ahead agent point"], Float[np.ndarray, "row ahead agent point"]]:
    """The price at the own bus over the own export, from left to right, falling: corners of a line.

    A proposal that is cut tells the price at what is left of it. Where even full import or export is cut, there is no
    more to be had: the curve ends in a wall there.
    """
    order = np.argsort(accepted_kw, axis=-1, kind="stable")
    export, price = np.take_along_axis(accepted_kw, order, -1), np.take_along_axis(price_per_kwh, order, -1)
    # A predictor's prices may rise somewhere: halfway between the falling lines above and below them.
    price = (np.minimum.accumulate(price, -1) + np.maximum.accumulate(price[..., ::-1], -1)[..., ::-1]) / 2
    wall_kw = 1e-3 * microgrids.rating_kw[:, None]
    first, last = export[..., :1], export[..., -1:]
    is_cut = (first - asked_kw[..., :1] > wall_kw, asked_kw[..., -1:] - last > wall_kw)
    low, high = np.where(is_cut[0], cap, price[..., :1]), np.where(is_cut[1], 0.0, price[..., -1:])
    left_kw, right_kw = np.minimum(first - wall_kw, asked_kw[..., :1]), np.maximum(last + wall_kw, asked_kw[..., -1:])
    corners = np.concatenate([left_kw - wall_kw, first - wall_kw, export, last + wall_kw, right_kw + wall_kw], -1)
    return corners, np.concatenate([low, low, price, high, high], -1)


def _plan_along(
    corner_kw: Float[np.ndarray, "row ahead agent point"],
    price_per_kwh: Float[np.ndarray, "row ahead agent point"],
    rest: Rest,
    microgrids: Microgrids,
    params: Params,
    counts_influence: bool,
) -> Plan:
    """The plan whose every export meets the price that the curve has there."""
    share = np.linspace(0.0, 1.0, FINER, endpoint=False)
    rise_kw, rise = np.diff(corner_kw, axis=-1), np.diff(price_per_kwh, axis=-1)
    shape = (*corner_kw.shape[:-1], -1)
    export_kw = (corner_kw[..., :-1, None] + rise_kw[..., None] * share).reshape(shape)
    marginal = (price_per_kwh[..., :-1, None] + rise[..., None] * share).reshape(shape)
    if counts_influence:
        slope = np.divide(rise, rise_kw, out=np.zeros_like(rise), where=rise_kw > 1e-9)
        marginal = marginal + np.repeat(slope, FINER, axis=-1) * export_kw
        marginal = np.minimum.accumulate(marginal, -1).clip(0.0, params.market.price_cap_per_kwh)
    # Point by point, sun, diesel and load follow the price; the battery makes up what is missing of the export.
    by_point = np.moveaxis(marginal, -1, 0)
    each = Interval(**{name: np.broadcast_to(getattr(rest.interval, name), by_point.shape) for name in SHOWN})
    others_kw = np.moveaxis(export_at(microgrids, each, by_point, "left"), 0, -1)
    needed_kw = np.maximum.accumulate(export_kw - others_kw, -1)

    def earned(
        low_kw: np.ndarray, high_kw: np.ndarray, beside_kw: np.ndarray | None, wear_per_kwh: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Powers from the least to the most, and what each earns per hour beside what all else is decided to give."""
        power_kw = np.linspace(low_kw, high_kw, POWERS, axis=-1)
        at_kw = power_kw if beside_kw is None else power_kw + beside_kw[..., None]
        worth = interpolated(at_kw, needed_kw, marginal)
        steps_kw = np.diff(power_kw, axis=-1)
        sums = np.cumsum((worth[..., 1:] + worth[..., :-1]) / 2 * steps_kw, axis=-1)
        sums = np.concatenate([np.zeros_like(sums[..., :1]), sums], -1)
        sums -= wear_per_kwh[:, None] * np.abs(power_kw)
        return power_kw, sums * params.step_hours

    def with_battery(others_kw: np.ndarray | None) -> np.ndarray:
        low_kw, high_kw = rest.charging_kw, rest.discharging_kw
        if others_kw is not None:
            low_kw, high_kw = battery_reach(microgrids, replace(rest.interval, others_kw=others_kw))
            low_kw, high_kw = np.maximum(low_kw, rest.charging_kw), np.minimum(high_kw, rest.discharging_kw)
            high_kw = np.maximum(low_kw, high_kw)
        worth = earned(low_kw, high_kw, others_kw, microgrids.wear_per_kwh)[1]
        limits = (rest.stored_kwh, rest.least_kwh, rest.most_kwh, low_kw, high_kw)
        return plan_storage(microgrids, *limits, worth, params.step_hours)

    fleet_kw = list(rest.fleet_kw)
    battery_kw = with_battery(np.sum(fleet_kw, axis=0) if fleet_kw else None)
    for _ in range(TURNS if fleet_kw else 0):  # each in its turn against what all others are decided to do
        for k, (fleet, course) in enumerate(zip(rest.fleets, rest.courses, strict=True)):
            beside_kw = battery_kw + np.sum(fleet_kw, axis=0) - fleet_kw[k]
            drawn_kw, given_kw = decided_reach(microgrids, replace(rest.interval, others_kw=beside_kw))
            low_kw = np.maximum(course.least_kw, -np.maximum(drawn_kw, 0.0))
            high_kw = np.maximum(np.minimum(course.most_kw, np.maximum(given_kw, 0.0)), low_kw)
            worth = earned(low_kw, high_kw, beside_kw, fleet.wear_per_kwh)[1]
            fleet_kw[k] = plan_levels(fleet, course, rest.levels[k], low_kw, high_kw, worth, params.step_hours)
        battery_kw = with_battery(np.sum(fleet_kw, axis=0))
    decided_kw = battery_kw + np.sum(fleet_kw, axis=0) if fleet_kw else battery_kw
    planned_kw = interpolated(decided_kw[..., None], needed_kw, export_kw)[..., 0]
    planned_kw = planned_kw.clip(rest.idle_least_kw + decided_kw, rest.idle_most_kw + decided_kw)
    return Plan(export_kw=planned_kw, battery_kw=battery_kw, fleet_kw=tuple(fleet_kw))


def answers_of(predictor: Predictor, coming: Expected, state: State, params: Params) -> Answer:
    """What the predictor says to microgrids that suppose the others to move along with them."""

    def answer(export_kw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        everybody = moving_along(export_kw.swapaxes(1, 2), state, params)
        found = ask(everybody, coming, state, predictor, params)
        return found.accepted_kw.swapaxes(1, 2), found.price_per_kwh.swapaxes(1, 2)

    return answer


class Foresighted(MarketPolicy):
    """Each microgrid plans the rest of its own day against the nodal prices that are predicted at its own bus.

    It knows its own devices, forecasts, and what is public; of the others, what was accepted of them last. It offers
    what it plans to export at its honest limit price, the LMP.
    """

    def __init__(self, predictor: Predictor | None = None, counts_influence: bool = False) -> None:
        """
        Args:
            predictor: Who is asked, if not the predictor of the environment.
            counts_influence: Whether a microgrid reckons with what its own export does to its price.
        """
        self.predictor, self.counts_influence = predictor, counts_influence

    def decide(self, simulation: Simulation, now: Now, seen: Float[np.ndarray, "batch agent entry"]) -> Decisions:
        predictor, params = self.predictor or simulation.predictor, simulation.params

        def plan(state: State, days: Days, rows: Bool[np.ndarray, " batch"]) -> Plan:
            rest = Rest.of(state, days, params)
            coming = expected(state, days, params, params.intervals - int(state.interval[0]))
            answer = answers_of(predictor, coming, state, params)
            return plan_against(answer, rest, params.microgrids, params, self.counts_influence)

        return followed(simulation, now, plan)


class Strategic(MarketPolicy):
    """`Foresighted`, reckoning with what the own export does to the own price."""

    def __init__(self) -> None:
        self.planner = Foresighted(counts_influence=True)

    def decide(self, simulation: Simulation, now: Now, seen: Float[np.ndarray, "batch agent entry"]) -> Decisions:
        return self.planner.decide(simulation, now, seen)


class NetworkMpc(MarketPolicy):
    """One central plan with the network, and with forecasts for what is to come: what is possible without foresight.

    Microgrid after microgrid is planned anew against the operator's exact answer, with the plans of all others known,
    which raises the community's welfare at every turn; the plan of the interval before is where it begins. It needs no
    solver beside the operator's own, and fails only where that does.
    """

    def __init__(self) -> None:
        self._plans = np.zeros((0, 0, 0))  # exports [row, interval, agent]
        self._is_new = np.zeros(0, dtype=bool)

    def begin_rows(self, simulation: Simulation, rows: Bool[np.ndarray, " batch"]) -> None:
        shape = (len(rows), simulation.params.intervals, simulation.n_agent)
        if self._plans.shape != shape:
            self._plans, self._is_new = np.zeros(shape), np.ones(len(rows), dtype=bool)
        self._plans[rows], self._is_new[rows] = 0.0, True

    def decide(self, simulation: Simulation, now: Now, seen: Float[np.ndarray, "batch agent entry"]) -> Decisions:
        params = simulation.params

        def plan(state: State, days: Days, rows: Bool[np.ndarray, " batch"]) -> Plan:
            t = int(state.interval[0])
            rest, coming = Rest.of(state, days, params), expected(state, days, params, params.intervals - t)
            export_kw, battery_kw = self._plans[rows, t:], np.zeros_like(rest.charging_kw)
            least_kw, most_kw = rest.export_range()
            export_kw, fleet_kw = export_kw.clip(least_kw, most_kw), [power_kw.copy() for power_kw in rest.fleet_kw]
            for _ in range(FIRST_ROUNDS if self._is_new[rows].any() else ROUNDS):
                for agent in range(simulation.n_agent):
                    own = plan_against(
                        _known_answer(agent, export_kw, coming, params),
                        rest.only(agent),
                        only(params.microgrids, agent),
                        params,
                    )
                    export_kw[..., agent], battery_kw[..., agent] = own.export_kw[..., 0], own.battery_kw[..., 0]
                    for all_kw, own_kw in zip(fleet_kw, own.fleet_kw, strict=True):
                        all_kw[..., agent] = own_kw[..., 0]
            self._plans[rows, t:], self._is_new[rows] = export_kw, False
            return Plan(export_kw=export_kw, battery_kw=battery_kw, fleet_kw=tuple(fleet_kw))

        return followed(simulation, now, plan)


def _known_answer(
    agent: int, export_kw: Float[np.ndarray, "row ahead agent"], coming: Expected, params: Params
) -> Answer:
    """What the operator answers to one microgrid's exports, the others' being known."""

    def answer(own_kw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batch = own_kw.shape[:2] + own_kw.shape[3:]

        def for_each(values: np.ndarray) -> np.ndarray:
            return np.broadcast_to(values[:, :, None], (*batch, *values.shape[2:])).copy()

        proposed_kw = for_each(export_kw)
        proposed_kw[..., agent] = own_kw[:, :, 0]
        response = params.dso(
            DsoQuery(
                load_kw=for_each(coming.load_kw),
                load_kvar=for_each(coming.load_kvar),
                proposed_kw=proposed_kw,
                lmp_per_kwh=for_each(coming.lmp_per_kwh),
            )
        )
        price = response.price_per_kwh[..., params.agent_bus[agent]]
        return response.accepted_kw[:, :, None, :, agent], price[:, :, None]

    return answer


def only(microgrids: Microgrids, agent: int) -> Microgrids:
    """One of the microgrids alone."""
    return Microgrids(
        **{f.name: np.asarray(getattr(microgrids, f.name))[agent : agent + 1] for f in fields(Microgrids)}
    )


def followed(
    simulation: Simulation, now: Now, plan: Callable[[State, Days, Bool[np.ndarray, " batch"]], Plan]
) -> Decisions:
    """What the first interval of each row's plan comes to; rows in the same interval are planned together."""
    state, days = simulation.running()
    battery_kw, export_kw = np.zeros_like(state.stored_kwh), np.zeros_like(state.stored_kwh)
    fleet_kw = tuple(power_kw.copy() for power_kw in now.fleet_kw)
    for t in sorted(set(state.interval.tolist())):
        if t < simulation.params.intervals:
            rows = state.interval == t
            found = plan(rows_of(state, rows), rows_of(days, rows), rows)
            battery_kw[rows], export_kw[rows] = found.battery_kw[:, 0], found.export_kw[:, 0]
            for all_kw, planned_kw in zip(fleet_kw, found.fleet_kw, strict=True):
                all_kw[rows] = planned_kw[:, 0]
    now = with_fleets(now, fleet_kw, simulation.params)
    for kept_kw, planned_kw in zip(now.fleet_kw, fleet_kw, strict=True):
        export_kw = export_kw + kept_kw - planned_kw
    kept_kw = within_limits(battery_kw, now)
    export_kw = export_kw + kept_kw - battery_kw
    return replace(targeting(simulation, now, kept_kw, export_kw), quantity_kw=export_kw)
