"""One day of the transactive loop, with what its studies measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from peergrid.baselines.policies.transactive import TransactivePolicy
from peergrid.envs.common.rollout import rollout
from peergrid.envs.transactive.simulation import Transactive
from peergrid.envs.transactive.types import Outcome
from peergrid.grid.dso import DsoStatus


@dataclass(frozen=True, kw_only=True)
class HourTrace:
    """An hour, iteration by iteration."""

    import_kw: list[float]
    root_per_kwh: list[float]


@dataclass(frozen=True, eq=False, kw_only=True)
class TransactiveDay:
    """A day as it was closed, hour by hour; money is per hour, and that of agents a sum over them."""

    lmp_per_kwh: Float[np.ndarray, " hour"]
    base_per_kwh: Float[np.ndarray, " hour"]
    root_per_kwh: Float[np.ndarray, " hour"]
    scheduled_kw: Float[np.ndarray, " hour"]
    import_kw: Float[np.ndarray, " hour"]
    iterations: Int[np.ndarray, " hour"]
    closing: Int[np.ndarray, " hour"]
    upstream_day_ahead: Float[np.ndarray, " hour"]
    upstream_real_time: Float[np.ndarray, " hour"]
    operating_cost: Float[np.ndarray, " hour"]
    total_cost: Float[np.ndarray, " hour"]
    agents_day_ahead: Float[np.ndarray, " hour"]
    agents_real_time: Float[np.ndarray, " hour"]
    dso_result: Float[np.ndarray, " hour"]
    shed_kw: Float[np.ndarray, " hour"]
    failed: int
    seconds_in_dso: float
    signal_per_kwh: Float[np.ndarray, "hour agent"]
    load_kw: Float[np.ndarray, "hour agent"]
    shift_kw: Float[np.ndarray, "hour agent"]
    generator_kw: Float[np.ndarray, "hour agent"]
    storage_kw: Float[np.ndarray, "hour agent"]
    stored_kwh: Float[np.ndarray, "hour agent"]
    asked_kw: Float[np.ndarray, "hour agent"]
    bus_load_kw: Float[np.ndarray, "hour bus"]
    bus_load_kvar: Float[np.ndarray, "hour bus"]
    traces: list[HourTrace]

    @property
    def deviation_kw(self) -> Float[np.ndarray, " hour"]:
        """How far the exchange is from its schedule, either way."""
        return np.abs(self.import_kw - self.scheduled_kw)


def play_day(simulation: Transactive, policy: TransactivePolicy, day: int) -> TransactiveDay:
    """Play a held-out day in a simulation of one row."""
    simulation.reset(options={"evaluation_day": day})
    policy.begin_rows(simulation, np.ones(1, dtype=bool))
    closed: list[Outcome] = []
    traces: list[HourTrace] = []
    trace, seconds = HourTrace(import_kw=[], root_per_kwh=[]), 0.0
    for step in rollout(simulation, lambda: policy.answer(simulation), simulation.answer):
        outcome = step.outcome
        trace.import_kw.append(float(outcome.import_kw[0]))
        trace.root_per_kwh.append(float(outcome.root_per_kwh[0]))
        seconds += outcome.response.solve_seconds
        if outcome.is_closed[0]:
            closed.append(outcome)
            traces.append(trace)
            trace = HourTrace(import_kw=[], root_per_kwh=[])
    return _record(closed, traces, seconds, simulation)


def _record(closed: list[Outcome], traces: list[HourTrace], seconds: float, simulation: Transactive) -> TransactiveDay:
    (_, days), params, n = simulation.running(), simulation.params, simulation.params.intervals

    def each(read: Callable[[Outcome], np.ndarray]) -> np.ndarray:
        return np.array([read(o)[0] for o in closed])

    scheduled = days.day_ahead.import_kw[0]
    day_ahead = days.forecast.lmp_per_kwh[0, :n] * scheduled * params.step_hours
    return TransactiveDay(
        lmp_per_kwh=each(lambda o: o.lmp_per_kwh),
        base_per_kwh=each(lambda o: o.base_per_kwh),
        root_per_kwh=each(lambda o: o.root_per_kwh),
        scheduled_kw=scheduled,
        import_kw=each(lambda o: o.import_kw),
        iterations=each(lambda o: o.iteration + 1),
        closing=each(lambda o: o.closing),
        upstream_day_ahead=day_ahead,
        upstream_real_time=each(lambda o: o.upstream_cost) - day_ahead,
        operating_cost=each(lambda o: o.operating_cost.sum(axis=-1)),
        total_cost=each(lambda o: o.total_cost),
        agents_day_ahead=each(lambda o: o.bills.day_ahead.sum(axis=-1)),
        agents_real_time=each(lambda o: o.bills.real_time.sum(axis=-1)),
        dso_result=each(lambda o: o.dso_result),
        shed_kw=each(lambda o: o.response.shed_kw.sum(axis=-1)),
        failed=int((each(lambda o: o.response.status) >= DsoStatus.INFEASIBLE).sum()),
        seconds_in_dso=seconds,
        signal_per_kwh=each(lambda o: o.signal_per_kwh[:, params.agent_bus]),
        load_kw=each(lambda o: o.load_kw),
        shift_kw=each(lambda o: o.set_points.shift_kw),
        generator_kw=each(lambda o: o.set_points.generator_kw),
        storage_kw=each(lambda o: o.set_points.storage_kw),
        stored_kwh=each(lambda o: o.stored_kwh),
        asked_kw=each(lambda o: o.asked_kw),
        bus_load_kw=days.load_kw[0, :n],
        bus_load_kvar=days.load_kvar[0, :n],
        traces=traces,
    )
