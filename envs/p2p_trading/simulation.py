"""The P2P market in a batch: what `envs/common/batch.py` asks of a market, and its days from a scenario."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from peergrid.envs.common.actions import RENDER_MODES, check_actions
from peergrid.envs.common.batch import Batch
from peergrid.envs.common.episodes import Episodes
from peergrid.envs.common.profiles import Day, DayShape, ProfileSource
from peergrid.envs.common.registered import DSOS, MECHANISMS, PREDICTORS
from peergrid.envs.common.rows import rows_of
from peergrid.envs.devices import storage
from peergrid.envs.devices.device import Course, draw_courses, fleets, stacked
from peergrid.envs.p2p_trading.mechanisms import Mechanism
from peergrid.envs.p2p_trading.observation import global_state, layout, observe, state_layout
from peergrid.envs.p2p_trading.outlook import Foretold, foretell
from peergrid.envs.p2p_trading.predictors import Predictor
from peergrid.envs.p2p_trading.scenario import (
    Scenario,
    build_devices,
    build_dso,
    build_microgrids,
    build_profiles,
    check_scenario,
    load_scenario,
)
from peergrid.envs.p2p_trading.transition import advance, counted_from_no_trade, current_interval
from peergrid.envs.p2p_trading.types import Days, Forecasting, Now, Outcome, Params, State
from peergrid.grid.dso import Dso
from peergrid.grid.errors import PeergridError
from peergrid.grid.parts import resolve


class Simulation(Batch[State, Days, Now, Outcome]):
    """A batch of P2P markets on one scenario, stepped together; row i of a seeded reset draws with seed + i."""

    viewer: ClassVar[str] = "peergrid.envs.p2p_trading.viewer"
    metadata: ClassVar[dict[str, Any]] = {"render_modes": list(RENDER_MODES), "render_fps": 2}
    scenario: Scenario
    params: Params

    def __init__(
        self,
        scenario: str | Scenario = "ieee33",
        *,
        num_envs: int = 1,
        predictor: str | Predictor = "auto",
        mechanism: str | Mechanism | None = None,
        dso: str | Dso | None = None,
        profiles: str | ProfileSource | None = None,
        max_cycles: int | None = None,
        predicted_intervals: int | None = None,
    ) -> None:
        """
        Args:
            predictor: What agents see of the DSO's response: "transformer", "oracle", "none", "auto" (the transformer
                where one is shipped, else none), an object, or "module:attribute".
            mechanism: Who trades with whom; the scenario's own if None.
            dso: Who answers proposals: "opf" (also if None), "unchecked", an object, or "module:attribute" of a
                function from the scenario to one.
            profiles: Where days come from, an object or "module:attribute"; the scenario's own if None.
            max_cycles: Intervals of an episode; the scenario's own if None.
            predicted_intervals: For how many intervals the predictor is asked, from the one that begins on; later ones
                are seen as without one. All if None.
        """
        self.scenario = load_scenario(scenario, **({} if max_cycles is None else {"intervals": max_cycles}))
        check_scenario(self.scenario)
        self.predictor: Predictor = resolve(predictor, "predictor", PREDICTORS)
        self.profiles: ProfileSource = resolve(profiles or build_profiles(self.scenario), "profile source", {})
        self.params = build_params(self.scenario, mechanism, dso, self.profiles, predicted_intervals)
        shape = DayShape(
            intervals=self.params.intervals + self.params.lookahead,
            step_hours=self.params.step_hours,
            bus=self.params.feeder.bus,
            demand_class=tuple(m.demand_class for m in self.scenario.microgrids),
        )
        season = (self.scenario.first_day, self.scenario.n_days)
        devices = build_devices(self.scenario)
        beside = partial(draw_courses, devices, [m.bus for m in self.scenario.microgrids], shape) if devices else None
        episodes = Episodes(self.profiles, shape, self.params.intervals, num_envs, self.scenario.seed, season, beside)
        super().__init__(layout(self.params), state_layout(self.params), episodes, num_envs)

    @property
    def agents(self) -> list[str]:
        """What the microgrids are called."""
        return [f"microgrid_{i}" for i in range(self.n_agent)]

    @property
    def terminates(self) -> bool:
        return self.params.terminates

    def days_of(self, drawn: Sequence[Day]) -> Days:
        """Days drawn, as they are played here: where rewards count from no trade, with what that gives."""
        days = build_days(self.scenario, self.params, drawn)
        return counted_from_no_trade(self._first_state(days), days, self.params) if self.params.over_no_trade else days

    def step(
        self, actions: Float[np.ndarray, "batch agent number"], rows: Bool[np.ndarray, " batch"] | None = None
    ) -> tuple[Float32[np.ndarray, "batch agent entry"], Outcome]:
        """Play one interval in every row, or in the marked ones.

        Returns:
            What the agents of all rows see next, and what happened in the rows that played.

        Raises:
            InvalidAction: Wrong shape, or NaN.
            PeergridError: No episode has begun, or it is over.
        """
        self.running()
        check_actions(actions, (self.num_envs, self.n_agent, self.params.n_actions), "row, microgrid, number")
        actions = np.asarray(actions, dtype=np.float64)

        def play(state: State, days: Days, now: Now, some: Any) -> tuple[State, Outcome]:
            return advance(state, rows_of(actions, some), days, self.params, now)

        return self._play(rows, play)

    def _first_state(self, days: Days) -> State:
        n_row = len(days.lmp_per_kwh)
        lmp = days.lmp_per_kwh[:, :1]
        nothing = np.zeros((n_row, self.n_agent))
        return State(
            interval=np.zeros(n_row, dtype=int),
            stored_kwh=np.tile(self.params.initial_kwh, (n_row, 1)),
            last_lmp_per_kwh=lmp[:, 0],
            last_price_per_kwh=np.repeat(lmp, self.n_agent, axis=1),
            last_te_price_per_kwh=np.repeat(lmp, self.n_agent, axis=1),
            last_proposed_kw=nothing,
            last_accepted_kw=nothing,
            last_voltage_pu=np.full((n_row, self.params.feeder.n_bus), self.params.feeder.v_source_pu),
            levels=tuple(course.start_level for course in days.courses),
        )

    def _foretell(self, state: State, days: Days) -> Foretold:
        return foretell(state, days, self.predictor, self.params)

    def _current(self, state: State, days: Days) -> Now:
        return current_interval(state, days, self.params)

    def _observe(self, state: State, days: Days, now: Now, foretold: Any) -> Float[np.ndarray, "batch agent entry"]:
        return observe(state, days, now, foretold, self.predictor, self.params)

    def _global_state(self, state: State, days: Days) -> Float[np.ndarray, "batch entry_of_state"]:
        return global_state(self.seen, state, days, self.params)

    def _n_steps(self, state: State) -> Int[np.ndarray, " batch"]:
        return state.interval

    def _is_over(self, state: State) -> Bool[np.ndarray, " batch"]:
        over: Bool[np.ndarray, " batch"] = state.interval >= self.params.intervals
        return over


def build_params(
    scenario: Scenario,
    mechanism: str | Mechanism | None = None,
    dso: str | Dso | None = None,
    profiles: ProfileSource | None = None,
    predicted_intervals: int | None = None,
) -> Params:
    """What stays fixed in the scenario's episodes; where None is given, what the scenario itself names."""
    own, source = build_dso(scenario), profiles or build_profiles(scenario)
    if predicted_intervals is None:
        predicted_intervals = scenario.intervals + scenario.lookahead
    elif not isinstance(predicted_intervals, int) or predicted_intervals < 0:
        raise PeergridError(
            f"predicted_intervals is {predicted_intervals!r}, not a whole number from 0, or None for all"
        )
    microgrids = build_microgrids(scenario)
    span_kwh = microgrids.energy_max_kwh - microgrids.energy_min_kwh
    return Params(
        feeder=own.feeder,
        agent_bus=own.trade_bus,
        microgrids=microgrids,
        generators=own.generators,
        voll_per_kwh=scenario.dso.voll_per_kwh,
        c_ls_per_kw2h=scenario.dso.c_ls_per_kw2h,
        market=scenario.market,
        mechanism=resolve(mechanism or scenario.market.mechanism, "mechanism", MECHANISMS),
        dso=resolve(dso, "DSO", DSOS)(scenario) if isinstance(dso, str) else dso or own,
        intervals=scenario.intervals,
        step_hours=scenario.step_hours,
        lookahead=scenario.lookahead,
        predicted_intervals=predicted_intervals,
        initial_kwh=microgrids.energy_min_kwh + scenario.initial_charge * span_kwh,
        cooperation=scenario.cooperation,
        over_no_trade=scenario.over_no_trade,
        terminates=scenario.horizon == "terminate",
        daily_cycle=scenario.daily_cycle,
        forecasting=Forecasting(
            load_persistence=source.load_persistence**scenario.step_hours,
            lmp_persistence=source.lmp_persistence**scenario.step_hours,
            max_load_pu=source.max_load_pu,
            max_lmp_per_kwh=source.max_lmp_per_kwh,
        ),
        fleets=fleets(build_devices(scenario), [m.bus for m in scenario.microgrids]),
    )


