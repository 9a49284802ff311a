"""The transactive loop in a batch: what `envs/common/batch.py` asks of a market, and its days from a scenario."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from peergrid.envs.common.actions import RENDER_MODES, check_actions
from peergrid.envs.common.batch import Batch
from peergrid.envs.common.entries import bounds, clipped
from peergrid.envs.common.episodes import Episodes
from peergrid.envs.common.profiles import Day, DayShape, ProfileSource
from peergrid.envs.common.registered import RULES
from peergrid.envs.common.rows import rows_of
from peergrid.envs.devices.demand import shift_window
from peergrid.envs.transactive import observation
from peergrid.envs.transactive.day_ahead import agree
from peergrid.envs.transactive.plans import AgentPlan
from peergrid.envs.transactive.resources import SetPoints, storage_window
from peergrid.envs.transactive.scenario import (
    TransactiveScenario,
    agent_names,
    build_dso,
    build_profiles,
    build_resources,
    check_scenario,
    load_scenario,
)
from peergrid.envs.transactive.signal import SignalBase
from peergrid.envs.transactive.transition import (
    advance,
    current_interval,
    decode,
    is_over,
    opened,
    root_of_action,
    with_root,
)
from peergrid.envs.transactive.types import N_ACTIONS, DayAhead, Days, Forecast, Loop, Now, Outcome, Params, State
from peergrid.grid.dso import Dso
from peergrid.grid.errors import InvalidProfiles, PeergridError, raise_faults
from peergrid.grid.parts import resolve

SUN_ALONE = ""  # a microgrid of this class has no demand: agents' loads are those of their buses


class Transactive(Batch[State, Days, Now, Outcome]):
    """A batch of days on one scenario, stepped together; row i of a seeded reset draws with seed + i."""

    viewer: ClassVar[str] = "peergrid.envs.transactive.viewer"
    metadata: ClassVar[dict[str, Any]] = {"render_modes": list(RENDER_MODES), "render_fps": 4}
    scenario: TransactiveScenario
    params: Params

    def __init__(
        self,
        scenario: str | TransactiveScenario = "ieee37",
        *,
        num_envs: int = 1,
        dso: str | Dso | None = None,
        profiles: str | ProfileSource | None = None,
        max_cycles: int | None = None,
    ) -> None:
        """
        Args:
            dso: Who answers: "interior_point", "conic" or "admm" solve the optimal power flow, an object, or
                "module:attribute" of a function from the scenario to one; the scenario's own if None.
            profiles: Where days come from, an object or "module:attribute"; the scenario's own if None.
            max_cycles: TE iterations of an episode at most; until the day ends if None.
        """
        self.scenario = load_scenario(scenario)
        if isinstance(dso, str) and ":" not in dso:
            self.scenario, dso = replace(self.scenario, dso=replace(self.scenario.dso, solver=dso)), None
        check_scenario(self.scenario)
        if max_cycles is not None and max_cycles < 1:
            raise PeergridError(f"max_cycles is {max_cycles}, not at least 1")
        self.max_cycles = max_cycles
        self.params = build_params(self.scenario, dso)
        self.plan = AgentPlan(
            self.params.resources, self.params.initial_kwh, self.params.intervals, self.params.step_hours
        )
        source: ProfileSource = resolve(profiles or build_profiles(self.scenario), "profile source", {})
        shape = DayShape(
            intervals=self.params.intervals,
            step_hours=self.params.step_hours,
            bus=self.params.feeder.bus,
            demand_class=(SUN_ALONE,) * self.n_agent,
        )
        episodes = Episodes(source, shape, self.params.intervals, num_envs, self.scenario.seed)
        self.dso_entries = observation.dso_layout(self.params)
        self._dso_bounds = bounds(self.dso_entries)
        super().__init__(observation.layout(self.params), observation.state_layout(self.params), episodes, num_envs)

    @property
    def agents(self) -> list[str]:
        """What the agents are called: by their buses, with a number where several stand at one."""
        return [f"bus_{name}" for name in self.params.agent_name]

    @property
    def seen_by_dso(self) -> Float32[np.ndarray, "batch entry"]:
        """What the DSO of every row sees."""
        seen = observation.observe_dso(*self.running(), self.now(), self.params)
        return clipped(seen, self._dso_bounds)

    def days_of(self, drawn: Sequence[Day]) -> Days:
        """Days drawn, as they are played here: each with what is agreed on the day before it."""
        return build_days(drawn, self.params, self.plan)

    def step(
        self,
        actions: Float[np.ndarray, "batch agent 3"],
        rows: Bool[np.ndarray, " batch"] | None = None,
        dso_actions: Float[np.ndarray, " batch"] | None = None,
    ) -> tuple[Float32[np.ndarray, "batch agent entry"], Outcome]:
        """One TE iteration in every row, or in the marked ones.

        Args:
            dso_actions: Where the DSO moves the root signal that is answered next; by its rule if None.

        Returns:
            What the agents of all rows see next, and what happened in the rows that played.

        Raises:
            InvalidAction: Wrong shape, or NaN.
            PeergridError: No episode has begun, or it is over.
        """
        self.running()
        check_actions(actions, (self.num_envs, self.n_agent, N_ACTIONS))
        chosen = decode(np.clip(np.asarray(actions, dtype=np.float64), -1.0, 1.0), self.params)
        return self.answer(chosen, rows, dso_actions)

    def answer(
        self,
        chosen: SetPoints,
        rows: Bool[np.ndarray, " batch"] | None = None,
        dso_actions: Float[np.ndarray, " batch"] | None = None,
    ) -> tuple[Float32[np.ndarray, "batch agent entry"], Outcome]:
        """`step` with set-points in kW, of all rows, instead of actions."""

        def play(state: State, days: Days, now: Now, some: Any) -> tuple[State, Outcome]:
            root = None
            if dso_actions is not None:
                root = root_of_action(rows_of(dso_actions, some), state, days, self.params)
            return advance(state, rows_of(chosen, some), days, self.params, root, now)

        return self._play(rows, play)

    def announce(
        self, dso_actions: Float[np.ndarray, " batch"], rows: Bool[np.ndarray, " batch"] | None = None
    ) -> None:
        """Move the root signal of all rows, or of the marked ones, to where actions in [-1, 1] put it."""
        state, days = self.running()
        root = root_of_action(np.clip(dso_actions, -1.0, 1.0), state, days, self.params)
        if rows is not None:
            root = np.where(rows, root, state.root_per_kwh)
        self._put(with_root(state, root), days, None, None)

    def _first_state(self, days: Days) -> State:
        n_row = len(days.lmp_per_kwh)
        root, signal = opened(np.zeros(n_row, dtype=int), days, self.params)
        return State(
            interval=np.zeros(n_row, dtype=int),
            iteration=np.zeros(n_row, dtype=int),
            steps=np.zeros(n_row, dtype=int),
            stored_kwh=np.tile(self.params.initial_kwh, (n_row, 1)),
            shifted_kwh=np.zeros((n_row, self.n_agent)),
            root_per_kwh=root,
            signal_per_kwh=signal,
            last_root_per_kwh=np.full(n_row, np.nan),
            step_share=np.full(n_row, self.params.loop.step_share),
            gap_kw=np.zeros(n_row),
            last_flexible_kw=days.day_ahead.exchange_kw[:, 0] + self.params.own_of(days.forecast.load_kw[:, 0]),
            last_gap_kw=np.zeros(n_row),
            last_voltage_pu=np.full((n_row, self.params.feeder.n_bus), self.params.feeder.v_source_pu),
        )

    def _current(self, state: State, days: Days) -> Now:
        return current_interval(state, days, self.params)

    def _observe(self, state: State, days: Days, now: Now, foretold: Any) -> Float[np.ndarray, "batch agent entry"]:
        return observation.observe(state, days, now, self.params)

    def _global_state(self, state: State, days: Days) -> Float[np.ndarray, "batch entry_of_state"]:
        return observation.global_state(self.seen, self.seen_by_dso, state)

    def _n_steps(self, state: State) -> Int[np.ndarray, " batch"]:
        return state.steps

    def _is_over(self, state: State) -> Bool[np.ndarray, " batch"]:
        return is_over(state, self.params, self.max_cycles)


def build_params(scenario: TransactiveScenario, dso: str | Dso | None = None) -> Params:
    """What stays fixed in the scenario's episodes."""
    own, loop = build_dso(scenario), scenario.loop
    resources = build_resources(scenario)
    return Params(
        feeder=own.feeder,
        agent_name=agent_names([a.bus for a in scenario.agents]),
        agent_bus=own.trade_bus,
        load_share=np.array([a.load_share for a in scenario.agents]),
        resources=resources,
        dso=resolve(dso, "DSO", {})(scenario) if isinstance(dso, str) else dso or own,
        loop=Loop(
            rule=resolve(loop.rule, "rule", RULES),
            signal_base=SignalBase(loop.signal_base),
            step_share=loop.step_share,
            gain=loop.gain,
            bound_share=loop.bound_share,
            threshold_share=loop.threshold_share,
            max_iterations=loop.max_iterations,
        ),
        imbalance_spread=scenario.imbalance_spread,
        voll_per_kwh=scenario.dso.voll_per_kwh,
        intervals=scenario.intervals,
        step_hours=scenario.step_hours,
        lookahead=scenario.lookahead,
        initial_kwh=scenario.initial_charge * resources.storage_max_kwh,
    )


