"""Playing held-out days: one policy, one environment, and what there is to know of each day afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from peergrid.envs.common.batch import Batch
from peergrid.envs.common.limits import VOLTAGE_TOLERANCE_PU
from peergrid.envs.common.policy import BatchPolicy, Policy
from peergrid.envs.common.rollout import rollout_in, rollout_of
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.types import Outcome, Params
from peergrid.grid.dso import DsoStatus, is_curtailed


@dataclass(frozen=True, eq=False, kw_only=True)
class DayRecord:
    """What a day came to. Money is currency of the whole day; energies are sums of magnitudes over microgrids.

    Hours with curtailment are those in which the first submission of a microgrid was cut. Powers are [kW, kvar].
    """

    day: int
    welfare: float
    gain: Float[np.ndarray, " agent"]
    first_proposed_kwh: float
    first_accepted_kwh: float
    accepted_kwh: float
    curtailed_kwh: float
    hours_with_curtailment: float
    traded_kwh: float
    voltage_pu: Float[np.ndarray, "time bus"]
    loading_max: Float[np.ndarray, " time"]
    shed_kwh: float
    losses_kwh: float
    step_hours: float
    substation: Float[np.ndarray, "time 2"]
    generator: Float[np.ndarray, "time 2"]
    dso_calls: int
    dso_seconds: float
    policy_seconds: float
    failed: int
    not_tight: int


def play_day(env: P2PTrading, policy: Policy, day: int) -> DayRecord:
    """Play held-out day `day` to its end."""
    steps = list(rollout_in(env, policy, day))
    return _record([s.outcome for s in steps], env, day, sum(s.deciding_seconds for s in steps))


def play_all(simulation: Batch[Any, Any, Any, Any], policy: BatchPolicy, first: int = 0) -> Float[np.ndarray, " day"]:
    """Welfare of each held-out day of any market, in currency: row k plays day `first` + k."""
    simulation.reset(options={"evaluation_day": first})
    welfare = np.zeros(simulation.num_envs)
    for step in rollout_of(simulation, policy):
        welfare[simulation.played] += step.outcome.welfare
    return welfare


def _record(outcomes: list[Outcome], env: P2PTrading, day: int, policy_seconds: float) -> DayRecord:
    params = env.simulation.params
    hours = params.step_hours
    responses = [o.response for o in outcomes]
    status = np.array([r.status[0] for r in responses])
    reactive = [[r.substation_kvar[0], r.generator_kvar[0].sum()] for r in responses]
    active = [[r.substation_kw[0], r.generator_kw[0].sum()] for r in responses]

    def energy(*of_each: np.ndarray) -> float:
        return float(np.abs(np.stack(of_each)).sum() * hours)

    return DayRecord(
        day=day,
        welfare=float(sum(o.welfare[0] for o in outcomes)),
        gain=np.sum([o.gain[0] for o in outcomes], axis=0),
        first_proposed_kwh=energy(*[o.first_proposed_kw[0] for o in outcomes]),
        first_accepted_kwh=energy(*[o.first_accepted_kw[0] for o in outcomes]),
        accepted_kwh=energy(*[r.accepted_kw[0] for r in responses]),
        curtailed_kwh=energy(*[o.proposed_kw[0] - o.response.accepted_kw[0] for o in outcomes]),
        hours_with_curtailment=float(sum(_was_cut(o, params) for o in outcomes) * hours),
        traded_kwh=energy(*[o.contracts.quantity_kw[0] for o in outcomes]) / 2,
        voltage_pu=np.stack([r.voltage_pu[0] for r in responses]),
        loading_max=np.array([(r.current_a[0, 1:] / params.feeder.i_max_a[1:]).max() for r in responses]),
        shed_kwh=energy(*[r.shed_kw[0] for r in responses]),
        losses_kwh=float(sum(r.losses_kw[0] for r in responses) * hours),
        step_hours=hours,
        substation=np.array([[p[0], q[0]] for p, q in zip(active, reactive, strict=True)]),
        generator=np.array([[p[1], q[1]] for p, q in zip(active, reactive, strict=True)]),
        dso_calls=int(sum(o.dso_calls[0] for o in outcomes)),
        dso_seconds=float(sum(r.solve_seconds for r in responses)),
        policy_seconds=policy_seconds,
        failed=int((status >= DsoStatus.INFEASIBLE).sum()),
        not_tight=int((status == DsoStatus.RELAXATION_NOT_TIGHT).sum()),
    )


def _was_cut(outcome: Outcome, params: Params) -> bool:
    rating_kw = params.microgrids.rating_kw
    return bool(is_curtailed(outcome.first_proposed_kw[0], outcome.first_accepted_kw[0], rating_kw).any())


def bus_hours_beyond_limits(records: Sequence[DayRecord], v_min_pu: float, v_max_pu: float) -> float:
    """Buses beyond their voltage limits, summed over the hours of a mean day."""
    tolerance = VOLTAGE_TOLERANCE_PU
    voltage = np.stack([r.voltage_pu[:, 1:] for r in records])
    beyond = (voltage > v_max_pu + tolerance) | (voltage < v_min_pu - tolerance)
    return float(beyond.sum() * records[0].step_hours / len(records))