def build_days(scenario: Scenario, params: Params, drawn: Sequence[Day]) -> Days:
    """Days drawn in shares of nominal and peak, as power and money, with each battery's window of energy."""
    feeder, k = params.feeder, scenario.scale
    pv_peak = k * scenario.pv_scale * np.array([m.pv_peak_kw for m in scenario.microgrids])
    demand_peak = k * np.array([m.demand_peak_kw for m in scenario.microgrids])
    w = params.microgrids.utility_w_per_kwh
    fall = w - np.array([m.demand_price_per_kwh for m in scenario.microgrids])

    def each(name: str) -> np.ndarray:
        return np.stack([getattr(day, name) for day in drawn])

    demand_kw = each("demand_pu") * demand_peak
    with np.errstate(divide="ignore"):
        alpha = np.where(demand_kw > 0, fall / demand_kw, np.inf)
    pv_kw = each("pv_pu") * pv_peak
    n = params.intervals
    courses, forecast_courses = (
        tuple(stacked([both[k] for both in of_days]) for of_days in zip(*(day.devices for day in drawn), strict=True))
        for k in range(2)
    )
    in_day = tuple(course.over((slice(None), slice(n))) for course in courses)
    least_kwh, most_kwh = energy_window(params, pv_kw[:, :n], (w / alpha)[:, :n], in_day)
    return Days(
        load_kw=each("load_pu") * feeder.load_kw,
        load_kvar=each("load_pu") * feeder.load_kvar,
        load_forecast_kw=each("load_forecast_pu") * feeder.load_kw,
        load_forecast_kvar=each("load_forecast_pu") * feeder.load_kvar,
        pv_kw=pv_kw,
        pv_forecast_kw=each("pv_forecast_pu") * pv_peak,
        demand_kw=demand_kw,
        alpha_per_kw2h=alpha,
        lmp_per_kwh=each("lmp_per_kwh"),
        lmp_day_ahead_per_kwh=each("lmp_day_ahead_per_kwh"),
        least_kwh=least_kwh,
        most_kwh=most_kwh,
        no_trade_gain=np.zeros((len(drawn), n, params.initial_kwh.size)),
        no_trade_welfare=np.zeros((len(drawn), n)),
        courses=courses,
        forecast_courses=forecast_courses,
    )