def build_days(drawn: Sequence[Day], params: Params, plan: AgentPlan) -> Days:
    """Days drawn in shares of nominal and peak, as power and money, each with what is agreed on the day before it.

    Raises:
        InvalidProfiles: An LMP is not positive: signals are shares of it.
    """
    feeder, r = params.feeder, params.resources

    def each(name: str) -> np.ndarray:
        return np.stack([getattr(day, name) for day in drawn])

    names = ("lmp_per_kwh", "lmp_day_ahead_per_kwh")
    faults = [f"{name} is {each(name).min():g}, and must be positive" for name in names if each(name).min() <= 0]
    raise_faults(InvalidProfiles, "days of a transactive scenario", faults)
    expected_pu = each("load_forecast_pu")
    forecast = Forecast(
        load_kw=expected_pu * feeder.load_kw,
        load_kvar=expected_pu * feeder.load_kvar,
        pv_kw=each("pv_forecast_pu") * r.pv_peak_kw,
        lmp_per_kwh=each("lmp_day_ahead_per_kwh"),
    )
    shift_most = r.shiftable_share * params.own_of(forecast.load_kw)
    agreed = [agree(rows_of(forecast, i), shift_most[i], plan, params) for i in range(len(drawn))]
    least, most = storage_window(r, params.initial_kwh, params.intervals, params.step_hours)
    return Days(
        load_kw=each("load_pu") * feeder.load_kw,
        load_kvar=each("load_pu") * feeder.load_kvar,
        pv_kw=each("pv_pu") * r.pv_peak_kw,
        lmp_per_kwh=each("lmp_per_kwh"),
        forecast=forecast,
        day_ahead=_stacked(agreed),
        shift_most_kw=shift_most,
        shifted_most_kwh=shift_window(shift_most, params.step_hours),
        stored_least_kwh=np.tile(least, (len(drawn), 1, 1)),
        stored_most_kwh=np.tile(most, (len(drawn), 1, 1)),
    )


def _stacked(agreed: Sequence[DayAhead]) -> DayAhead:
    def each(name: str) -> np.ndarray:
        return np.stack([getattr(day, name) for day in agreed])

    def of_resource(name: str) -> np.ndarray:
        return np.stack([getattr(day.set_points, name) for day in agreed])

    return DayAhead(
        import_kw=each("import_kw"),
        signal_per_kwh=each("signal_per_kwh"),
        exchange_kw=each("exchange_kw"),
        set_points=SetPoints(**{name: of_resource(name) for name in ("shift_kw", "generator_kw", "storage_kw")}),
        cost=each("cost"),
    )
