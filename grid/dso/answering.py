"""From the optimum of a power flow to the operator's response."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from peergrid.grid.dso.layout import DeviceLayout
from peergrid.grid.dso.response import DsoResponse, DsoStatus
from peergrid.grid.opf.problem import OpfProblem, OpfSolution, OpfStatus, flowing_pu2, relaxation_gap
from peergrid.grid.power_flow import PowerFlow, PowerFlowStatus, solve_power_flow
from peergrid.grid.prices import price_parts

TIGHT_PU = 1e-6

# What the operator makes of each OpfStatus.
STATUS = np.array([DsoStatus.OPTIMAL, DsoStatus.INFEASIBLE, DsoStatus.INACCURATE], dtype=int)


def to_response(layout: DeviceLayout, problem: OpfProblem, solution: OpfSolution, start: float) -> DsoResponse:
    """The response that a solution stands for.

    Args:
        start: When work on the query began, by `time.perf_counter`.
    """
    feeder, asked = problem.feeder, problem.injections
    solved = np.asarray(solution.status == int(OpfStatus.OPTIMAL))
    if not solved.all():
        # Where there is no answer, energy alone makes the price, and voltages of 1 keep its parts finite.
        solution = replace(solution, of_buses=solution.of_buses.copy(order="K"))
        lmp = asked.linear_per_kwh[..., layout.substation, None]
        np.copyto(solution.price_per_kwh, lmp, where=~solved[..., None])
        np.copyto(solution.voltage_pu, 1.0, where=~solved[..., None])
    flowing = flowing_pu2(feeder, solution)
    gap = relaxation_gap(feeder, solution, flowing)
    tight = np.asarray(solved & (gap <= TIGHT_PU))
    p, q = solution.p_kw, solution.q_kvar
    # The solver stays within the bounds to its tolerance; the promise (never enlarged, never reversed) is exact.
    bounded = p.clip(asked.p_min_kw, asked.p_max_kw)
    shed = np.zeros(problem.load_kw.shape)
    shed[..., 1:] = bounded[..., layout.sheddable]
    response = DsoResponse(
        accepted_kw=bounded[..., layout.trades],
        shed_kw=shed,
        generator_kw=p[..., layout.generators],
        generator_kvar=q[..., layout.generators],
        substation_kw=p[..., layout.substation],
        substation_kvar=q[..., layout.substation],
        voltage_pu=solution.voltage_pu,
        flow_kw=solution.flow_kw,
        flow_kvar=solution.flow_kvar,
        # Not from current_pu2, which stays loose on lines of a milliohm.
        current_a=np.sqrt(flowing) * feeder.base_a,
        losses_kw=np.asarray((feeder.r_pu * solution.current_pu2).sum(axis=-1) * feeder.base_kva),
        price_per_kwh=solution.price_per_kwh,
        reactive_price_per_kvarh=solution.reactive_price_per_kvarh,
        price_parts=price_parts(feeder, solution, problem.upper_voltage),
        v_min_multiplier=solution.v_min_multiplier,
        v_max_multiplier=solution.v_max_multiplier,
        i_max_multiplier=solution.i_max_multiplier,
        i_max_lossless_multiplier=solution.i_max_lossless_multiplier,
        cost_per_hour=solution.cost_per_hour,
        relaxation_gap_pu=gap,
        status=np.where(solved & ~tight, int(DsoStatus.RELAXATION_NOT_TIGHT), STATUS[solution.status]),
        solve_seconds=time.perf_counter() - start,
        te_signal_per_kwh=solution.te_signal_per_kwh,
    )
    return response if tight.all() else with_power_flow(layout, response, problem, where=np.asarray(~tight))


def with_power_flow(
    layout: DeviceLayout, response: DsoResponse, problem: OpfProblem, where: Bool[np.ndarray, "*batch"]
) -> DsoResponse:
    """The response with voltages, flows and losses of the AC power flow at its dispatch, in the rows marked."""
    flow = dispatch_power_flow(layout, response, problem)
    diverged = where & (flow.status == PowerFlowStatus.DIVERGED)
    by_bus = {name: getattr(flow, name) for name in ("voltage_pu", "flow_kw", "flow_kvar", "current_a")}
    by_row = {name: getattr(flow, name) for name in ("losses_kw", "substation_kw", "substation_kvar")}
    return replace(
        response,
        **{name: np.where(where[..., None], values, getattr(response, name)) for name, values in by_bus.items()},
        **{name: np.where(where, values, getattr(response, name)) for name, values in by_row.items()},
        status=np.where(diverged, int(DsoStatus.POWER_FLOW_DIVERGED), response.status),
    )


def dispatch_power_flow(layout: DeviceLayout, response: DsoResponse, problem: OpfProblem) -> PowerFlow:
    """The AC power flow at the dispatch of a response."""
    p_kw, q_kvar = response.shed_kw - problem.load_kw, -problem.load_kvar
    q_kvar[..., 1:] += problem.injections.tan_phi[..., layout.sheddable] * response.shed_kw[..., 1:]
    for injected, bus, values in (
        (p_kw, layout.trade_bus, response.accepted_kw),
        (p_kw, layout.generator_bus, response.generator_kw),
        (q_kvar, layout.generator_bus, response.generator_kvar),
    ):
        for k, b in enumerate(bus):
            injected[..., b] += values[..., k]
    return solve_power_flow(problem.feeder, p_kw, q_kvar)