def energy_window(
    params: Params,
    pv_kw: Float[np.ndarray, "batch ahead agent"],
    most_load_kw: Float[np.ndarray, "batch ahead agent"],
    courses: tuple[Course, ...] = (),
) -> tuple[Float[np.ndarray, "batch boundary agent"], Float[np.ndarray, "batch boundary agent"]]:
    """The least and the most energy that a battery may hold at each boundary between the intervals left of the day.

    With a daily cycle the window narrows to the initial energy towards the end of the day, no faster than the battery
    can follow: charging from PV and diesel alone, discharging into its own load alone, as the dispatch demands. It is
    computed from the sun and the demand that will be, so that it can be kept: the limits that an agent sees tell it a
    little of its own future where diesel alone could not charge the battery. Whoever plans ahead computes it from
    what it expects.

    Args:
        courses: What other devices are in for, which have the first claim on the power.
    """
    grids = params.microgrids
    if not params.daily_cycle:
        shape = (len(pv_kw), pv_kw.shape[1] + 1, params.initial_kwh.size)
        least, most = (np.broadcast_to(end_kwh, shape) for end_kwh in (grids.energy_min_kwh, grids.energy_max_kwh))
        return least.copy(), most.copy()
    rating = grids.battery_rating_kw
    own_kw = pv_kw + grids.diesel_max_kw
    for course in courses:
        own_kw = np.maximum(own_kw + course.least_kw, 0.0)
        most_load_kw = np.maximum(most_load_kw - course.most_kw, 0.0)
    charge_kwh = np.minimum(rating, own_kw) * grids.charge_efficiency * params.step_hours
    drain_kwh = np.minimum(rating, most_load_kw) / grids.discharge_efficiency * params.step_hours
    none = np.zeros_like(charge_kwh[:, :1])

    def from_now_on(energy_kwh: np.ndarray) -> np.ndarray:
        return np.concatenate([np.cumsum(energy_kwh[:, ::-1], axis=1)[:, ::-1], none], axis=1)

    return storage.window(grids.battery, params.initial_kwh, from_now_on(charge_kwh), from_now_on(drain_kwh))
